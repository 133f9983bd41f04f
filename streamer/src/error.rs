//! What a client is told when it cannot have what it asked for.

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bus::{AppName, BusError};
use serde::Serialize;
use utoipa::ToSchema;

/// A refusal: a status, and one ASCII line of JSON that says why. The real client prints the line as it comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No such app, or none that the asker may know of: the same answer.
    #[error("app not found")]
    UnknownApp,
    /// No such path.
    #[error("not found: see /openapi.json for what there is")]
    UnknownPath,
    /// No such method on this path.
    #[error("this path does not take that method: see /openapi.json")]
    Method,
    /// A value in the query that cannot be meant.
    #[error("{name}: {reason}")]
    Query {
        /// The parameter.
        name: &'static str,
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
    /// No key, or none that is good.
    #[error(
        "no access: give your e-mail and your key with HTTP Basic (the Gigalixir client takes them from netrc), or the key as Bearer"
    )]
    Unauthorized,
    /// A key that is good, but not for this.
    #[error("your key may read this app's log, and not manage its drains")]
    Forbidden,
    /// A page of another site asks, through a browser.
    #[error("pages of other sites are not served")]
    OtherSite,
    /// A name that a page of another site may have made lead here.
    #[error(
        "asked for without keys by a name: use the address, or start the server with --allow-origin http://NAME:PORT, or ask for keys"
    )]
    OtherName,
    /// One bad key after the other.
    #[error("too many bad keys: wait a little, and look at the key in your netrc file")]
    Throttled {
        /// Seconds until it may be worth another try.
        retry_after: u64,
    },
    /// The app has no such drain.
    #[error("no such drain of this app")]
    UnknownDrain,
    /// Nothing was configured to keep drains in.
    #[error("this server keeps no drains: it was started without --registry")]
    NoRegistry,
    /// Nobody here tries drains.
    #[error("this server tests no drains")]
    NoProber,
    /// Drains cannot be kept just now.
    #[error("drains cannot be changed just now, try again; if it lasts, tell the platform's operator")]
    Registry,
    /// Nobody logs in here.
    #[error(
        "there are no passwords here: ask the platform's operator for a key (tributary keys add), and put it into your netrc file"
    )]
    NoLogin,
    /// Who decides knows nobody by name.
    #[error("the platform's API decides here who may read, and knows whose key this is")]
    NoAccount,
    /// Who decides does not answer.
    #[error("whether you may read this cannot be said just now, try again; if it lasts, tell the platform's operator")]
    Undecided,
    /// A body that is not read.
    #[error("the body is larger than 16 KiB")]
    BodyTooLarge,
    /// As many tails as there may be.
    #[error("{reason}")]
    TooMany {
        /// Of whom there are too many, and how many.
        reason: String,
        /// Seconds until it may be worth another try.
        retry_after: u64,
    },
    /// The streamer is about to end.
    #[error("this server is stopping, try again")]
    Stopping,
    /// The bus has no room for another reader: for the platform's operator to mend.
    #[error(
        "the bus has reached a quota and takes no new reader for now, try again; if it lasts, tell the platform's operator"
    )]
    Quota(#[source] BusError),
    /// The bus does not answer as it should.
    #[error("the bus is not available, try again")]
    Bus(#[source] BusError),
}

/// What a client can log in with (RFC 7617, RFC 6750).
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"tributary\", charset=\"UTF-8\", Bearer realm=\"tributary\"");

/// The body of an error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    errors: Errors,
}

/// What is wrong, by field; the empty name for what concerns none.
#[derive(Serialize, ToSchema)]
struct Errors {
    #[serde(rename = "")]
    #[schema(rename = "")]
    general: Vec<String>,
}

impl ApiError {
    /// A value that cannot be meant. What is wrong with it is told in ASCII: old clients trip over anything else.
    pub(crate) fn query(name: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        let plain = |c: char| c.is_ascii() && !c.is_control();
        let reason = if reason.chars().all(plain) {
            reason
        } else {
            reason.replace(|c| !plain(c), "?").into()
        };
        Self::Query { name, reason }
    }

    /// An error that the bus gave for this app.
    pub(crate) fn from_bus(error: BusError, app: &AppName) -> Self {
        match error {
            BusError::UnknownApp(_) => Self::UnknownApp,
            error => {
                tracing::warn!(%app, %error, "the bus failed a reader");
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
            | Self::NoRegistry
            | Self::NoLogin
            | Self::NoProber
            | Self::NoAccount => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::OtherSite | Self::OtherName => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Query { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany { .. } | Self::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Bus(_) | Self::Quota(_) | Self::Registry | Self::Stopping | Self::Undecided => {
                StatusCode::SERVICE_UNAVAILABLE
            }
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
        // With a charset: without one, clients fall back on Latin-1.
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
