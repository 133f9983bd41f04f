//! What a client is told when it cannot have what it asked for.

use axum::{
    Json,
    http::{StatusCode, header},
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
        reason: &'static str,
    },
    /// The bus does not answer as it should.
    #[error("the bus is not available, try again")]
    Bus(#[source] BusError),
}

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
    /// An error that the bus gave for this app.
    pub(crate) fn from_bus(error: BusError, app: &AppName) -> Self {
        match error {
            BusError::UnknownApp(_) => Self::UnknownApp,
            error => {
                tracing::warn!(%app, %error, "the bus failed a reader");
                Self::Bus(error)
            }
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownApp | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Query { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Bus(_) => StatusCode::SERVICE_UNAVAILABLE,
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
        (self.status(), content_type, Json(body)).into_response()
    }
}
