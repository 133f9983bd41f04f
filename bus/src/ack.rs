//! Acknowledgement of one delivery of a durable subscription.

use std::fmt;

/// Acknowledges one delivery of a durable subscription: exactly one of [`ack`](Self::ack) and
/// [`nack`](Self::nack).
///
/// Dropping it is a nack, so a reader that panics or is cancelled loses nothing.
pub struct Ack(Option<Box<dyn FnOnce(AckOutcome) + Send + Sync>>);

/// The outcome of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckOutcome {
    /// The delivery is processed; the bus does not redeliver it.
    Acked,
    /// The bus redelivers the message.
    Nacked,
}

impl Ack {
    /// Creates an acknowledgement that reports its outcome to `on_outcome`, which must not block.
    pub fn new(on_outcome: impl FnOnce(AckOutcome) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(on_outcome)))
    }

    /// Acknowledges the delivery: the bus does not redeliver it.
    pub fn ack(mut self) {
        self.report(AckOutcome::Acked);
    }

    /// Asks the bus to redeliver the message.
    pub fn nack(self) {
        drop(self);
    }

    fn report(&mut self, outcome: AckOutcome) {
        if let Some(on_outcome) = self.0.take() {
            on_outcome(outcome);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.report(AckOutcome::Nacked);
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Ack(open)" } else { "Ack(done)" })
    }
}
