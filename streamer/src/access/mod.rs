//! Who may do what: asked before anything else of a request is looked at.
//!
//! A request's `credentials` are looked up among the keys, or `elsewhere` an `authority` decides; who is let in gets a `pass`, which ends when the right does. Who fails
//! again and again is `throttle`d. An app that one may not read answers as one that does not exist.

mod authority;
mod credentials;
mod elsewhere;
mod pass;
mod throttle;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    extract::{Path, rejection::PathRejection},
    http::HeaderMap,
};
use bus::AppName;
use registry::{Action, AddressPolicy, Drain, KeyHolder, ProbeReport, Prober, Registry};
use tokio::sync::Semaphore;

pub use authority::InvalidWebhook;
pub(crate) use pass::Pass;

use crate::{
    access::{
        authority::{Authority, Webhook},
        credentials::{Credentials, authorization},
        elsewhere::Elsewhere,
    },
    error::ApiError,
};

/// How many drains an app may have, unless told otherwise.
pub const MAX_DRAINS: usize = 5;

/// How many drains may be tried at once, and when it may be worth another try.
const MAX_PROBES: usize = 16;
const PROBE_RETRY_SECONDS: u64 = 5;

/// Who may read, and where drains and keys are kept.
pub struct Access {
    asked: Asked,
    registry: Option<Arc<dyn Registry>>,
    addresses: AddressPolicy,
    max_drains: usize,
    prober: Option<Arc<dyn Prober>>,
    probes: Semaphore,
}

/// Who is asked whether somebody may.
enum Asked {
    /// Nobody: whoever can connect may do everything.
    Nobody,
    /// The keys that this registry knows.
    Keys {
        registry: Arc<dyn Registry>,
        throttle: Box<throttle::Throttle>,
    },
    /// Somebody else.
    Elsewhere(Arc<Elsewhere>),
}

/// Who asks.
pub(crate) enum Who {
    /// Nobody needs to say.
    Anybody,
    /// A key's holder.
    Holder(KeyHolder),
    /// Whom somebody else knows by this name.
    Named(String),
}

impl Access {
    /// Everybody who can connect may do everything. Without a registry there are no drains.
    pub fn free(registry: Option<Arc<dyn Registry>>) -> Self {
        Self::new(Asked::Nobody, registry)
    }

    /// Who has a key of this registry may do what the key is for.
    pub fn keys(registry: Arc<dyn Registry>) -> Self {
        let asked = Asked::Keys {
            registry: Arc::clone(&registry),
            throttle: Box::default(),
        };
        Self::new(asked, Some(registry))
    }

    /// Whom a cluster's API knows by their token may do what its rules let them do: read the app that is called as a namespace with `get` on `pods/log` there, manage its
    /// drains with `update` on `drains.tributary.dev`. A decision is good for `remembered`; an open tail ends at most twice that after the right has gone.
    pub fn kubernetes(client: kube::Client, registry: Option<Arc<dyn Registry>>, remembered: Duration) -> Self {
        Self::elsewhere(Authority::Kubernetes(client), registry, remembered)
    }

    /// Whom this URL lets in may: it is sent `{"app", "action", "authorization"}` and answers 200, 401 or 404. A decision is good for `remembered`.
    ///
    /// # Errors
    /// What cannot be asked, in one line.
    pub fn webhook(
        url: &str,
        registry: Option<Arc<dyn Registry>>,
        remembered: Duration,
    ) -> Result<Self, InvalidWebhook> {
        let webhook = Webhook::new(url)?;
        Ok(Self::elsewhere(
            Authority::Webhook(Box::new(webhook)),
            registry,
            remembered,
        ))
    }

    fn elsewhere(authority: Authority, registry: Option<Arc<dyn Registry>>, remembered: Duration) -> Self {
        let keys = registry.as_ref().map(|registry| registry.keys());
        let elsewhere = Elsewhere::new(authority, remembered, keys);
        Self::new(Asked::Elsewhere(Arc::new(elsewhere)), registry)
    }

    fn new(asked: Asked, registry: Option<Arc<dyn Registry>>) -> Self {
        Self {
            asked,
            registry,
            addresses: AddressPolicy::default(),
            max_drains: MAX_DRAINS,
            prober: None,
            probes: Semaphore::new(MAX_PROBES),
        }
    }

    /// Lets drains lead to these addresses, and an app have so many of them.
    #[must_use]
    pub fn with_drains(mut self, addresses: AddressPolicy, most: usize) -> Self {
        (self.addresses, self.max_drains) = (addresses, most);
        self
    }

    /// Lets drains be tried by this one.
    #[must_use]
    pub fn with_prober(mut self, prober: Arc<dyn Prober>) -> Self {
        self.prober = Some(prober);
        self
    }

    /// Tries a drain.
    ///
    /// # Errors
    /// [`ApiError::NoProber`] where nobody can, [`ApiError::TooMany`] where as many are tried as may be.
    pub(crate) async fn probe(&self, drain: &Drain) -> Result<ProbeReport, ApiError> {
        let prober = self.prober.as_ref().ok_or(ApiError::NoProber)?;
        let _one = self.probes.try_acquire().map_err(|_| ApiError::TooMany {
            reason: format!("{MAX_PROBES} drains are being tested already"),
            retry_after: PROBE_RETRY_SECONDS,
        })?;
        Ok(prober.probe(drain).await)
    }

    /// Lets a request in that wants to do this to the app that its path names. What cannot be an app's name names none, to those who have a good key.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] without a good key, [`ApiError::Throttled`] after too many bad ones; [`ApiError::UnknownApp`] where the key is not for this app;
    /// [`ApiError::Forbidden`] where it is, but not for this; [`ApiError::Undecided`] where who decides does not answer.
    pub(crate) async fn enter(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        app: Result<Path<String>, PathRejection>,
        action: Action,
    ) -> Result<(AppName, Pass), ApiError> {
        let app = named(app);
        match &self.asked {
            Asked::Nobody => app.map(|app| (app, Pass::free())).ok_or(ApiError::UnknownApp),
            Asked::Keys { registry, throttle } => {
                let holder = holder(&**registry, throttle, headers, peer)?;
                let app = app.filter(|app| holder.is_allowed(Action::Read, app.as_str()));
                let app = app.ok_or(ApiError::UnknownApp)?;
                if !holder.is_allowed(action, app.as_str()) {
                    return Err(ApiError::Forbidden);
                }
                Ok((app, Pass::of(holder, registry.keys())))
            }
            Asked::Elsewhere(elsewhere) => {
                let authorization = authorization(headers);
                // Nobody else is asked about what names no app.
                let unnamed = authorization.map_or(ApiError::Unauthorized, |_| ApiError::UnknownApp);
                let app = app.ok_or(unnamed)?;
                elsewhere.enter(authorization, peer, &app, action).await?;
                Ok((
                    app.clone(),
                    passed(elsewhere, authorization.unwrap_or_default(), app, action),
                ))
            }
        }
    }

    /// Lets a request in that a session's word opens the log of the app for that its path names.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] where it does not, [`ApiError::Throttled`] after too many of those; as [`enter`](Self::enter) where who decides says no by now.
    pub(crate) async fn enter_session(
        &self,
        word: &str,
        peer: IpAddr,
        app: Result<Path<String>, PathRejection>,
    ) -> Result<(AppName, Pass), ApiError> {
        let app = named(app);
        match &self.asked {
            Asked::Nobody => app.map(|app| (app, Pass::free())).ok_or(ApiError::UnknownApp),
            Asked::Keys { registry, throttle } => {
                let keys = Arc::clone(&registry.keys().borrow());
                let holder = app.as_ref().and_then(|app| keys.verify_session(word, app.as_str()));
                match (app, holder) {
                    (Some(app), Some(holder)) => Ok((app, Pass::of(holder, registry.keys()))),
                    _ => Err(throttle.failed(peer, word)),
                }
            }
            Asked::Elsewhere(elsewhere) => {
                let authorization = elsewhere.session(word, peer, app.as_ref())?;
                let app = app.ok_or(ApiError::UnknownApp)?;
                elsewhere.enter(Some(&authorization), peer, &app, Action::Read).await?;
                Ok((app.clone(), passed(elsewhere, &authorization, app, Action::Read)))
            }
        }
    }

    /// A session's word for this app, for who was let in to it, and when it ends. `None`: none is needed.
    ///
    /// # Errors
    /// As [`who`](Self::who).
    pub(crate) fn open_session(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        app: &AppName,
    ) -> Result<Option<(String, u64)>, ApiError> {
        match &self.asked {
            Asked::Nobody => Ok(None),
            Asked::Keys { registry, throttle } => {
                let holder = holder(&**registry, throttle, headers, peer)?;
                Ok(Some(registry.keys().borrow().create_session(&holder, app.as_str())))
            }
            Asked::Elsewhere(elsewhere) => {
                let authorization = authorization(headers).ok_or(ApiError::Unauthorized)?;
                Ok(Some(elsewhere.open_session(authorization, app)))
            }
        }
    }

    /// Who a request is from.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] without a good key, [`ApiError::Throttled`] after too many bad ones, [`ApiError::NoAccount`] where who decides has no names.
    pub(crate) async fn who(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Who, ApiError> {
        match &self.asked {
            Asked::Nobody => Ok(Who::Anybody),
            Asked::Keys { registry, throttle } => holder(&**registry, throttle, headers, peer).map(Who::Holder),
            Asked::Elsewhere(elsewhere) => elsewhere.name(authorization(headers), peer).await.map(Who::Named),
        }
    }

    /// Whether who lets somebody in to this app says by that that it exists, though it has not spoken yet.
    pub(crate) fn names(&self, app: &AppName) -> bool {
        match &self.asked {
            Asked::Nobody => false,
            Asked::Keys { registry, .. } => registry.keys().borrow().contains_app(app.as_str()),
            Asked::Elsewhere(elsewhere) => elsewhere.names_apps(),
        }
    }

    /// Where drains are kept.
    ///
    /// # Errors
    /// [`ApiError::NoRegistry`] where there is no place for them.
    pub(crate) fn registry(&self) -> Result<&dyn Registry, ApiError> {
        self.registry.as_deref().ok_or(ApiError::NoRegistry)
    }

    /// Where drains may lead.
    pub(crate) fn addresses(&self) -> &AddressPolicy {
        &self.addresses
    }

    /// How many an app may have.
    pub(crate) fn max_drains(&self) -> usize {
        self.max_drains
    }
}

/// The app that a path names.
fn named(app: Result<Path<String>, PathRejection>) -> Option<AppName> {
    app.ok().and_then(|Path(app)| app.parse().ok())
}

fn passed(elsewhere: &Arc<Elsewhere>, authorization: &str, app: AppName, action: Action) -> Pass {
    Pass::decided(Arc::clone(elsewhere), authorization.to_owned(), app, action)
}

/// Whose key a request has.
fn holder(
    registry: &dyn Registry,
    throttle: &throttle::Throttle,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<KeyHolder, ApiError> {
    // No key at all is how a client asks whether it needs one.
    let credentials = Credentials::of(headers).ok_or(ApiError::Unauthorized)?;
    let keys = Arc::clone(&registry.keys().borrow());
    match keys.authenticate(&credentials.key, credentials.email.as_deref()) {
        Some(holder) => {
            tracing::debug!(key = holder.info().id, %peer, "a key was good");
            Ok(holder)
        }
        // A good key is let in whatever others do from the same address: only those that are bad count, and wait.
        None => Err(throttle.failed(peer, &credentials.key)),
    }
}
