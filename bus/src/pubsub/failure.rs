//! What the service's errors mean to us.

use std::time::Duration;

use google_cloud_gax::error::rpc::{Code, StatusDetails};
use google_cloud_pubsub::Error;

use crate::BusError;

/// Google's word for a rate that is used up.
const RATE_REASON: &str = "RATE_LIMIT_EXCEEDED";

/// Why a call failed, as far as something is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no such topic or subscription.
    NotFound,
    /// It exists already.
    Exists,
    /// A rate of the project's is used up for now, in the service's words.
    Quota(String),
    /// The project has as many topics or subscriptions as it may, in the service's words.
    Full(String),
    /// The credentials do not allow it.
    Denied(String),
    /// The request is wrong, and will be the next time.
    Refused(String),
    /// Anything else: to be tried again.
    Away(String),
}

impl Failure {
    /// No answer within this.
    pub(super) fn silent(waited: Duration) -> Self {
        Self::Away(format!("no answer within {} s", waited.as_secs()))
    }

    /// As the bus says it.
    pub(super) fn into_bus_error(self) -> BusError {
        match self {
            Self::Quota(reason) | Self::Full(reason) => BusError::Quota(reason),
            Self::Denied(reason) => BusError::Denied(reason),
            Self::Refused(reason) => BusError::Refused(reason),
            Self::Away(reason) => BusError::Unavailable(reason),
            Self::NotFound => BusError::Unavailable("what was there is gone".to_owned()),
            Self::Exists => BusError::Unavailable("it exists already".to_owned()),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let said = words(error);
        if error.is_authentication() {
            return Self::Denied(said);
        }
        let Some(code) = code(error) else {
            return Self::Away(said);
        };
        match code {
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Exists,
            Code::ResourceExhausted if is_rate(error, &said) => Self::Quota(said),
            Code::ResourceExhausted => Self::Full(said),
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(said),
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::Refused(said),
            _ => Self::Away(said),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

/// Whether a used-up quota is one of calls a minute, which is there again with the next.
///
/// *Source*: Google's `ErrorInfo` of such an answer has the reason `RATE_LIMIT_EXCEEDED`; where there is none, its text tells ("… and limit 'Administrator operations per minute'").
fn is_rate(error: &Error, said: &str) -> bool {
    let details = error.status().map(|status| &status.details[..]).unwrap_or_default();
    let told = details
        .iter()
        .any(|detail| matches!(detail, StatusDetails::ErrorInfo(info) if info.reason == RATE_REASON));
    told || ["per minute", "per second", "Insufficient tokens"]
        .iter()
        .any(|word| said.contains(word))
}

/// The status's code; of an answer without one, what HTTP says.
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

/// The service's own words, or the innermost cause's: those around it say the same again. One line.
fn words(error: &Error) -> String {
    let said = match error.status() {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        _ => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        }
    };
    said.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
}
