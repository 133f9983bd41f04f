//! Errors of the client library as errors of the service.

use google_cloud_gax::error::rpc::{Code, StatusDetails};
use google_cloud_pubsub::Error;

use super::super::{service::ServiceError, settings::EMULATOR_VARIABLE};

impl From<&Error> for ServiceError {
    fn from(error: &Error) -> Self {
        let text = text(error);
        if error.is_authentication() {
            return Self::NoCredentials(text);
        }
        let Some(code) = code(error) else {
            return no_connection(&text);
        };
        match code {
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::ResourceExhausted => Self::ResourceExhausted {
                reason: reason(error),
                message: text,
            },
            Code::PermissionDenied | Code::Unauthenticated => Self::PermissionDenied(text),
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::Invalid(text),
            Code::Unavailable if is_connection_error(error) => no_connection(&text),
            _ => Self::Unavailable(text),
        }
    }
}

impl From<Error> for ServiceError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

fn no_connection(text: &str) -> ServiceError {
    ServiceError::Unavailable(format!("no connection to {}: {text}", address()))
}

/// Returns the reason in Google's `ErrorInfo`.
fn reason(error: &Error) -> Option<String> {
    let details = &error.status()?.details;
    details.iter().find_map(|detail| match detail {
        StatusDetails::ErrorInfo(info) => Some(info.reason.clone()),
        _ => None,
    })
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
