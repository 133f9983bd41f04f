//! `/api/apps/{app}/drains/{id}`: how a drain is, and whether it can be sent to.

use std::sync::Arc;

use axum::{
    Json,
    extract::{ConnectInfo, Path, State, rejection::PathRejection},
    http::HeaderMap,
};
use registry::{Drain, DrainReport, ProbeStep};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Listed, enter};
use crate::{
    connection::Peer,
    error::{ApiError, ErrorBody},
    hubs::Hubs,
};

/// How a drain is. Counts are since its reader began; of a drain that nobody has read yet they are 0.
#[derive(Serialize, ToSchema)]
pub(crate) struct Shown {
    #[serde(flatten)]
    drain: Listed,
    /// `connecting`: it is dialled, or nothing was to be sent yet; `connected`; `failing`: it is tried again.
    state: &'static str,
    /// Seconds since 1970.
    connected_since: Option<u64>,
    /// Lines that were read and are not sent yet. What the bus still keeps is not in it.
    lag_lines: u64,
    /// How old the oldest of them is.
    lag_seconds: u64,
    /// Lines that the receiver has for sure.
    delivered: u64,
    /// Lines that were sent again.
    resent: u64,
    /// Lines that it will never get.
    dropped: u64,
    /// What went wrong last.
    last_error: Option<String>,
    /// Seconds since 1970.
    last_error_at: Option<u64>,
}

/// What came of a test.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tested {
    /// Up to the first that failed.
    steps: Vec<Step>,
    /// What was sent. Bytes that are not UTF-8 are replaced.
    sent: String,
}

/// A step of a test.
#[derive(Serialize, ToSchema)]
struct Step {
    /// `resolve`, `connect`, `tls`, `send`.
    step: &'static str,
    ok: bool,
    /// How long it took.
    millis: u64,
    /// What came of it.
    detail: String,
}

impl From<ProbeStep> for Step {
    fn from(
        ProbeStep {
            step,
            ok,
            millis,
            detail,
        }: ProbeStep,
    ) -> Self {
        Self {
            step,
            ok,
            millis,
            detail,
        }
    }
}

/// Shows how a drain is, as its reader told last: within ten seconds, within one where it begins to fail.
#[utoipa::path(
    get,
    path = "/api/apps/{app}/drains/{id}",
    tag = "drains",
    params(("app" = String, Path, description = "The app's name"), ("id" = String, Path, description = "The drain's id")),
    responses(
        (status = 200, description = "How it is", body = Answer<Shown>),
        (status = 401, description = "No good key", body = ErrorBody),
        (status = 403, description = "A key that is not for this", body = ErrorBody),
        (status = 404, description = "No such app, or no such drain of it", body = ErrorBody),
        (status = 429, description = "Too many bad keys", body = ErrorBody),
        (status = 503, description = "It cannot be said just now", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(hubs): State<Arc<Hubs>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Answer<Shown>>, ApiError> {
    let drain = find(&hubs, &headers, peer, path).await?;
    let report = hubs.access.registry()?.drain_report(drain.id).await;
    let report = report.map_err(super::refusal)?;
    Ok(Json(Answer {
        data: shown(&drain, report.unwrap_or_default()),
    }))
}

/// Tries a drain: looks its host up, connects, does TLS, and sends one line. Never longer than a minute.
#[utoipa::path(
    post,
    path = "/api/apps/{app}/drains/{id}/test",
    tag = "drains",
    params(("app" = String, Path, description = "The app's name"), ("id" = String, Path, description = "The drain's id")),
    responses(
        (status = 200, description = "What came of each step", body = Answer<Tested>),
        (status = 401, description = "No good key", body = ErrorBody),
        (status = 403, description = "A key that is not for this", body = ErrorBody),
        (status = 404, description = "No such app, no such drain of it, or a server that tries none", body = ErrorBody),
        (status = 429, description = "Too many bad keys, or as many tests at once as there may be", body = ErrorBody),
        (status = 503, description = "It cannot be tried just now", body = ErrorBody),
    )
)]
pub(crate) async fn test(
    State(hubs): State<Arc<Hubs>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Answer<Tested>>, ApiError> {
    let drain = find(&hubs, &headers, peer, path).await?;
    let tested = hubs.access.probe(&drain).await?;
    Ok(Json(Answer {
        data: Tested {
            steps: tested.steps.into_iter().map(Step::from).collect(),
            sent: String::from_utf8_lossy(&tested.sent).into_owned(),
        },
    }))
}

/// The drain that a path names, for who may manage its app's.
async fn find(
    hubs: &Hubs,
    headers: &HeaderMap,
    peer: std::net::SocketAddr,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Drain, ApiError> {
    let (app, id) = match path {
        Ok(Path((app, id))) => (Ok(Path(app)), id),
        Err(rejection) => (Err(rejection), String::new()),
    };
    let (app, _pass) = enter(hubs, headers, peer, app).await?;
    let drains = Arc::clone(&hubs.access.registry()?.drains().borrow());
    let drain = id
        .parse()
        .ok()
        .and_then(|id: u32| drains.get(&id))
        .filter(|drain| drain.app == app.as_str());
    drain.cloned().ok_or(ApiError::UnknownDrain)
}

fn shown(drain: &Drain, report: DrainReport) -> Shown {
    Shown {
        drain: Listed::from(drain),
        state: report.state.as_str(),
        connected_since: report.connected_since,
        lag_lines: report.lag_lines,
        lag_seconds: report.lag_seconds,
        delivered: report.delivered,
        resent: report.resent,
        dropped: report.dropped,
        last_error: report.last_error,
        last_error_at: report.last_error_at,
    }
}
