//! Whose key it is; and that there are no passwords here.

use std::sync::Arc;

use axum::{
    Json,
    extract::{ConnectInfo, State},
    http::HeaderMap,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    access::Who,
    connection::Peer,
    error::{ApiError, ErrorBody},
    hubs::Hubs,
};

/// An answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct Account {
    data: AccountData,
}

/// Whose key a request has.
#[derive(Serialize, ToSchema)]
struct AccountData {
    /// Whose: an e-mail, or what a cluster's API calls who has the token. None where nobody is asked.
    email: Option<String>,
    /// What the key is listed and revoked by.
    key_id: Option<String>,
    /// When it ends, seconds since 1970.
    expires: Option<u64>,
    /// What it is for.
    apps: Vec<AccountApp>,
}

/// An app that a key is for.
#[derive(Serialize, ToSchema)]
struct AccountApp {
    name: String,
    /// `owner`: reads the log and manages drains; `collaborator`: reads the log.
    role: &'static str,
}

/// Says whose key it is, and what it is for: what `gigalixir account` shows.
#[utoipa::path(
    get,
    path = "/api/users",
    tag = "account",
    responses(
        (status = 200, description = "Whose key it is", body = Account),
        (status = 401, description = "No good key", body = ErrorBody),
        (status = 404, description = "The platform's API decides, and knows", body = ErrorBody),
        (status = 429, description = "Too many bad keys", body = ErrorBody),
        (status = 503, description = "Who decides does not answer", body = ErrorBody),
    )
)]
pub(crate) async fn account(
    State(hubs): State<Arc<Hubs>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Result<Json<Account>, ApiError> {
    let who = hubs.access.who(&headers, peer.ip()).await?;
    let info = match &who {
        Who::Holder(holder) => Some(holder.info()),
        Who::Anybody | Who::Named(_) => None,
    };
    let email = match &who {
        Who::Named(name) => Some(name.clone()),
        _ => info.map(|info| info.email.clone()),
    };
    let grants = info.into_iter().flat_map(|info| &info.grants);
    let apps = grants.map(|grant| AccountApp {
        name: grant.app.clone(),
        role: grant.role.as_str(),
    });
    Ok(Json(Account {
        data: AccountData {
            email,
            key_id: info.map(|info| info.id.clone()),
            expires: info.map(|info| info.expires),
            apps: apps.collect(),
        },
    }))
}

/// Refuses `gigalixir login`: there are keys here, and no passwords.
#[utoipa::path(
    get,
    path = "/api/login",
    tag = "account",
    responses((status = 404, description = "Always: there are no passwords here", body = ErrorBody))
)]
pub(crate) async fn login() -> ApiError {
    ApiError::NoLogin
}
