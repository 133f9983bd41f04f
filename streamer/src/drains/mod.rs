//! `/api/apps/{app}/drains`: where an app's lines are forwarded, as the Gigalixir client lists, adds and removes it; and how `one` of them is.

pub(crate) mod one;

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        ConnectInfo, Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, StatusCode},
};
use bus::AppName;
use bytes::Bytes;
use registry::{Action, Drain, DrainUrl, RegistryError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{
    access::Pass,
    connection::Peer,
    error::{ApiError, ErrorBody},
    hubs::Hubs,
};

/// Where an app's lines go.
#[derive(Serialize, ToSchema)]
pub(crate) struct Listed {
    /// What it is removed by.
    #[schema(minimum = 1, maximum = 2_147_483_647u32)]
    id: u32,
    /// What the receiver knows it by.
    token: String,
    /// Where it leads, as it was typed.
    url: String,
}

impl From<&Drain> for Listed {
    fn from(drain: &Drain) -> Self {
        Self {
            id: drain.id,
            token: drain.token.clone(),
            url: drain.url.clone(),
        }
    }
}

/// An answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct Answer<T> {
    pub(crate) data: T,
}

/// A drain to be added.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Added {
    /// Where it leads: `syslog+tls://host:port`, `https://…`.
    url: String,
}

/// A drain to be removed.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Removed {
    drain_id: Id,
}

/// As a number, or in quotes: the real client sends what was typed.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

impl Id {
    fn read(&self) -> Option<u32> {
        match self {
            Self::Number(id) => u32::try_from(*id).ok(),
            Self::Text(id) => id.trim().parse().ok(),
        }
    }
}

/// Lists an app's drains, with their passwords: who may see them may change them.
#[utoipa::path(
    get,
    path = "/api/apps/{app}/drains",
    tag = "drains",
    params(("app" = String, Path, description = "The app's name")),
    responses(
        (status = 200, description = "The drains", body = Answer<Vec<Listed>>),
        (status = 401, description = "No good key", body = ErrorBody),
        (status = 403, description = "A key that is not for this", body = ErrorBody),
        (status = 404, description = "No such app", body = ErrorBody),
        (status = 429, description = "Too many bad keys", body = ErrorBody),
        (status = 503, description = "Who decides does not answer", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(hubs): State<Arc<Hubs>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    app: Result<Path<String>, PathRejection>,
) -> Result<Json<Answer<Vec<Listed>>>, ApiError> {
    let (app, _pass) = enter(&hubs, &headers, peer, app).await?;
    let drains = Arc::clone(&hubs.access.registry()?.drains().borrow());
    let of_app = drains.values().filter(|drain| drain.app == app.as_str());
    Ok(Json(Answer {
        data: of_app.map(Listed::from).collect(),
    }))
}

/// Adds a drain. Its host is looked up when it is first connected to.
#[utoipa::path(
    post,
    path = "/api/apps/{app}/drains",
    tag = "drains",
    params(("app" = String, Path, description = "The app's name")),
    request_body = Added,
    responses(
        (status = 201, description = "Added", body = Answer<Listed>),
        (status = 401, description = "No good key", body = ErrorBody),
        (status = 403, description = "A key that is not for this", body = ErrorBody),
        (status = 404, description = "No such app", body = ErrorBody),
        (status = 413, description = "A body that is too large", body = ErrorBody),
        (status = 422, description = "No URL that a drain can have, or as many drains as there may be", body = ErrorBody),
        (status = 429, description = "Too many bad keys", body = ErrorBody),
        (status = 503, description = "It cannot be kept just now", body = ErrorBody),
    )
)]
pub(crate) async fn add(
    State(hubs): State<Arc<Hubs>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    app: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Answer<Listed>>), ApiError> {
    let (app, _pass) = enter(&hubs, &headers, peer, app).await?;
    let registry = hubs.access.registry()?;
    let Added { url } = read(body, "{\"url\": \"syslog+tls://logs.example.com:6514\"}")?;
    let url = DrainUrl::parse(&url, hubs.access.addresses());
    let url = url.map_err(|error| ApiError::query("url", error.to_string()))?;
    // A drain names its app: from now on it exists.
    let made = hubs.bus.create(&app).await;
    made.map_err(|error| ApiError::from_bus(error, &app))?;
    let added = registry.add_drain(app.as_str(), &url, hubs.access.max_drains()).await;
    let drain = added.map_err(refusal)?;
    // From now on, whether or not anybody reads it yet.
    if let Err(error) = hubs.bus.ensure_subscription(&app, &drain.subscription()).await {
        tracing::warn!(%app, drain = drain.id, %error, "a drain begins when it is first read");
    }
    tracing::info!(%app, drain = drain.id, "a drain was added");
    let listed = Answer {
        data: Listed::from(&drain),
    };
    Ok((StatusCode::CREATED, Json(listed)))
}

/// Removes a drain of this app.
#[utoipa::path(
    delete,
    path = "/api/apps/{app}/drains",
    tag = "drains",
    params(("app" = String, Path, description = "The app's name")),
    request_body = Removed,
    responses(
        (status = 200, description = "Removed", body = Answer<Option<Listed>>),
        (status = 401, description = "No good key", body = ErrorBody),
        (status = 403, description = "A key that is not for this", body = ErrorBody),
        (status = 404, description = "No such app, or no such drain of it", body = ErrorBody),
        (status = 413, description = "A body that is too large", body = ErrorBody),
        (status = 422, description = "A body that cannot be meant", body = ErrorBody),
        (status = 429, description = "Too many bad keys", body = ErrorBody),
        (status = 503, description = "It cannot be kept just now", body = ErrorBody),
    )
)]
pub(crate) async fn remove(
    State(hubs): State<Arc<Hubs>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    app: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answer<Option<Listed>>>, ApiError> {
    let (app, _pass) = enter(&hubs, &headers, peer, app).await?;
    let registry = hubs.access.registry()?;
    let Removed { drain_id } = read(body, "{\"drain_id\": \"1234\"}")?;
    let id = drain_id.read().ok_or(ApiError::UnknownDrain)?;
    let drain = registry.drains().borrow().get(&id).cloned();
    registry.remove_drain(app.as_str(), id).await.map_err(refusal)?;
    // Who reads it does the same, in its own time; nobody need.
    if let Some(drain) = drain
        && let Err(error) = hubs.bus.unsubscribe(&app, &drain.subscription()).await
    {
        tracing::warn!(%app, drain = id, %error, "a removed drain's subscription is left to who reads it");
    }
    tracing::info!(%app, drain = id, "a drain was removed");
    Ok(Json(Answer { data: None }))
}

/// Lets in who may manage this app's drains.
async fn enter(
    hubs: &Hubs,
    headers: &HeaderMap,
    peer: std::net::SocketAddr,
    app: Result<Path<String>, PathRejection>,
) -> Result<(AppName, Pass), ApiError> {
    hubs.access.enter(headers, peer.ip(), app, Action::ManageDrains).await
}

/// Reads a body, whatever the request calls it.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, example: &str) -> Result<T, ApiError> {
    let body = body.map_err(|refused| match refused.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge,
        _ => ApiError::query("body", "it did not come whole"),
    })?;
    // Never with words of the body: a password may stand there.
    serde_json::from_slice(&body).map_err(|_| ApiError::query("body", format!("give JSON such as {example}")))
}

/// What the client is told that the registry would not do.
fn refusal(error: RegistryError) -> ApiError {
    match error {
        RegistryError::UnknownDrain => ApiError::UnknownDrain,
        RegistryError::DuplicateDrain | RegistryError::TooManyDrains(_) => ApiError::query("url", error.to_string()),
        error => {
            tracing::error!(%error, "drains cannot be changed");
            ApiError::Registry
        }
    }
}
