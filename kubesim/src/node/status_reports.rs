//! The kubelet's reports to the API server, while a fault delays them.

use std::sync::Arc;

use tokio::time::sleep_until;

use crate::simulation::Simulation;

/// Applies each report when it is due; never returns.
pub(crate) async fn run(sim: Arc<Simulation>) {
    let mut changed = sim.pods.changed();
    loop {
        changed.mark_unchanged();
        match sim.pods.next_report() {
            Some(due) => tokio::select! {
                biased;
                () = sleep_until(due) => sim.pods.apply_reports(),
                _ = changed.changed() => {}
            },
            // The sender is in the store, which the simulation holds.
            None => drop(changed.changed().await),
        }
    }
}
