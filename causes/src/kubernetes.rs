//! Words for errors of the Kubernetes API, whose own messages contain debug output.

use kube::runtime::watcher;

use crate::innermost;

/// Returns the API's message, or the cause if there was no answer.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => {
            format!("the Kubernetes API returned status {}", status.code)
        }
        kube::Error::Api(status) => status.message.clone(),
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            format!("cannot reach the Kubernetes API: {}", innermost(error))
        }
        error => innermost(error),
    }
}

/// Returns the cause of a failed watch.
pub fn describe_watch(error: &watcher::Error) -> String {
    use watcher::Error;
    match error {
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => describe(error),
        Error::WatchError(status) => status.message.clone(),
        Error::NoResourceVersion => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_described_by_its_message_only() {
        let status = kube::core::Status::failure("pods is forbidden", "Forbidden").with_code(403);
        let error = watcher::Error::WatchFailed(kube::Error::Api(Box::new(status)));
        assert_eq!(describe_watch(&error), "pods is forbidden");
    }
}
