//! The bus of a cluster, and its faults.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus::pubsub_service::Service;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    pubsub::{Faults, PubSubModel},
    trace,
    world::{hosts::EPOCH, later},
};

/// The bus and its faults.
pub struct BusFaults {
    model: PubSubModel,
    /// Numbers the pauses: the end of one does not end a later one.
    pauses: Arc<AtomicU64>,
    /// Numbers the other faults.
    faults: Arc<AtomicU64>,
}

impl BusFaults {
    /// Creates the bus without faults.
    pub fn new(seed: u64) -> Self {
        let model = PubSubModel::new(StdRng::seed_from_u64(seed ^ 0x0062_7573), EPOCH);
        model.set_faults(usual());
        Self {
            model,
            pauses: Arc::default(),
            faults: Arc::default(),
        }
    }

    /// Returns the service.
    pub fn service(&self) -> Arc<dyn Service> {
        self.model.service()
    }

    /// Makes the bus unavailable for a time.
    pub fn pause(&self, time: Duration) {
        let (model, pauses) = (self.model.clone(), Arc::clone(&self.pauses));
        model.pause();
        let number = pauses.fetch_add(1, Ordering::Relaxed) + 1;
        later(time, move || {
            if pauses.load(Ordering::Relaxed) == number {
                model.resume();
                trace::world("the bus is available again");
            }
        });
    }

    /// Lets the bus have faults for a time.
    pub fn misbehave(&self, faults: Faults, time: Duration) {
        let (model, current) = (self.model.clone(), Arc::clone(&self.faults));
        model.set_faults(faults);
        let number = current.fetch_add(1, Ordering::Relaxed) + 1;
        later(time, move || {
            if current.load(Ordering::Relaxed) == number {
                model.set_faults(usual());
                trace::world("the bus delivers and answers normally again");
            }
        });
    }

    /// Ends all faults.
    pub fn end(&self) {
        self.model.resume();
        self.model.set_faults(usual());
    }
}

/// What the service does without faults: a killed process does not nack what it held.
fn usual() -> Faults {
    Faults {
        lost_nack: 0.3,
        ..Faults::default()
    }
}
