//! Others who decide who may do what: a cluster's API, or the platform's own.

use axum::http::{StatusCode, Uri, header};
use bus::AppName;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, api::PostParams};
use registry::Action;

use super::credentials::Credentials;

/// Why a webhook cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhook {
    /// No URL that can be asked.
    #[error("give a URL such as https://api.example.com/tributary, without user and password")]
    Url,
    /// Nothing that a server could be known by.
    #[error("the machine's certificate authorities cannot be read: {0}")]
    Roots(std::io::Error),
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be done.
    Allowed,
    /// Nobody knows who asks.
    Unauthorized,
    /// Not for this app, which may exist or not.
    Hidden,
}

/// Why there was no decision. Without a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unanswered(String);

impl Unanswered {
    /// It took too long.
    pub(super) fn late(wait: std::time::Duration) -> Self {
        Self(format!("no answer within {} s", wait.as_secs()))
    }
}

/// Who decides.
pub(super) enum Authority {
    /// A cluster's API server: whose token it is, and whether that one may `get` `pods/log`, or `update` `drains.tributary.dev`, in the namespace that is called as the app.
    Kubernetes(kube::Client),
    /// A URL that is asked.
    Webhook(Box<Webhook>),
}

/// A URL that is asked with a POST of JSON: `{"app": …, "action": "read" or "drains", "authorization": …}`; 200 lets in, 401 knows nobody, 404 no such app.
pub(super) struct Webhook {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Authority {
    /// Asks for a decision; `authorization` is the header's value.
    pub(super) async fn ask(&self, authorization: &str, app: &AppName, action: Action) -> Result<Verdict, Unanswered> {
        match self {
            Self::Kubernetes(client) => {
                let Some(user) = user(client, authorization).await? else {
                    return Ok(Verdict::Unauthorized);
                };
                may(client, user, app, action).await
            }
            Self::Webhook(webhook) => webhook.ask(authorization, app, action).await,
        }
    }

    /// What whoever has this is called. `None`: nobody knows. Fails where the authority has no names.
    pub(super) async fn name(&self, authorization: &str) -> Option<Result<Option<String>, Unanswered>> {
        match self {
            Self::Kubernetes(client) => {
                let user = user(client, authorization).await;
                Some(user.map(|user| user.and_then(|user| user.username)))
            }
            Self::Webhook(_) => None,
        }
    }

    /// Whether an app that it lets somebody read exists by that alone. A cluster's rights say nothing of that: who may everything may it for any name.
    pub(super) fn names_apps(&self) -> bool {
        matches!(self, Self::Webhook(_))
    }
}

/// Whose token this is.
///
/// *Source*: Kubernetes API, `TokenReview` of authentication.k8s.io/v1.
async fn user(client: &kube::Client, authorization: &str) -> Result<Option<UserInfo>, Unanswered> {
    // With Basic the token is the password: what is in a netrc file.
    let Some(token) = Credentials::parse(authorization).map(|read| read.key) else {
        return Ok(None);
    };
    let review = TokenReview {
        spec: TokenReviewSpec {
            token,
            ..TokenReviewSpec::default()
        },
        ..TokenReview::default()
    };
    let asked = Api::<TokenReview>::all(client.clone());
    let review = asked.create(&PostParams::default(), &review).await;
    let review = review.map_err(|error| refused("tokenreviews", &error))?;
    let status = review.status.unwrap_or_default();
    let known = status.authenticated == Some(true);
    Ok(status.user.filter(|_| known))
}

/// Whether this user may.
///
/// *Source*: Kubernetes API, `SubjectAccessReview` of authorization.k8s.io/v1.
async fn may(client: &kube::Client, user: UserInfo, app: &AppName, action: Action) -> Result<Verdict, Unanswered> {
    let text = |text: &str| Some(text.to_owned());
    let (group, resource, subresource, verb) = match action {
        Action::Read => (None, text("pods"), text("log"), text("get")),
        Action::ManageDrains => (text("tributary.dev"), text("drains"), None, text("update")),
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            resource_attributes: Some(ResourceAttributes {
                namespace: text(app.as_str()),
                group,
                resource,
                subresource,
                verb,
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let asked = Api::<SubjectAccessReview>::all(client.clone());
    let review = asked.create(&PostParams::default(), &review).await;
    let review = review.map_err(|error| refused("subjectaccessreviews", &error))?;
    let allowed = review.status.is_some_and(|status| status.allowed);
    Ok(if allowed { Verdict::Allowed } else { Verdict::Hidden })
}

fn refused(what: &str, error: &kube::Error) -> Unanswered {
    Unanswered(match error {
        kube::Error::Api(status) => format!(
            "the Kubernetes API refuses {what}: {} (the streamer needs `create` on them: the cluster role system:auth-delegator)",
            status.message
        ),
        error => format!("the Kubernetes API does not answer: {error}"),
    })
}

impl Webhook {
    /// One for this URL.
    pub(super) fn new(url: &str) -> Result<Self, InvalidWebhook> {
        let read = url.parse::<Uri>().ok();
        let fits = |url: &Uri| {
            let web = matches!(url.scheme_str(), Some("http" | "https"));
            web && url
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@'))
        };
        let url = read.filter(fits).ok_or(InvalidWebhook::Url)?;
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(InvalidWebhook::Roots)?;
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self {
            url,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    async fn ask(&self, authorization: &str, app: &AppName, action: Action) -> Result<Verdict, Unanswered> {
        let action = match action {
            Action::Read => "read",
            Action::ManageDrains => "drains",
        };
        let question = serde_json::json!({"app": app.as_str(), "action": action, "authorization": authorization});
        let request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(question.to_string()));
        let request = request.map_err(|error| Unanswered(format!("the webhook cannot be asked: {error}")))?;
        let answer = self.client.request(request).await;
        // Redirects are not followed: they would carry keys to where nobody sent them.
        match answer.map(|answer| answer.status()) {
            Ok(StatusCode::OK) => Ok(Verdict::Allowed),
            Ok(StatusCode::UNAUTHORIZED) => Ok(Verdict::Unauthorized),
            Ok(StatusCode::NOT_FOUND) => Ok(Verdict::Hidden),
            Ok(status) => Err(Unanswered(format!(
                "the webhook answers {status}, and not 200, 401 or 404"
            ))),
            Err(error) => Err(Unanswered(format!(
                "the webhook does not answer: {}",
                innermost(&error)
            ))),
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}
