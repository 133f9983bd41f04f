//! `GET /api/users`: the holder of an API key; and the response to password logins.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    access::Identity,
    error::{ApiError, ErrorBody},
    http::{
        extract::{AccessErrors, Client},
        state::AppState,
    },
};

/// The response.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccountResponse {
    data: Account,
}

/// The holder of a request's API key.
#[derive(Serialize, ToSchema)]
struct Account {
    /// E-mail of the holder, or the user name in the Kubernetes cluster. Null if authentication is
    /// disabled.
    #[schema(example = "me@example.com")]
    email: Option<String>,
    /// ID by which the key is listed and revoked.
    key_id: Option<String>,
    /// When the key expires, in Unix seconds.
    expires: Option<u64>,
    /// Apps that the key is for.
    apps: Vec<AccountApp>,
}

/// An app that a key is for.
#[derive(Serialize, ToSchema)]
struct AccountApp {
    #[schema(example = "shop")]
    name: String,
    /// `owner` reads the log and manages drains; `collaborator` reads the log.
    #[schema(example = "owner")]
    role: &'static str,
}

/// Show the account of an API key
///
/// The Gigalixir client shows the result as `gigalixir account`. Returns 404 if the platform's API
/// authorizes requests.
#[utoipa::path(
    get,
    path = "/api/users",
    tag = "account",
    responses((status = 200, description = "The account", body = AccountResponse), AccessErrors)
)]
pub(crate) async fn account(
    State(state): State<Arc<AppState>>,
    client: Client,
) -> Result<Json<AccountResponse>, ApiError> {
    let identity = state.access.identify(&client.headers, client.address).await?;
    let info = match &identity {
        Identity::KeyHolder(holder) => Some(holder.info()),
        Identity::Anonymous | Identity::User(_) => None,
    };
    let email = match &identity {
        Identity::User(name) => Some(name.clone()),
        _ => info.map(|info| info.email.clone()),
    };
    let grants = info.into_iter().flat_map(|info| &info.grants);
    let apps = grants.map(|grant| AccountApp {
        name: grant.app.clone(),
        role: grant.role.as_str(),
    });
    Ok(Json(AccountResponse {
        data: Account {
            email,
            key_id: info.map(|info| info.id.clone()),
            expires: info.map(|info| info.expires),
            apps: apps.collect(),
        },
    }))
}

/// Log in with a password (not supported)
///
/// Always returns 404 with an explanation, which `gigalixir login` prints.
#[utoipa::path(
    get,
    path = "/api/login",
    tag = "account",
    responses((status = 404, description = "Password login is not supported", body = ErrorBody))
)]
pub(crate) async fn login() -> ApiError {
    ApiError::PasswordLogin
}
