//! What temporary and durable subscriptions need to be created and deleted.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{admin_client::Admin, names::Names, replicas::Replicas};

/// The parts that create and delete a project's subscriptions.
pub(super) struct SubscriptionFactory {
    pub(super) admin: Arc<Admin>,
    pub(super) names: Names,
    pub(super) replicas: Replicas,
    /// A new subscription on an emulator starts with all stored messages; on the service, with new
    /// ones (delivery rule 13).
    pub(super) starts_with_backlog: bool,
    /// Deletions in progress.
    pub(super) removals: TaskTracker,
}
