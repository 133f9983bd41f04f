//! Keys of pods, and the errors of pods and containers that do not exist.

use crate::error::Error;
use crate::store::pod::PodKey;

pub(super) fn key(namespace: &str, pod: &str) -> PodKey {
    (namespace.to_owned(), pod.to_owned())
}

pub(super) fn no_pod(key: &PodKey) -> Error {
    Error::NoPod {
        namespace: key.0.clone(),
        pod: key.1.clone(),
    }
}

pub(super) fn not_running(key: &PodKey, container: &str) -> Error {
    Error::NotRunning {
        namespace: key.0.clone(),
        pod: key.1.clone(),
        container: container.to_owned(),
    }
}
