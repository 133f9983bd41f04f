//! A subscription that lasts: made once, read by one reader at a time.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;

use super::{failure::Failure, temporary::Maker};
use crate::{AppName, BusError, PublishTime};

/// The subscriptions that this process reads. That no other process does is for those who share them to see to.
#[derive(Default)]
pub(super) struct Reserved(Arc<Mutex<HashSet<String>>>);

/// A durable subscription while it is read; another reader is refused meanwhile.
pub(super) struct Durable {
    name: String,
    all: Arc<Mutex<HashSet<String>>>,
}

impl Reserved {
    /// Opens a subscription of an app for one reader, made where it does not exist; it begins then at this time, or else with what comes after, at the emulator too.
    ///
    /// # Errors
    /// [`BusError::Subscribed`], [`BusError::UnknownApp`], and the service's.
    pub(super) async fn open(
        &self,
        maker: &Maker,
        app: &AppName,
        name: &str,
        since: Option<PublishTime>,
    ) -> Result<Durable, BusError> {
        let full = maker.names.durable(app, name);
        if !self.0.lock().insert(full.clone()) {
            return Err(BusError::Subscribed(name.to_owned()));
        }
        let durable = Durable {
            name: full,
            all: Arc::clone(&self.0),
        };
        match durable.make(maker, app, since).await {
            Ok(()) => Ok(durable),
            Err(Failure::NotFound) => Err(BusError::UnknownApp(app.clone())),
            Err(failure) => Err(failure.into_bus_error()),
        }
    }
}

impl Durable {
    /// Its name, in full.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    async fn make(&self, maker: &Maker, app: &AppName, since: Option<PublishTime>) -> Result<(), Failure> {
        if maker.admin.is_attached(&self.name).await? {
            return Ok(());
        }
        // One that lost its topic keeps its name.
        maker.admin.delete_subscription(&self.name).await?;
        maker.admin.create_durable(&self.name, &maker.names.topic(app)).await?;
        match since {
            Some(since) => maker.admin.seek(&self.name, since).await,
            None if maker.begins_with_backlog => maker.admin.seek(&self.name, PublishTime::now()).await,
            None => Ok(()),
        }
    }

    /// Makes one that was lost again, from this time on.
    pub(super) async fn make_again(&self, maker: &Maker, app: &AppName, from: PublishTime) -> Result<(), Failure> {
        maker.admin.delete_subscription(&self.name).await?;
        maker.admin.create_durable(&self.name, &maker.names.topic(app)).await?;
        maker.admin.seek(&self.name, from).await
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.all.lock().remove(&self.name);
    }
}
