//! Classification of the service's errors.

use std::time::Duration;

use google_cloud_gax::error::rpc::{Code, StatusDetails};
use google_cloud_pubsub::Error;

use super::settings::EMULATOR_VARIABLE;
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

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let text = text(error);
        if error.is_authentication() {
            return Self::Denied(format!(
                "{NO_CREDENTIALS} ({text}); set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or run \
                 `gcloud auth application-default login`"
            ));
        }
        let Some(code) = code(error) else {
            return Self::Unavailable(format!("no connection to {}: {text}", address()));
        };
        match code {
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Exists,
            Code::ResourceExhausted if is_rate(error, &text) => Self::Quota(text),
            Code::ResourceExhausted => Self::Full(text),
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(text),
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::Refused(text),
            Code::Unavailable if is_connection_error(error) => {
                Self::Unavailable(format!("no connection to {}: {text}", address()))
            }
            _ => Self::Unavailable(text),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

/// Returns whether an exhausted quota is a rate, which is available again after a minute.
///
/// *Source*: Google's `ErrorInfo` of such an error has the reason `RATE_LIMIT_EXCEEDED`; without
/// it, the message names the limit: "… and limit 'Administrator operations per minute'".
fn is_rate(error: &Error, text: &str) -> bool {
    let details = error.status().map(|status| &status.details[..]).unwrap_or_default();
    let has_reason = details
        .iter()
        .any(|detail| matches!(detail, StatusDetails::ErrorInfo(info) if info.reason == RATE_REASON));
    has_reason
        || ["per minute", "per second", "Insufficient tokens"]
            .iter()
            .any(|word| text.contains(word))
}

/// Returns the status code, or the one that corresponds to the HTTP status.
fn code(error: &Error) -> Option<Code> {
    if let Some(status) = error.status() {
        return Some(status.code);
    }
    Some(match error.http_status_code()? {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::AlreadyExists,
        429 => Code::ResourceExhausted,
        _ => return None,
    })
}

/// Returns the address that the clients connect to, for messages.
fn address() -> String {
    match std::env::var(EMULATOR_VARIABLE) {
        Ok(host) if !host.is_empty() => format!("{EMULATOR_VARIABLE}={host}"),
        _ => "pubsub.googleapis.com".to_owned(),
    }
}

/// Returns whether an I/O error caused the error.
fn is_connection_error(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Returns the service's message, or that of the innermost cause, as one line.
fn text(error: &Error) -> String {
    let text = match error.status() {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        _ => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        }
    };
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
}
