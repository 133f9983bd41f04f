//! Temporary subscriptions: one per reader without acknowledgement, deleted with the reader.

use std::sync::Arc;

use system::task::scoped;

use super::{failure::Failure, subscription_factory::SubscriptionFactory};
use crate::{AppName, PublishTime};

/// A reader's own subscription. Dropping it deletes it in the background.
pub(super) struct Temporary {
    name: String,
    factory: Arc<SubscriptionFactory>,
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum SubscriptionStart {
    /// With messages published from now on.
    Now,
    /// With messages published at or after this time.
    Time(PublishTime),
}

impl Temporary {
    /// Creates a temporary subscription. It receives everything published after this returned.
    pub(super) async fn create(
        factory: &Arc<SubscriptionFactory>,
        app: &AppName,
        start: SubscriptionStart,
    ) -> Result<Self, Failure> {
        let SubscriptionFactory {
            admin,
            names,
            replicas,
            starts_with_backlog,
            ..
        } = &**factory;
        replicas.ensure_heartbeat(admin, names).await?;
        let temporary = Self {
            name: names.new_tail(),
            factory: Arc::clone(factory),
        };
        // Registered before it exists, so that a concurrent sweep of this process skips it.
        replicas.register(&temporary.name);
        admin.create_temporary(&temporary.name, &names.topic(app)).await?;
        match start {
            SubscriptionStart::Now if !starts_with_backlog => {}
            SubscriptionStart::Now => admin.seek(&temporary.name, PublishTime::now()).await?,
            SubscriptionStart::Time(time) => admin.seek(&temporary.name, time).await?,
        }
        Ok(temporary)
    }

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
            scoped(async move {
                if let Err(failure) = factory.admin.delete_subscription(&name).await {
                    tracing::debug!(
                        subscription = name,
                        ?failure,
                        "subscription removal failed, left to the sweep"
                    );
                }
                factory.replicas.unregister(&name);
            }),
            &runtime,
        );
    }
}
