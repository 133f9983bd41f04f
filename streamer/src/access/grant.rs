//! The permission of an open response, and its end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bus::AppName;
use futures::{FutureExt, future::BoxFuture};
use registry::{Action, KeyHolder, Keys};
use system::clock;
use tokio::sync::watch;

use super::external::ExternalAuth;

/// Longest sleep before a key's expiry is checked again: the clock may be set, and timers have a
/// maximum duration.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// Added to each sleep, because keys expire on whole seconds.
const MARGIN: Duration = Duration::from_millis(100);

/// A permission that can end while a response is open.
pub(crate) struct Grant(BoxFuture<'static, ()>);

impl Grant {
    /// Creates a grant that never ends.
    pub(crate) fn unlimited() -> Self {
        Self(std::future::pending().boxed())
    }

    /// Creates a grant that ends when the API key expires or is revoked.
    pub(super) fn of_key(holder: KeyHolder, keys: watch::Receiver<Arc<Keys>>) -> Self {
        Self(until_invalid(holder, keys).boxed())
    }

    /// Creates a grant that ends when the external authorizer revokes the permission.
    pub(super) fn of_authorizer(
        external: Arc<ExternalAuth>,
        authorization: String,
        app: AppName,
        action: Action,
    ) -> Self {
        Self(external.until_revoked(authorization, app, action).boxed())
    }

    /// Waits for the end. Do not call it again afterwards.
    ///
    /// *Cancel safety*: dropping the call loses nothing.
    pub(crate) async fn ended(&mut self) {
        (&mut self.0).await;
    }
}

async fn until_invalid(holder: KeyHolder, mut keys: watch::Receiver<Arc<Keys>>) {
    loop {
        let valid = keys.borrow_and_update().is_valid(&holder);
        if !valid {
            return;
        }
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(holder.info().expires);
        let left = expires.duration_since(clock::wall_time()).unwrap_or_default();
        tokio::select! {
            changed = keys.changed() => if changed.is_err() {
                // The registry is gone: the server is shutting down and ends its responses itself.
                return std::future::pending().await;
            },
            () = tokio::time::sleep(left.min(MAX_SLEEP) + MARGIN) => {}
        }
    }
}
