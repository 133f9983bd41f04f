//! Lists, adds and removes drains, as the Gigalixir client does.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
};
use bytes::Bytes;
use registry::DrainUrl;
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::ToSchema;

use super::model::{Data, DrainSummary, registry_error};
use crate::{
    error::ApiError,
    http::{
        extract::{AccessErrors, AppParam, Authorized, BodyErrors, ManageDrains},
        state::AppState,
    },
};

/// A drain to add.
#[derive(Deserialize, ToSchema)]
pub(crate) struct AddDrain {
    /// Receiver: `syslog+tls://HOST:PORT`, `syslog://HOST:PORT` or `https://HOST/PATH`. At most 5
    /// drains per app, unless the server is configured otherwise.
    #[schema(example = "syslog+tls://logs.example.com:6514")]
    url: String,
}

/// A drain to remove.
#[derive(Deserialize, ToSchema)]
pub(crate) struct RemoveDrain {
    drain_id: DrainId,
}

/// The ID of a drain, as a number or a string. The Gigalixir client sends a string.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum DrainId {
    Number(u64),
    Text(String),
}

impl DrainId {
    fn parse(&self) -> Option<u32> {
        match self {
            Self::Number(id) => u32::try_from(*id).ok(),
            Self::Text(id) => id.trim().parse().ok(),
        }
    }
}

/// List an app's drains
///
/// The URLs include their passwords.
#[utoipa::path(
    get,
    path = "/api/apps/{app}/drains",
    tag = "drains",
    params(AppParam),
    responses((status = 200, description = "The drains", body = Data<Vec<DrainSummary>>), AccessErrors)
)]
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
    request: Authorized<ManageDrains>,
) -> Result<Json<Data<Vec<DrainSummary>>>, ApiError> {
    let drains = Arc::clone(&state.drains.registry()?.drains().borrow());
    let of_app = drains.values().filter(|drain| drain.app == request.app.as_str());
    Ok(Json(Data {
        data: of_app.map(DrainSummary::from).collect(),
    }))
}

/// Add a drain
///
/// Lines published from now on are forwarded. The host name is resolved when the drain first
/// connects.
#[utoipa::path(
    post,
    path = "/api/apps/{app}/drains",
    tag = "drains",
    params(AppParam),
    request_body = AddDrain,
    responses((status = 201, description = "The drain", body = Data<DrainSummary>), AccessErrors, BodyErrors)
)]
pub(crate) async fn add(
    State(state): State<Arc<AppState>>,
    request: Authorized<ManageDrains>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Data<DrainSummary>>), ApiError> {
    let app = request.app;
    let registry = state.drains.registry()?;
    let AddDrain { url } = parse(body, "{\"url\": \"syslog+tls://logs.example.com:6514\"}")?;
    let url = DrainUrl::parse(&url, state.drains.addresses());
    let url = url.map_err(|error| ApiError::invalid("url", error.to_string()))?;
    // The drain implies that the app exists, so its topic is created now.
    let created = state.hubs.bus.create(&app).await;
    created.map_err(|error| ApiError::from_bus(error, &app))?;
    let added = registry.add_drain(app.as_str(), &url, state.drains.max_drains()).await;
    let drain = added.map_err(registry_error)?;
    // Retains lines from now on, even before a sink reads the drain.
    let subscribed = state.hubs.bus.ensure_subscription(&app, &drain.subscription()).await;
    if let Err(error) = subscribed {
        tracing::warn!(%app, drain = drain.id, %error, "cannot create drain subscription, drain starts when a sink reads it");
    }
    tracing::info!(%app, drain = drain.id, "drain added");
    let data = DrainSummary::from(&drain);
    Ok((StatusCode::CREATED, Json(Data { data })))
}

/// Remove a drain
#[utoipa::path(
    delete,
    path = "/api/apps/{app}/drains",
    tag = "drains",
    params(AppParam),
    request_body = RemoveDrain,
    responses((status = 200, description = "Removed", body = Data<Option<DrainSummary>>), AccessErrors, BodyErrors)
)]
pub(crate) async fn remove(
    State(state): State<Arc<AppState>>,
    request: Authorized<ManageDrains>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Data<Option<DrainSummary>>>, ApiError> {
    let app = request.app;
    let registry = state.drains.registry()?;
    let RemoveDrain { drain_id } = parse(body, "{\"drain_id\": \"1234\"}")?;
    let id = drain_id.parse().ok_or(ApiError::UnknownDrain)?;
    let drain = registry.drains().borrow().get(&id).cloned();
    registry.remove_drain(app.as_str(), id).await.map_err(registry_error)?;
    // The sinks remove the subscription too, but only while one of them reads the drain.
    if let Some(drain) = drain
        && let Err(error) = state.hubs.bus.unsubscribe(&app, &drain.subscription()).await
    {
        tracing::warn!(%app, drain = id, %error, "cannot remove drain subscription, leaving it to the sinks");
    }
    tracing::info!(%app, drain = id, "drain removed");
    Ok(Json(Data { data: None }))
}

/// Parses a JSON body, whatever its `Content-Type`.
fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, example: &str) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge,
        _ => ApiError::invalid("body", "incomplete; send it again"),
    })?;
    // The message must not quote the body, which can contain a password.
    serde_json::from_slice(&body).map_err(|_| ApiError::invalid("body", format!("invalid JSON; send {example}")))
}
