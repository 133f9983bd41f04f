//! What the drain handlers share.

use registry::{Drain, RegistryError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// A response.
#[derive(Serialize, ToSchema)]
pub(crate) struct Data<T> {
    pub(super) data: T,
}

/// A drain.
#[derive(Serialize, ToSchema)]
pub(crate) struct DrainSummary {
    /// ID with which you read, test and remove the drain.
    #[schema(minimum = 1, maximum = 2_147_483_647u32, example = 1234)]
    id: u32,
    /// Token that identifies the drain to its receiver.
    #[schema(example = "d.3f1c9d52-8b0e-4c0c-8d53-0d6f2b3b0f3a")]
    token: String,
    /// URL as it was given, including its password.
    #[schema(example = "syslog+tls://logs.example.com:6514")]
    url: String,
}

impl From<&Drain> for DrainSummary {
    fn from(drain: &Drain) -> Self {
        Self {
            id: drain.id,
            token: drain.token.clone(),
            url: drain.url.clone(),
        }
    }
}

/// Converts an error of the registry.
pub(super) fn registry_error(error: RegistryError) -> ApiError {
    match error {
        RegistryError::UnknownDrain => ApiError::UnknownDrain,
        RegistryError::DuplicateDrain => ApiError::invalid("url", error.to_string()),
        RegistryError::TooManyDrains(_) => ApiError::Rejected(error.to_string()),
        error => {
            tracing::error!(%error, "registry request failed");
            ApiError::RegistryUnavailable
        }
    }
}
