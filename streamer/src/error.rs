//! Error responses of the HTTP API.

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bus::{AppName, BusError};
use serde::Serialize;
use utoipa::ToSchema;

/// An error response: a status and one line of ASCII JSON with a message. The Gigalixir client
/// prints that line unchanged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The app does not exist, or the client may not read it; the response is the same.
    #[error("app not found: check the name, and that your API key or token is for this app")]
    UnknownApp,
    #[error("path not found: see /openapi.json for the API")]
    UnknownPath,
    #[error("method not allowed on this path: see /openapi.json for the API")]
    MethodNotAllowed,
    /// A parameter or body field has an invalid value.
    #[error("{name}: {reason}")]
    InvalidParameter {
        name: &'static str,
        /// What is wrong with the value, and what to do.
        reason: Cow<'static, str>,
    },
    /// The request is valid, but its resource cannot be created.
    #[error("{0}")]
    Rejected(String),
    /// The request has no valid API key or token.
    #[error(
        "authentication required: send your API key or token as a Bearer token, or your e-mail and the key with HTTP Basic (the Gigalixir client reads them from the netrc file)"
    )]
    Unauthorized,
    /// The API key is valid, but its role does not allow the action.
    #[error(
        "permission denied: your API key or token may read the logs of this app but not manage its drains; use an owner's key"
    )]
    Forbidden,
    /// A browser sent the request for a page of another site.
    #[error(
        "origin not allowed: requests from pages of other sites are refused; start the server with --allow-origin to allow one"
    )]
    OriginNotAllowed,
    /// Without authentication, the `Host` header must not be a name that another site could have
    /// pointed at this server.
    #[error(
        "host not allowed: without authentication, use the server's IP address or localhost, or start the server with --allow-origin http://NAME:PORT or with --auth"
    )]
    HostNotAllowed,
    /// Too many requests with invalid keys.
    #[error("too many requests with invalid API keys: wait {retry_after} s, and check the key in your netrc file")]
    Throttled {
        /// Seconds for `Retry-After`.
        retry_after: u64,
    },
    #[error("no such drain in this app: list its drains with GET /api/apps/APP/drains")]
    UnknownDrain,
    /// No registry is configured.
    #[error("drains are not available: the server was started without --registry")]
    DrainsDisabled,
    /// No prober is configured.
    #[error("drain tests are not available on this server")]
    DrainTestsDisabled,
    #[error(
        "drains are temporarily unavailable: the registry cannot be read or written; try again, and contact the platform's operator if the error persists"
    )]
    RegistryUnavailable,
    /// Logins with a password are not supported.
    #[error(
        "password login is not supported: ask the platform's operator for an API key (tributary keys add), and store it in your netrc file"
    )]
    PasswordLogin,
    /// The authorizer does not report user names.
    #[error("account details are not available: this server uses the platform's API for authorization")]
    NoAccounts,
    #[error(
        "authorization is temporarily unavailable: the authorizer does not respond; try again, and contact the platform's operator if the error persists"
    )]
    AuthorizerUnavailable,
    #[error("request body too large: send at most 16 KiB")]
    BodyTooLarge,
    /// A limit is reached.
    #[error("{reason}")]
    TooMany {
        /// Which limit, and its value.
        reason: String,
        /// Seconds for `Retry-After`.
        retry_after: u64,
    },
    #[error("the server is shutting down: try again")]
    ShuttingDown,
    /// The bus refuses another subscription.
    #[error(
        "the bus has reached a quota and accepts no more readers: try again later, and contact the platform's operator if the error persists"
    )]
    Quota(#[source] BusError),
    #[error("the bus is unavailable: try again")]
    Bus(#[source] BusError),
}

/// Authentication schemes (RFC 7617, RFC 6750).
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"tributary\", charset=\"UTF-8\", Bearer realm=\"tributary\"");

/// The body of an error response.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    errors: Errors,
}

/// Messages by field. The only field is the empty name.
#[derive(Serialize, ToSchema)]
struct Errors {
    #[serde(rename = "")]
    #[schema(rename = "", example = json!(["app not found"]))]
    general: Vec<String>,
}

impl ApiError {
    /// Creates an error about a parameter. Characters outside printable ASCII are replaced, because
    /// old clients cannot print them.
    pub(crate) fn invalid(name: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        let printable = |c: char| c.is_ascii() && !c.is_control();
        let reason = if reason.chars().all(printable) {
            reason
        } else {
            reason.replace(|c| !printable(c), "?").into()
        };
        Self::InvalidParameter { name, reason }
    }

    /// Converts an error that the bus returned for this app.
    pub(crate) fn from_bus(error: BusError, app: &AppName) -> Self {
        match error {
            BusError::UnknownApp(_) => Self::UnknownApp,
            error => {
                tracing::warn!(%app, %error, "bus request failed");
                match error {
                    BusError::Quota(_) => Self::Quota(error),
                    error => Self::Bus(error),
                }
            }
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownApp
            | Self::UnknownPath
            | Self::UnknownDrain
            | Self::DrainsDisabled
            | Self::PasswordLogin
            | Self::DrainTestsDisabled
            | Self::NoAccounts => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::OriginNotAllowed | Self::HostNotAllowed => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::InvalidParameter { .. } | Self::Rejected(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany { .. } | Self::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Bus(_)
            | Self::Quota(_)
            | Self::RegistryUnavailable
            | Self::ShuttingDown
            | Self::AuthorizerUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            errors: Errors {
                general: vec![self.to_string()],
            },
        };
        // Without a charset, some clients decode the body as Latin-1.
        let content_type = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
        let mut response = (self.status(), content_type, Json(body)).into_response();
        if matches!(self, Self::Unauthorized) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Self::TooMany { retry_after, .. } | Self::Throttled { retry_after } = self {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        response
    }
}
