//! How a connection to a receiver ended.

use bus::BusError;

use super::error::DeliveryError;

/// How a connection ended.
pub(crate) enum Outcome {
    /// It failed; unconfirmed lines are resent on the next one.
    Failed(DeliveryError),
    /// It reached its maximum age or was closed while idle, and is replaced.
    Expired,
    /// Shutdown was requested.
    Stopped,
    /// The subscription failed or, without an error, ended.
    Bus(Option<BusError>),
}
