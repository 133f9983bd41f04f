//! Durable subscriptions: created once, read by one reader at a time.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use system::collections::HashSet;

use super::{admin_client::Attachment, failure::Failure, subscription_factory::SubscriptionFactory};
use crate::{AppName, BusError, PublishTime};

/// Ack deadline of durable subscriptions. It is short because the next reader waits twice as long
/// for redeliveries before it reports a gap.
pub(super) const DURABLE_ACK_DEADLINE: Duration = Duration::from_secs(10);

/// The same on the emulator, which redelivers to an ended stream a few times first.
pub(super) const EMULATED_ACK_DEADLINE: Duration = Duration::from_secs(30);

/// The durable subscriptions that this process reads. Other processes are excluded by the caller's
/// leases.
#[derive(Default)]
pub(super) struct Reservations(Arc<Mutex<HashSet<String>>>);

/// A durable subscription reserved for one reader.
pub(super) struct Durable {
    name: String,
    reservations: Arc<Mutex<HashSet<String>>>,
}

impl Reservations {
    /// Opens a subscription for one reader, which is created if it does not exist and then starts
    /// at `since`, or with new messages.
    ///
    /// # Errors
    /// [`BusError::SubscriptionInUse`], [`BusError::UnknownApp`], and failures of the service.
    pub(super) async fn open(
        &self,
        factory: &SubscriptionFactory,
        app: &AppName,
        name: &str,
        since: Option<PublishTime>,
    ) -> Result<Durable, BusError> {
        let full = factory.names.durable(app, name);
        if !self.0.lock().insert(full.clone()) {
            return Err(BusError::SubscriptionInUse(name.to_owned()));
        }
        let durable = Durable {
            name: full,
            reservations: Arc::clone(&self.0),
        };
        match durable.ensure(factory, app, since).await {
            Ok(()) => Ok(durable),
            Err(Failure::NotFound) => Err(BusError::UnknownApp(app.clone())),
            Err(failure) => Err(failure.into_bus_error()),
        }
    }
}

impl Durable {
    /// Returns the full name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    async fn ensure(
        &self,
        factory: &SubscriptionFactory,
        app: &AppName,
        since: Option<PublishTime>,
    ) -> Result<(), Failure> {
        match factory.admin.attachment(&self.name).await? {
            Attachment::Attached => return Ok(()),
            // A detached subscription still occupies its name.
            Attachment::Detached => factory.admin.delete_subscription(&self.name).await?,
            // Not deleted: a new subscription that seems to be missing may have messages.
            Attachment::Missing => {}
        }
        let topic = factory.names.topic(app);
        let created = factory
            .admin
            .create_durable(&self.name, &topic, DURABLE_ACK_DEADLINE)
            .await?;
        if !created {
            return Ok(());
        }
        match since {
            Some(since) => factory.admin.seek(&self.name, since).await,
            None if factory.starts_with_backlog => factory.admin.seek(&self.name, PublishTime::now()).await,
            None => Ok(()),
        }
    }

    /// Replaces a lost subscription by one that starts at `from`.
    pub(super) async fn recreate(
        &self,
        factory: &SubscriptionFactory,
        app: &AppName,
        from: PublishTime,
    ) -> Result<(), Failure> {
        factory.admin.delete_subscription(&self.name).await?;
        factory
            .admin
            .create_durable(&self.name, &factory.names.topic(app), DURABLE_ACK_DEADLINE)
            .await?;
        factory.admin.seek(&self.name, from).await
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.reservations.lock().remove(&self.name);
    }
}
