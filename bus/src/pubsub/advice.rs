//! Advice to operators on failed calls.

use super::{
    failure::NO_CREDENTIALS,
    settings::{EMULATOR_VARIABLE, PubSubSettings},
};
use crate::{BusError, BusOperation};

/// Tells how to fix `error` of a call for `operation`.
pub(super) fn advice(settings: &PubSubSettings, operation: BusOperation, error: &BusError) -> String {
    match (error, &settings.emulator) {
        (BusError::Denied(reason), _) if reason.starts_with(NO_CREDENTIALS) => {
            "on Google Cloud, check that the workload has a service account".to_owned()
        }
        (BusError::Denied(_), _) => format!("grant the service account {}", permissions(operation)),
        (BusError::Quota(_), _) => {
            "raise the project's quota, or add another project (--bus pubsub:PROJECT,PROJECT)".to_owned()
        }
        (_, Some(host)) => format!("check that the emulator is running at {EMULATOR_VARIABLE}={host}"),
        _ => "check the project id, that its Pub/Sub API is enabled, and that pubsub.googleapis.com is reachable"
            .to_owned(),
    }
}

/// *Source*: Pub/Sub, access control: required permissions.
fn permissions(operation: BusOperation) -> &'static str {
    match operation {
        BusOperation::Check => "pubsub.topics.get",
        BusOperation::ManageTopics => "pubsub.topics.create and pubsub.topics.delete",
        BusOperation::CreateSubscription => "pubsub.subscriptions.create and pubsub.topics.attachSubscription",
        BusOperation::Publish => "pubsub.topics.publish",
        BusOperation::Read => "pubsub.subscriptions.consume",
    }
}
