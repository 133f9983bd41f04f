//! Authentication and authorization of requests.
//!
//! A request's credentials are checked against the API keys, or an external authorizer decides. An
//! authorized request gets a [`Grant`] that ends when the permission does. Clients that keep
//! sending invalid keys are throttled. An app that a client may not read looks like one that does
//! not exist.

mod authorizer;
mod credentials;
mod external;
mod grant;
mod throttle;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use bus::AppName;
use registry::{Action, KeyHolder, Registry};

pub use self::authorizer::InvalidWebhook;
pub(crate) use self::grant::Grant;
use self::{
    authorizer::{Authorizer, Webhook},
    credentials::{Credentials, authorization},
    external::ExternalAuth,
    throttle::Throttle,
};
use crate::error::ApiError;

/// Authorization of requests.
pub struct Access {
    mode: AuthMode,
}

/// How requests are authorized.
enum AuthMode {
    /// Every request is allowed.
    Disabled,
    /// By the API keys of a registry.
    ApiKeys {
        registry: Arc<dyn Registry>,
        throttle: Box<Throttle>,
    },
    /// By an external authorizer.
    External(Arc<ExternalAuth>),
}

/// The sender of a request.
pub(crate) enum Identity {
    /// Authentication is disabled.
    Anonymous,
    /// The holder of an API key.
    KeyHolder(KeyHolder),
    /// A user name of the external authorizer.
    User(String),
}

impl Access {
    /// Allows every request.
    pub fn unauthenticated() -> Self {
        Self {
            mode: AuthMode::Disabled,
        }
    }

    /// Allows requests by the API keys of this registry.
    pub fn api_keys(registry: Arc<dyn Registry>) -> Self {
        let mode = AuthMode::ApiKeys {
            registry,
            throttle: Box::default(),
        };
        Self { mode }
    }

    /// Allows requests by the RBAC rules of a Kubernetes cluster: `get` on `pods/log` in the
    /// namespace with the app's name to read its log, `update` on `drains.tributary.dev` to manage
    /// its drains.
    ///
    /// Decisions are cached for `cache_time`. An open response ends within twice that time after the
    /// permission is revoked. Replicas with the same registry
    /// accept each other's log sessions.
    pub fn kubernetes(client: kube::Client, registry: Option<Arc<dyn Registry>>, cache_time: Duration) -> Self {
        Self::external(Authorizer::Kubernetes(client), registry, cache_time)
    }

    /// Allows requests by a webhook, which receives `{"app", "action", "authorization"}` and
    /// responds 200, 401 or 404. Decisions are cached for `cache_time`.
    ///
    /// # Errors
    /// [`InvalidWebhook`].
    pub fn webhook(
        url: &str,
        registry: Option<Arc<dyn Registry>>,
        cache_time: Duration,
    ) -> Result<Self, InvalidWebhook> {
        let webhook = Webhook::new(url)?;
        Ok(Self::external(
            Authorizer::Webhook(Box::new(webhook)),
            registry,
            cache_time,
        ))
    }

    fn external(authorizer: Authorizer, registry: Option<Arc<dyn Registry>>, cache_time: Duration) -> Self {
        let keys = registry.map(|registry| registry.keys());
        let external = ExternalAuth::new(authorizer, cache_time, keys);
        Self {
            mode: AuthMode::External(Arc::new(external)),
        }
    }

    /// Authorizes an action on an app. `app` is `None` if the path contains no valid app name.
    ///
    /// # Errors
    /// - [`ApiError::Unauthorized`] without valid credentials
    /// - [`ApiError::Throttled`] after too many invalid ones
    /// - [`ApiError::UnknownApp`] if the credentials are not for this app
    /// - [`ApiError::Forbidden`] if they are, but not for this action
    /// - [`ApiError::AuthorizerUnavailable`]
    pub(crate) async fn authorize(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        app: Option<AppName>,
        action: Action,
    ) -> Result<(AppName, Grant), ApiError> {
        match &self.mode {
            AuthMode::Disabled => app.map(|app| (app, Grant::unlimited())).ok_or(ApiError::UnknownApp),
            AuthMode::ApiKeys { registry, throttle } => {
                let holder = key_holder(&**registry, throttle, headers, peer)?;
                let app = app.filter(|app| holder.is_allowed(Action::Read, app.as_str()));
                let app = app.ok_or(ApiError::UnknownApp)?;
                if !holder.is_allowed(action, app.as_str()) {
                    return Err(ApiError::Forbidden);
                }
                Ok((app, Grant::of_key(holder, registry.keys())))
            }
            AuthMode::External(external) => {
                let authorization = authorization(headers);
                // The authorizer is not called for an invalid app name.
                let invalid_app = authorization.map_or(ApiError::Unauthorized, |_| ApiError::UnknownApp);
                let app = app.ok_or(invalid_app)?;
                external.authorize(authorization, peer, &app, action).await?;
                let grant = external_grant(external, authorization.unwrap_or_default(), &app, action);
                Ok((app, grant))
            }
        }
    }

    /// Authorizes reading an app's log with the token of a log session.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] if the token is invalid, [`ApiError::Throttled`] after too many
    /// invalid ones; with an external authorizer also those of [`authorize`](Self::authorize).
    pub(crate) async fn authorize_session(
        &self,
        token: &str,
        peer: IpAddr,
        app: Option<AppName>,
    ) -> Result<(AppName, Grant), ApiError> {
        match &self.mode {
            AuthMode::Disabled => app.map(|app| (app, Grant::unlimited())).ok_or(ApiError::UnknownApp),
            AuthMode::ApiKeys { registry, throttle } => {
                let keys = Arc::clone(&registry.keys().borrow());
                let holder = app.as_ref().and_then(|app| keys.verify_session(token, app.as_str()));
                match (app, holder) {
                    (Some(app), Some(holder)) => Ok((app, Grant::of_key(holder, registry.keys()))),
                    _ => Err(throttle.record_failure(peer, token)),
                }
            }
            AuthMode::External(external) => {
                let authorization = external.open_session(token, peer, app.as_ref())?;
                let app = app.ok_or(ApiError::UnknownApp)?;
                external
                    .authorize(Some(&authorization), peer, &app, Action::Read)
                    .await?;
                let grant = external_grant(external, &authorization, &app, Action::Read);
                Ok((app, grant))
            }
        }
    }

    /// Creates the token of a log session for an authorized client, and returns it with its expiry
    /// in Unix seconds. `None` if authentication is disabled.
    ///
    /// # Errors
    /// Those of [`identify`](Self::identify).
    pub(crate) fn create_session(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        app: &AppName,
    ) -> Result<Option<(String, u64)>, ApiError> {
        match &self.mode {
            AuthMode::Disabled => Ok(None),
            AuthMode::ApiKeys { registry, throttle } => {
                let holder = key_holder(&**registry, throttle, headers, peer)?;
                Ok(Some(registry.keys().borrow().create_session(&holder, app.as_str())))
            }
            AuthMode::External(external) => {
                let authorization = authorization(headers).ok_or(ApiError::Unauthorized)?;
                Ok(Some(external.create_session(authorization, app)))
            }
        }
    }

    /// Returns the sender of a request.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] without valid credentials, [`ApiError::Throttled`] after too many
    /// invalid ones, [`ApiError::NoAccounts`] if the authorizer does not report user names.
    pub(crate) async fn identify(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Identity, ApiError> {
        match &self.mode {
            AuthMode::Disabled => Ok(Identity::Anonymous),
            AuthMode::ApiKeys { registry, throttle } => {
                key_holder(&**registry, throttle, headers, peer).map(Identity::KeyHolder)
            }
            AuthMode::External(external) => external
                .user_name(authorization(headers), peer)
                .await
                .map(Identity::User),
        }
    }

    /// Returns whether an authorized app exists even if it has no topic yet.
    pub(crate) fn implies_existence(&self, app: &AppName) -> bool {
        match &self.mode {
            AuthMode::Disabled => false,
            AuthMode::ApiKeys { registry, .. } => registry.keys().borrow().contains_app(app.as_str()),
            AuthMode::External(external) => external.implies_existence(),
        }
    }
}

fn external_grant(external: &Arc<ExternalAuth>, authorization: &str, app: &AppName, action: Action) -> Grant {
    Grant::of_authorizer(Arc::clone(external), authorization.to_owned(), app.clone(), action)
}

/// Returns the holder of a request's API key.
fn key_holder(
    registry: &dyn Registry,
    throttle: &Throttle,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<KeyHolder, ApiError> {
    // Clients probe without credentials whether they need some; this is not a failure.
    let credentials = Credentials::of(headers).ok_or(ApiError::Unauthorized)?;
    let keys = Arc::clone(&registry.keys().borrow());
    match keys.authenticate(&credentials.key, credentials.email.as_deref()) {
        Some(holder) => {
            tracing::debug!(key = holder.info().id, %peer, "API key accepted");
            Ok(holder)
        }
        // Only invalid keys are throttled: valid ones work whatever else the same address sends.
        None => Err(throttle.record_failure(peer, &credentials.key)),
    }
}
