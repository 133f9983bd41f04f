//! Decisions of an external authorizer, cached for a short time.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus::AppName;
use moka::future::Cache;
use registry::{Action, Keys};
use ring::digest::{Context, SHA256};
use system::clock;
use tokio::sync::{Semaphore, watch};

use super::{
    authorizer::{Authorizer, AuthorizerError, Decision},
    throttle::Throttle,
};
use crate::error::ApiError;

/// Limit of cached decisions; above it the least used ones are evicted.
const MAX_CACHED: u64 = 100_000;

/// Limit of concurrent calls, so that clients that guess tokens cannot overload the authorizer.
const MAX_CALLS: usize = 64;

/// Limit on the duration of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an open response continues while the authorizer is unavailable.
const OUTAGE_GRACE: Duration = Duration::from_secs(300);

/// Digest of credentials, app and action, so that the cache holds no tokens.
type CacheKey = [u8; 32];

/// An external authorizer with its cache.
pub(super) struct ExternalAuth {
    authorizer: Authorizer,
    decisions: Cache<CacheKey, Decision>,
    cache_time: Duration,
    calls: Semaphore,
    /// The last call failed.
    unavailable: AtomicBool,
    throttle: Throttle,
    /// Keys that seal log sessions.
    keys: Option<watch::Receiver<Arc<Keys>>>,
    own_keys: Keys,
}

impl ExternalAuth {
    /// Log sessions are sealed with the secret of `keys`, which replicas share, or with one of this
    /// process.
    pub(super) fn new(authorizer: Authorizer, cache_time: Duration, keys: Option<watch::Receiver<Arc<Keys>>>) -> Self {
        Self {
            authorizer,
            decisions: Cache::builder()
                .max_capacity(MAX_CACHED)
                .time_to_live(cache_time)
                .build(),
            cache_time,
            calls: Semaphore::new(MAX_CALLS),
            unavailable: AtomicBool::new(false),
            throttle: Throttle::default(),
            keys,
            own_keys: Keys::default(),
        }
    }

    /// Authorizes an action by the value of the `Authorization` header.
    pub(super) async fn authorize(
        &self,
        authorization: Option<&str>,
        peer: IpAddr,
        app: &AppName,
        action: Action,
    ) -> Result<(), ApiError> {
        let authorization = authorization.ok_or(ApiError::Unauthorized)?;
        match self.decide(authorization, app, action).await? {
            Decision::Allowed => Ok(()),
            Decision::NotFound => Err(ApiError::UnknownApp),
            Decision::Unauthenticated => Err(self.throttle.record_failure(peer, authorization)),
        }
    }

    /// Returns the user name of the credentials.
    pub(super) async fn user_name(&self, authorization: Option<&str>, peer: IpAddr) -> Result<String, ApiError> {
        let authorization = authorization.ok_or(ApiError::Unauthorized)?;
        let call = self.call(async {
            match self.authorizer.user_name(authorization).await {
                Some(name) => name.map(Some),
                None => Ok(None),
            }
        });
        match call.await.map_err(|_| ApiError::AuthorizerUnavailable)? {
            Some(Some(name)) => Ok(name),
            Some(None) => Err(self.throttle.record_failure(peer, authorization)),
            None => Err(ApiError::NoAccounts),
        }
    }

    /// Returns whether an authorized app exists even if it has no topic yet.
    pub(super) fn implies_existence(&self) -> bool {
        self.authorizer.implies_existence()
    }

    /// Creates a token that stands for this `Authorization` value and app, with its expiry in Unix
    /// seconds.
    pub(super) fn create_session(&self, authorization: &str, app: &AppName) -> (String, u64) {
        self.with_keys(|keys| keys.seal_session(authorization, app.as_str()))
    }

    /// Returns the `Authorization` value that a session token stands for.
    pub(super) fn open_session(&self, token: &str, peer: IpAddr, app: Option<&AppName>) -> Result<String, ApiError> {
        let opened = app.and_then(|app| self.with_keys(|keys| keys.unseal_session(token, app.as_str())));
        opened.ok_or_else(|| self.throttle.record_failure(peer, token))
    }

    /// Waits until the permission is revoked, or the authorizer has been unavailable for
    /// [`OUTAGE_GRACE`].
    pub(super) async fn until_revoked(self: Arc<Self>, authorization: String, app: AppName, action: Action) {
        let mut decided = clock::steady();
        loop {
            tokio::time::sleep(self.cache_time).await;
            match self.decide(&authorization, &app, action).await {
                Ok(Decision::Allowed) => decided = clock::steady(),
                Ok(_) => return,
                Err(_) if clock::since(decided) > OUTAGE_GRACE => return,
                Err(_) => {}
            }
        }
    }

    fn with_keys<T>(&self, f: impl FnOnce(&Keys) -> T) -> T {
        match &self.keys {
            Some(keys) => f(&keys.borrow()),
            None => f(&self.own_keys),
        }
    }

    /// Returns a cached decision, or calls the authorizer once for all concurrent requests.
    async fn decide(&self, authorization: &str, app: &AppName, action: Action) -> Result<Decision, ApiError> {
        let call = self.call(self.authorizer.decide(authorization, app, action));
        let decision = self
            .decisions
            .try_get_with(cache_key(authorization, app, action), call)
            .await;
        decision.map_err(|_| ApiError::AuthorizerUnavailable)
    }

    /// Makes a call within the limits of concurrency and time, and logs when an outage begins or
    /// ends.
    async fn call<T>(&self, call: impl Future<Output = Result<T, AuthorizerError>>) -> Result<T, AuthorizerError> {
        let with_permit = async {
            let _permit = self.calls.acquire().await;
            call.await
        };
        let result = tokio::time::timeout(CALL_TIMEOUT, with_permit).await;
        let result = result.unwrap_or_else(|_| Err(AuthorizerError::timeout(CALL_TIMEOUT)));
        let was_unavailable = self.unavailable.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_unavailable => {
                tracing::error!(%error, "authorizer unavailable, refusing new requests");
            }
            Ok(_) if was_unavailable => tracing::info!("authorizer available again"),
            _ => {}
        }
        result
    }
}

fn cache_key(authorization: &str, app: &AppName, action: Action) -> CacheKey {
    let mut digest = Context::new(&SHA256);
    let action = match action {
        Action::Read => b'r',
        Action::ManageDrains => b'd',
    };
    // App names contain no zero byte.
    for part in [&[action], app.as_str().as_bytes(), b"\0", authorization.as_bytes()] {
        digest.update(part);
    }
    let mut key = CacheKey::default();
    key.copy_from_slice(digest.finish().as_ref());
    key
}
