//! Waiting for a container's state to change.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::instance::ContainerState;

/// The instance's new state. Never where nobody tells it any more: then the collector stops.
pub async fn state_changed(state: &mut watch::Receiver<ContainerState>) -> ContainerState {
    if state.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *state.borrow_and_update()
}

/// Waits until an instance whose end is on the bus is shown no more: until then its record tells that it is not to be read again. False: the collector stops.
pub async fn wait_until_absent(mut state: watch::Receiver<ContainerState>, shutdown: CancellationToken) -> bool {
    let gone = async {
        while state.borrow_and_update().present {
            state_changed(&mut state).await;
        }
    };
    shutdown.run_until_cancelled(gone).await.is_some()
}
