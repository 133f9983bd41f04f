//! A key that was good, for as long as it is.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bus::AppName;
use futures::{FutureExt, future::BoxFuture};
use registry::{Action, KeyHolder, Keys};
use tokio::sync::watch;

use super::elsewhere::Elsewhere;

/// What lets a tail run. It ends with the key it was given for.
pub(crate) struct Pass(BoxFuture<'static, ()>);

impl Pass {
    /// One that never ends.
    pub(crate) fn free() -> Self {
        Self(std::future::pending().boxed())
    }

    /// One that ends when the key is revoked, or its time is over.
    pub(super) fn of(holder: KeyHolder, keys: watch::Receiver<Arc<Keys>>) -> Self {
        Self(until_void(holder, keys).boxed())
    }

    /// One that ends when somebody else says so.
    pub(super) fn decided(elsewhere: Arc<Elsewhere>, authorization: String, app: AppName, action: Action) -> Self {
        Self(elsewhere.until_refused(authorization, app, action).boxed())
    }

    /// Waits until it has ended. Not to be asked again then.
    ///
    /// *Cancel safety*: nothing is lost when the call is dropped.
    pub(crate) async fn ended(&mut self) {
        (&mut self.0).await;
    }
}

async fn until_void(holder: KeyHolder, mut keys: watch::Receiver<Arc<Keys>>) {
    loop {
        let good = keys.borrow_and_update().is_valid(&holder);
        if !good {
            return;
        }
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(holder.info().expires);
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            changed = keys.changed() => if changed.is_err() {
                // Nobody looks after the keys any more: the server stops, and ends its tails itself.
                return std::future::pending().await;
            },
            // In steps: a year is more than a timer likes, and a clock may be set.
            () = tokio::time::sleep(left.min(STEP) + GRAIN) => {}
        }
    }
}

/// How long at most until a key's time is looked at again.
const STEP: Duration = Duration::from_secs(3600);

/// Keys end on whole seconds.
const GRAIN: Duration = Duration::from_millis(100);
