//! Classification of the service's errors, by the required reaction.

use std::time::Duration;

use super::service::ServiceError;
use crate::BusError;

/// Google's reason for an exhausted rate quota.
const RATE_REASON: &str = "RATE_LIMIT_EXCEEDED";

/// Start of the reason if no credentials can be loaded.
pub(super) const NO_CREDENTIALS: &str = "no usable Google credentials found";

/// Why a call failed, by the required reaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The topic or subscription does not exist.
    NotFound,
    /// The topic or subscription already exists.
    Exists,
    /// A rate quota of the project is exhausted.
    Quota(String),
    /// The project has its maximum number of topics or subscriptions.
    Full(String),
    /// The credentials lack a permission.
    Denied(String),
    /// The request is invalid; a retry fails too.
    Refused(String),
    /// Any other error; retry.
    Unavailable(String),
}

impl Failure {
    /// The call timed out.
    pub(super) fn timeout(waited: Duration) -> Self {
        Self::Unavailable(format!("no answer within {} s", waited.as_secs()))
    }

    /// Converts to the error of the bus.
    pub(super) fn into_bus_error(self) -> BusError {
        match self {
            Self::Quota(reason) | Self::Full(reason) => BusError::Quota(reason),
            Self::Denied(reason) => BusError::Denied(reason),
            Self::Refused(reason) => BusError::Refused(reason),
            Self::Unavailable(reason) => BusError::Unavailable(reason),
            Self::NotFound => BusError::Unavailable("the topic or subscription was deleted".to_owned()),
            Self::Exists => BusError::Unavailable("the topic or subscription already exists".to_owned()),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::NotFound => Self::NotFound,
            ServiceError::AlreadyExists => Self::Exists,
            ServiceError::ResourceExhausted { reason, message } if is_rate(reason.as_deref(), &message) => {
                Self::Quota(message)
            }
            ServiceError::ResourceExhausted { message, .. } => Self::Full(message),
            ServiceError::NoCredentials(text) => Self::Denied(format!(
                "{NO_CREDENTIALS} ({text}); set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or run \
                 `gcloud auth application-default login`"
            )),
            ServiceError::PermissionDenied(text) => Self::Denied(text),
            ServiceError::Invalid(text) => Self::Refused(text),
            ServiceError::Unavailable(text) => Self::Unavailable(text),
        }
    }
}

/// Returns whether an exhausted quota is a rate, which is available again after a minute.
///
/// *Source*: Google's `ErrorInfo` of such an error has the reason `RATE_LIMIT_EXCEEDED`; without
/// it, the message names the limit: "… and limit 'Administrator operations per minute'".
fn is_rate(reason: Option<&str>, message: &str) -> bool {
    reason == Some(RATE_REASON)
        || ["per minute", "per second", "Insufficient tokens"]
            .iter()
            .any(|word| message.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_rate_is_a_quota_and_an_exhausted_number_is_full() {
        let exhausted = |reason: Option<&str>, message: &str| {
            Failure::from(ServiceError::ResourceExhausted {
                reason: reason.map(str::to_owned),
                message: message.to_owned(),
            })
        };
        for (reason, message) in [
            (Some(RATE_REASON), "exhausted"),
            (None, "limit 'Administrator operations per minute'"),
            (None, "Insufficient tokens for quota"),
        ] {
            assert_eq!(exhausted(reason, message), Failure::Quota(message.to_owned()));
        }
        let full = "Your project has exceeded a limit: (type=\"topics-per-project\")";
        assert_eq!(exhausted(Some("OTHER"), full), Failure::Full(full.to_owned()));
    }
}
