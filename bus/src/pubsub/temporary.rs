//! Temporary subscriptions: one per reader without acknowledgement, deleted with the reader.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{admin_client::Admin, failure::Failure, names::Names, replicas::Replicas};
use crate::{AppName, PublishTime};

/// A reader's own subscription. Dropping it deletes it in the background.
pub(super) struct Temporary {
    name: String,
    factory: Arc<SubscriptionFactory>,
}

/// Creates and deletes subscriptions.
pub(super) struct SubscriptionFactory {
    pub(super) admin: Arc<Admin>,
    pub(super) names: Names,
    pub(super) replicas: Replicas,
    /// A new subscription on an emulator starts with all stored messages; on the service, with new
    /// ones (delivery rule 13).
    pub(super) starts_with_backlog: bool,
    /// Deletions in progress.
    pub(super) removals: TaskTracker,
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum SubscriptionStart {
    /// With messages published from now on.
    Now,
    /// With messages published at or after this time.
    Time(PublishTime),
}

impl SubscriptionFactory {
    /// Creates a temporary subscription. It receives everything published after this returned.
    pub(super) async fn create(
        self: &Arc<Self>,
        app: &AppName,
        start: SubscriptionStart,
    ) -> Result<Temporary, Failure> {
        self.replicas.ensure_heartbeat(&self.admin, &self.names).await?;
        let temporary = Temporary {
            name: self.names.new_tail(),
            factory: Arc::clone(self),
        };
        // Registered before it exists, so that a concurrent sweep of this process skips it.
        self.replicas.register(&temporary.name);
        self.admin
            .create_temporary(&temporary.name, &self.names.topic(app))
            .await?;
        match start {
            SubscriptionStart::Now if !self.starts_with_backlog => {}
            SubscriptionStart::Now => self.admin.seek(&temporary.name, PublishTime::now()).await?,
            SubscriptionStart::Time(time) => self.admin.seek(&temporary.name, time).await?,
        }
        Ok(temporary)
    }
}

impl Temporary {
    /// Returns the full name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let (name, factory) = (std::mem::take(&mut self.name), Arc::clone(&self.factory));
        // Without a runtime the process is ending; the next start sweeps.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let removals = factory.removals.clone();
        removals.spawn_on(
            async move {
                if let Err(failure) = factory.admin.delete_subscription(&name).await {
                    tracing::debug!(
                        subscription = name,
                        ?failure,
                        "subscription removal failed, left to the sweep"
                    );
                }
                factory.replicas.unregister(&name);
            },
            &runtime,
        );
    }
}
