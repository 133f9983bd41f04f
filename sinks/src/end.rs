//! How a connection to a receiver ends.

use bus::BusError;
use tokio::sync::watch;

use crate::failure::Failure;

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

/// Says when to stop.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// One, and who says so.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (told, stop) = watch::channel(false);
        (told, Self(stop))
    }

    /// Waits until it was said, or nobody is left who could.
    pub(crate) async fn asked(&mut self) {
        let _ = self.0.wait_for(|asked| *asked).await;
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
