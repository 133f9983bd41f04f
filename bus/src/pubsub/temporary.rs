//! A subscription for one reader, removed when the reader is done.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{admin::Admin, failure::Failure, names::Names, replicas::Replicas};
use crate::{AppName, PublishTime};

/// A reader's own subscription. Dropping it removes it, in the background.
pub(super) struct Temporary {
    name: String,
    maker: Arc<Maker>,
}

/// What makes and removes them.
pub(super) struct Maker {
    pub(super) admin: Arc<Admin>,
    pub(super) names: Names,
    pub(super) replicas: Replicas,
    /// The service's clock decides where a new subscription begins; an emulator hands a new one all that it has (rule 13).
    pub(super) begins_with_backlog: bool,
    /// Removals under way.
    pub(super) removals: TaskTracker,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// With what is published from now on.
    Now,
    /// With what was published at or after this time.
    Time(PublishTime),
}

impl Maker {
    /// Makes one; what is published after this returned reaches it.
    pub(super) async fn make(self: &Arc<Self>, app: &AppName, from: From) -> Result<Temporary, Failure> {
        self.replicas.show_life(&self.admin, &self.names).await?;
        let temporary = Temporary {
            name: self.names.new_tail(),
            maker: Arc::clone(self),
        };
        // Known as ours before it exists, so that our own sweep leaves it alone.
        self.replicas.own(&temporary.name);
        self.admin
            .create_temporary(&temporary.name, &self.names.topic(app))
            .await?;
        match from {
            From::Now if !self.begins_with_backlog => {}
            From::Now => self.admin.seek(&temporary.name, PublishTime::now()).await?,
            From::Time(time) => self.admin.seek(&temporary.name, time).await?,
        }
        Ok(temporary)
    }
}

impl Temporary {
    /// Its name, in full.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let (name, maker) = (std::mem::take(&mut self.name), Arc::clone(&self.maker));
        // Without a runtime the process is ending: the next start sweeps.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let removals = maker.removals.clone();
        removals.spawn_on(
            async move {
                match maker.admin.delete_subscription(&name).await {
                    Ok(()) => {}
                    Err(failure) => tracing::debug!(subscription = name, ?failure, "left to the sweep"),
                }
                // Left behind or not: it is nobody's any more.
                maker.replicas.disown(&name);
            },
            &runtime,
        );
    }
}
