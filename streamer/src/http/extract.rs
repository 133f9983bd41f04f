//! Extractors and OpenAPI rows that several handlers share.

use std::{convert::Infallible, marker::PhantomData, net::IpAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Path},
    http::{HeaderMap, request::Parts},
    response::{IntoResponse, Response},
};
use bus::AppName;
use registry::Action;
use system::collections::HashMap;
use utoipa::{IntoParams, IntoResponses};

use crate::{
    error::ErrorBody,
    http::{connection::Peer, state::AppState},
};

/// The client of a request.
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) headers: HeaderMap,
}

impl FromRequestParts<Arc<AppState>> for Client {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Response> {
        let peer = ConnectInfo::<Peer>::from_request_parts(parts, state).await;
        let ConnectInfo(Peer(peer)) = peer.map_err(IntoResponse::into_response)?;
        Ok(Self {
            address: peer.ip(),
            headers: parts.headers.clone(),
        })
    }
}

/// The parameters of a path such as `/api/apps/{app}/drains/{id}`. `None` for a missing or invalid
/// one.
pub(crate) struct AppPath {
    pub(crate) app: Option<AppName>,
    pub(crate) drain_id: Option<u32>,
}

impl FromRequestParts<Arc<AppState>> for AppPath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Infallible> {
        // Fails if a parameter is not UTF-8.
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let params = path.map(|Path(params)| params).unwrap_or_default();
        Ok(Self {
            app: params.get("app").and_then(|app| app.parse().ok()),
            drain_id: params.get("id").and_then(|id| id.parse().ok()),
        })
    }
}

/// A permission that a handler requires.
pub(crate) trait Permission {
    const ACTION: Action;
}

/// Permission to read an app's log.
pub(crate) struct ReadLogs;

/// Permission to manage an app's drains.
pub(crate) struct ManageDrains;

impl Permission for ReadLogs {
    const ACTION: Action = Action::Read;
}

impl Permission for ManageDrains {
    const ACTION: Action = Action::ManageDrains;
}

/// The app of a request that has this permission. The request is authorized before its body is
/// read.
pub(crate) struct Authorized<P> {
    pub(crate) app: AppName,
    pub(crate) drain_id: Option<u32>,
    pub(crate) client: Client,
    _permission: PhantomData<P>,
}

impl<P: Permission> FromRequestParts<Arc<AppState>> for Authorized<P> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Response> {
        let client = Client::from_request_parts(parts, state).await?;
        let Ok(path) = AppPath::from_request_parts(parts, state).await;
        let authorized = state
            .access
            .authorize(&client.headers, client.address, path.app, P::ACTION)
            .await;
        let (app, _grant) = authorized.map_err(IntoResponse::into_response)?;
        Ok(Self {
            app,
            drain_id: path.drain_id,
            client,
            _permission: PhantomData,
        })
    }
}

/// OpenAPI: the app in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the API")]
pub(crate) struct AppParam {
    /// Name of the app.
    #[param(example = "shop")]
    app: String,
}

/// OpenAPI: the app and drain in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the API")]
pub(crate) struct DrainParams {
    /// Name of the app.
    #[param(example = "shop")]
    app: String,
    /// ID of the drain.
    #[param(minimum = 1, maximum = 2_147_483_647u32, example = 1234)]
    id: u32,
}

/// OpenAPI: errors of every request that needs authorization.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes the API")]
pub(crate) enum AccessErrors {
    /// No valid API key or token. `WWW-Authenticate` names the schemes.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A page of another site sent the request, or the role of the API key does not permit it.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The app or drain does not exist, or the API key is not for the app.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// A limit is reached, or too many invalid API keys were sent. `Retry-After` gives the delay in
    /// seconds.
    #[response(status = 429)]
    TooManyRequests(ErrorBody),
    /// The bus, the registry or the authorizer is unavailable, or the server is shutting down.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// OpenAPI: errors of a request with a JSON body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes the API")]
pub(crate) enum BodyErrors {
    /// The body is larger than 16 KiB.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body or a value in it is invalid, or the app has the maximum number of drains.
    #[response(status = 422)]
    Invalid(ErrorBody),
}
