//! Waits for changes of a container's state.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::instance::ContainerState;

/// Returns the next state; never after the sender was dropped, which happens at shutdown.
pub async fn state_changed(state: &mut watch::Receiver<ContainerState>) -> ContainerState {
    if state.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *state.borrow_and_update()
}

/// Waits until the pod no longer lists an instance whose stream has ended; until then its
/// checkpoint prevents reading it again. Returns false on shutdown.
pub async fn wait_until_absent(mut state: watch::Receiver<ContainerState>, shutdown: CancellationToken) -> bool {
    let absent = async {
        while state.borrow_and_update().present {
            state_changed(&mut state).await;
        }
    };
    shutdown.run_until_cancelled(absent).await.is_some()
}
