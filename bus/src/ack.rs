//! The promise to a durable subscription that a batch is dealt with.

use std::fmt;

/// Settles one delivery of a durable subscription: exactly one of accepted or given back.
///
/// Dropping it gives the batch back, so a reader that dies loses nothing.
pub struct Ack(Option<Box<dyn FnOnce(Outcome) + Send + Sync>>);

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reader is done with it: it never comes again.
    Accepted,
    /// It is to come again.
    GivenBack,
}

impl Ack {
    /// One that tells its engine by this call. The call must not block.
    pub fn new(settle: impl FnOnce(Outcome) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(settle)))
    }

    /// Tells the bus that the batch is dealt with for good.
    pub fn accept(mut self) {
        self.settle(Outcome::Accepted);
    }

    /// Asks the bus for the batch again.
    pub fn give_back(self) {
        drop(self);
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(settle) = self.0.take() {
            settle(outcome);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.settle(Outcome::GivenBack);
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Ack(open)" } else { "Ack(settled)" })
    }
}
