//! How a connection to a receiver ends.

use bus::BusError;

use crate::transport::error::Failure;

/// How it ended.
pub(crate) enum End {
    /// It failed: what is not sure is sent again on the next.
    Failed(Failure),
    /// It was old, and is made anew.
    Renewed,
    /// We were told to stop.
    Stopped,
    /// The bus failed, or, without an error, closed.
    Bus(Option<BusError>),
}
