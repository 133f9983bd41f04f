//! Who may do what: asked before anything else of a request is looked at.
//!
//! A request's `credentials` are looked up among the keys; who has one that is good gets a `pass`, which ends when the key does. Who fails again and again is
//! `throttle`d. An app that one may not read answers as one that does not exist.

mod credentials;
mod pass;
mod throttle;

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Path, rejection::PathRejection},
    http::HeaderMap,
};
use bus::AppName;
use registry::{Action, Addresses, Holder, Registry};

pub(crate) use pass::Pass;

use crate::{access::credentials::Credentials, error::ApiError};

/// How many drains an app may have, unless told otherwise.
pub const MAX_DRAINS: usize = 5;

/// Who may read, and where drains and keys are kept.
pub struct Access {
    keys: Keys,
    registry: Option<Arc<dyn Registry>>,
    addresses: Addresses,
    max_drains: usize,
}

/// Whether a key is asked for.
enum Keys {
    /// No: everybody who can connect may do everything.
    Free,
    /// One that this registry knows.
    Asked {
        registry: Arc<dyn Registry>,
        throttle: Box<throttle::Throttle>,
    },
}

impl Access {
    /// Everybody who can connect may do everything. Without a registry there are no drains.
    pub fn free(registry: Option<Arc<dyn Registry>>) -> Self {
        Self {
            keys: Keys::Free,
            registry,
            addresses: Addresses::default(),
            max_drains: MAX_DRAINS,
        }
    }

    /// Who has a key of this registry may do what the key is for.
    pub fn keys(registry: Arc<dyn Registry>) -> Self {
        let asked = Keys::Asked {
            registry: Arc::clone(&registry),
            throttle: Box::default(),
        };
        Self {
            keys: asked,
            ..Self::free(Some(registry))
        }
    }

    /// Lets drains lead to these addresses, and an app have so many of them.
    #[must_use]
    pub fn with_drains(mut self, addresses: Addresses, most: usize) -> Self {
        (self.addresses, self.max_drains) = (addresses, most);
        self
    }

    /// Lets a request in that wants to do this to an app.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] without a good key, [`ApiError::Throttled`] after too many bad ones; [`ApiError::UnknownApp`] where the key is not for this app;
    /// [`ApiError::Forbidden`] where it is, but not for this.
    fn enter(&self, headers: &HeaderMap, peer: IpAddr, app: &AppName, action: Action) -> Result<Pass, ApiError> {
        let Some(holder) = self.holder(headers, peer)? else {
            return Ok(Pass::free());
        };
        if !holder.may(Action::Read, app.as_str()) {
            return Err(ApiError::UnknownApp);
        }
        if !holder.may(action, app.as_str()) {
            return Err(ApiError::Forbidden);
        }
        match &self.keys {
            Keys::Free => Ok(Pass::free()),
            Keys::Asked { registry, .. } => Ok(Pass::of(holder, registry.keys())),
        }
    }

    /// Lets a request in to the app that its path names. What cannot be an app's name names none, to those who have a good key.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub(crate) fn enter_path(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        app: Result<Path<String>, PathRejection>,
        action: Action,
    ) -> Result<(AppName, Pass), ApiError> {
        let app = app.ok().and_then(|Path(app)| app.parse::<AppName>().ok());
        let Some(app) = app else {
            self.holder(headers, peer)?;
            return Err(ApiError::UnknownApp);
        };
        let pass = self.enter(headers, peer, &app, action)?;
        Ok((app, pass))
    }

    /// Lets a request in that a session's word opens the log of the app for that its path names.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] where it does not, [`ApiError::Throttled`] after too many of those.
    pub(crate) fn enter_session(
        &self,
        word: &str,
        peer: IpAddr,
        app: Result<Path<String>, PathRejection>,
    ) -> Result<(AppName, Pass), ApiError> {
        let app = app.ok().and_then(|Path(app)| app.parse::<AppName>().ok());
        let Keys::Asked { registry, throttle } = &self.keys else {
            return app.map(|app| (app, Pass::free())).ok_or(ApiError::UnknownApp);
        };
        let keys = Arc::clone(&registry.keys().borrow());
        let holder = app.as_ref().and_then(|app| keys.session(word, app.as_str()));
        match (app, holder) {
            (Some(app), Some(holder)) => Ok((app, Pass::of(holder, registry.keys()))),
            _ => Err(throttle.failed(peer, word)),
        }
    }

    /// A session's word for this app, and when it ends. `None`: none is needed.
    ///
    /// # Errors
    /// As [`holder`](Self::holder).
    pub(crate) fn open_session(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        app: &AppName,
    ) -> Result<Option<(String, u64)>, ApiError> {
        let Keys::Asked { registry, .. } = &self.keys else {
            return Ok(None);
        };
        let holder = self.holder(headers, peer)?;
        Ok(holder.map(|holder| registry.keys().borrow().open_session(&holder, app.as_str())))
    }

    /// Whose key a request has. `None`: it needs none.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] without a good key, [`ApiError::Throttled`] after too many bad ones.
    pub(crate) fn holder(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Option<Holder>, ApiError> {
        let Keys::Asked { registry, throttle } = &self.keys else {
            return Ok(None);
        };
        // No key at all is how a client asks whether it needs one.
        let credentials = Credentials::of(headers).ok_or(ApiError::Unauthorized)?;
        let keys = Arc::clone(&registry.keys().borrow());
        match keys.holder(&credentials.key, credentials.email.as_deref()) {
            Some(holder) => {
                tracing::debug!(key = holder.info().id, %peer, "a key was good");
                Ok(Some(holder))
            }
            // A good key is let in whatever others do from the same address: only those that are bad count, and wait.
            None => Err(throttle.failed(peer, &credentials.key)),
        }
    }

    /// Whether keys say that this app exists, though it has not spoken yet.
    pub(crate) fn names(&self, app: &AppName) -> bool {
        match &self.keys {
            Keys::Free => false,
            Keys::Asked { registry, .. } => registry.keys().borrow().name(app.as_str()),
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
    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How many an app may have.
    pub(crate) fn max_drains(&self) -> usize {
        self.max_drains
    }
}
