//! External authorizers: a Kubernetes API server, or a webhook of the platform.

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

/// An invalid webhook configuration.
#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhook {
    /// The URL has another scheme, no host, or a password.
    #[error("invalid webhook URL: give a URL such as https://api.example.com/tributary, without user and password")]
    Url,
    /// No certificate authorities to verify the server with.
    #[error("cannot read the system's certificate authorities: {0}; install the package ca-certificates")]
    Roots(std::io::Error),
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed,
    /// The credentials are invalid.
    Unauthenticated,
    /// The app does not exist, or the action is not permitted.
    NotFound,
}

/// A failed call of an authorizer. The message contains no secrets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct AuthorizerError(String);

impl AuthorizerError {
    /// Creates the error of a call that timed out.
    pub(super) fn timeout(limit: std::time::Duration) -> Self {
        Self(format!("no response within {} s", limit.as_secs()))
    }
}

/// An authorizer.
pub(super) enum Authorizer {
    /// A Kubernetes API server, which authenticates the token and authorizes `get` on `pods/log` or
    /// `update` on `drains.tributary.dev` in the namespace with the app's name.
    Kubernetes(kube::Client),
    Webhook(Box<Webhook>),
}

/// A URL that receives POST requests with `{"app": …, "action": "read" or "drains",
/// "authorization": …}`. It responds 200 (allowed), 401 (invalid credentials) or 404 (no such app).
pub(super) struct Webhook {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Authorizer {
    /// Decides on an action. `authorization` is the value of the header.
    pub(super) async fn decide(
        &self,
        authorization: &str,
        app: &AppName,
        action: Action,
    ) -> Result<Decision, AuthorizerError> {
        match self {
            Self::Kubernetes(client) => {
                let Some(user) = review_token(client, authorization).await? else {
                    return Ok(Decision::Unauthenticated);
                };
                review_access(client, user, app, action).await
            }
            Self::Webhook(webhook) => webhook.call(authorization, app, action).await,
        }
    }

    /// Returns the user name of the credentials; `Ok(None)` if they are invalid. `None` if the
    /// authorizer does not report user names.
    pub(super) async fn user_name(&self, authorization: &str) -> Option<Result<Option<String>, AuthorizerError>> {
        match self {
            Self::Kubernetes(client) => {
                let user = review_token(client, authorization).await;
                Some(user.map(|user| user.and_then(|user| user.username)))
            }
            Self::Webhook(_) => None,
        }
    }

    /// Returns whether an authorized app exists even if it has no topic yet. RBAC rules can permit
    /// every namespace name, so they do not imply it.
    pub(super) fn implies_existence(&self) -> bool {
        matches!(self, Self::Webhook(_))
    }
}

/// Returns the user that a token authenticates.
///
/// *Source*: Kubernetes API, `TokenReview` of authentication.k8s.io/v1.
async fn review_token(client: &kube::Client, authorization: &str) -> Result<Option<UserInfo>, AuthorizerError> {
    // With HTTP Basic, the token is the password.
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
    let reviews = Api::<TokenReview>::all(client.clone());
    let review = reviews.create(&PostParams::default(), &review).await;
    let review = review.map_err(|error| review_error("tokenreviews", &error))?;
    let status = review.status.unwrap_or_default();
    let authenticated = status.authenticated == Some(true);
    Ok(status.user.filter(|_| authenticated))
}

/// Decides whether a user may perform an action.
///
/// *Source*: Kubernetes API, `SubjectAccessReview` of authorization.k8s.io/v1.
async fn review_access(
    client: &kube::Client,
    user: UserInfo,
    app: &AppName,
    action: Action,
) -> Result<Decision, AuthorizerError> {
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
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let review = reviews.create(&PostParams::default(), &review).await;
    let review = review.map_err(|error| review_error("subjectaccessreviews", &error))?;
    let allowed = review.status.is_some_and(|status| status.allowed);
    Ok(if allowed { Decision::Allowed } else { Decision::NotFound })
}

fn review_error(resource: &str, error: &kube::Error) -> AuthorizerError {
    AuthorizerError(match error {
        kube::Error::Api(status) => format!(
            "the Kubernetes API refused to create {resource}: {}; bind the cluster role system:auth-delegator to the streamer's service account",
            status.message
        ),
        error => format!("the Kubernetes API is unavailable: {error}"),
    })
}

impl Webhook {
    /// Creates a webhook for this URL.
    pub(super) fn new(url: &str) -> Result<Self, InvalidWebhook> {
        let parsed = url.parse::<Uri>().ok();
        let is_valid = |url: &Uri| {
            let is_http = matches!(url.scheme_str(), Some("http" | "https"));
            is_http
                && url
                    .authority()
                    .is_some_and(|authority| !authority.as_str().contains('@'))
        };
        let url = parsed.filter(is_valid).ok_or(InvalidWebhook::Url)?;
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(InvalidWebhook::Roots)?;
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self {
            url,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    async fn call(&self, authorization: &str, app: &AppName, action: Action) -> Result<Decision, AuthorizerError> {
        let action = match action {
            Action::Read => "read",
            Action::ManageDrains => "drains",
        };
        let body = serde_json::json!({"app": app.as_str(), "action": action, "authorization": authorization});
        let request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()));
        let request = request.map_err(|error| AuthorizerError(format!("cannot build the webhook request: {error}")))?;
        let response = self.client.request(request).await;
        // Redirects are not followed: they could send keys to another host.
        match response.map(|response| response.status()) {
            Ok(StatusCode::OK) => Ok(Decision::Allowed),
            Ok(StatusCode::UNAUTHORIZED) => Ok(Decision::Unauthenticated),
            Ok(StatusCode::NOT_FOUND) => Ok(Decision::NotFound),
            Ok(status) => Err(AuthorizerError(format!(
                "the webhook responded {status} instead of 200, 401 or 404"
            ))),
            Err(error) => Err(AuthorizerError(format!(
                "the webhook is unavailable: {}",
                causes::innermost(&error)
            ))),
        }
    }
}
