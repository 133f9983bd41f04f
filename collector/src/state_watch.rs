//! Waiting for a container's state to change.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::instance::Known;

/// The instance's new state. Never where nobody tells it any more: then the collector stops.
pub async fn changed(known: &mut watch::Receiver<Known>) -> Known {
    if known.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *known.borrow_and_update()
}

/// Waits until an instance whose end is on the bus is shown no more: until then its record tells that it is not to be read again. False: the collector stops.
pub async fn park(mut known: watch::Receiver<Known>, shutdown: CancellationToken) -> bool {
    let gone = async {
        while known.borrow_and_update().present {
            changed(&mut known).await;
        }
    };
    shutdown.run_until_cancelled(gone).await.is_some()
}
