//! A model of Google Pub/Sub, shared by all simulated machines.
//!
//! It keeps the service's promises and no others. An accepted message is delivered at least once to
//! each subscription that existed when it was published, until it is acknowledged or older than the
//! retention. Everything else is up to [`Faults`]: order, repeats, streams that end, requests that
//! fail or are executed without an answer, and seeks and administration that take effect late.
//!
//! Time is tokio's and randomness comes from one seeded generator, so on a runtime with one thread
//! and paused time every run is the same. `requests` decides what happens to a call, `streams`
//! delivers messages, `topics` and `subscription` hold them.

mod calls;
mod dice;
mod faults;
mod requests;
mod state;
mod streams;
mod subscription;
#[cfg(test)]
mod tests;
mod topics;
mod validation;

use std::{sync::Arc, time::Duration};

use bus::{PublishTime, pubsub_service::Service};
use parking_lot::{Mutex, MutexGuard};
use rand::rngs::StdRng;
use system::clock::steady;
use tokio::sync::Notify;

pub use faults::Faults;
use state::State;

/// The service.
#[derive(Clone)]
pub struct PubSubModel(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Wakes requests that wait for the end of a pause.
    resumed: Notify,
}

impl PubSubModel {
    /// Creates the service without faults. `wall` is its wall clock's time since 1970.
    pub fn new(rng: StdRng, wall: Duration) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State::new(rng, wall)),
            resumed: Notify::new(),
        }))
    }

    /// Returns the service as an engine's.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(self.clone())
    }

    /// Sets the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.dice.faults = faults;
        state.wake_streams();
    }

    /// Changes some faults from now on.
    pub fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.state().dice.faults.clone();
        change(&mut faults);
        self.set_faults(faults);
    }

    /// Makes the service unavailable: requests fail or hang, streams deliver nothing, and leases and
    /// acknowledgements are lost.
    pub fn pause(&self) {
        self.state().pause(steady());
    }

    /// Makes the service available again.
    pub fn resume(&self) {
        self.state().resume(steady());
        self.0.resumed.notify_waiters();
    }

    /// Returns the time of the service's clock, by which messages are published.
    pub fn now(&self) -> PublishTime {
        self.state().wall(steady())
    }

    /// Returns the number of messages of a subscription that are not acknowledged; `None` if it does
    /// not exist.
    pub fn backlog(&self, subscription: &str) -> Option<usize> {
        let state = self.state();
        state
            .subscriptions
            .get(subscription)
            .map(|subscription| subscription.len())
    }

    /// Returns the full names of all subscriptions.
    pub fn subscriptions(&self) -> Vec<String> {
        self.state().subscriptions.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}
