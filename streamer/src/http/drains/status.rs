//! Shows and tests a drain.

use std::sync::Arc;

use axum::{Json, extract::State};
use registry::{Drain, DrainReport, ProbeStep};
use serde::Serialize;
use utoipa::ToSchema;

use super::model::{Data, DrainSummary, registry_error};
use crate::{
    error::ApiError,
    http::{
        extract::{AccessErrors, Authorized, DrainParams, ManageDrains},
        state::AppState,
    },
};

/// The status of a drain. Counts start when a sink starts to read the drain; until then they are 0.
#[derive(Serialize, ToSchema)]
pub(crate) struct DrainStatus {
    #[serde(flatten)]
    drain: DrainSummary,
    /// `connecting` until the first line is sent, `connected`, or `failing` while it reconnects.
    #[schema(example = "connected")]
    state: &'static str,
    /// Unix seconds.
    connected_since: Option<u64>,
    /// Lines read from the bus but not sent yet.
    lag_lines: u64,
    /// Age of the oldest of them, in seconds.
    lag_seconds: u64,
    /// Lines that the receiver has confirmed.
    delivered: u64,
    /// Lines that were sent again because they were not confirmed.
    resent: u64,
    /// Lines that will not be delivered.
    dropped: u64,
    /// The last error.
    last_error: Option<String>,
    /// Time of the last error, in Unix seconds.
    last_error_at: Option<u64>,
}

/// The result of a drain test.
#[derive(Serialize, ToSchema)]
pub(crate) struct DrainTest {
    /// The steps up to the first that failed.
    steps: Vec<DrainTestStep>,
    /// The bytes sent; those that are not UTF-8 are replaced.
    sent: String,
}

/// A step of a drain test.
#[derive(Serialize, ToSchema)]
struct DrainTestStep {
    /// `resolve`, `connect`, `tls` or `send`.
    #[schema(example = "connect")]
    step: &'static str,
    ok: bool,
    /// Duration in milliseconds.
    millis: u64,
    /// Result or error.
    detail: String,
}

impl From<ProbeStep> for DrainTestStep {
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

/// Show the status of a drain
///
/// The status is at most 10 seconds old, or 1 second after the drain starts to fail.
#[utoipa::path(
    get,
    path = "/api/apps/{app}/drains/{id}",
    tag = "drains",
    params(DrainParams),
    responses((status = 200, description = "The status", body = Data<DrainStatus>), AccessErrors)
)]
pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    request: Authorized<ManageDrains>,
) -> Result<Json<Data<DrainStatus>>, ApiError> {
    let drain = find(&state, &request)?;
    let report = state.drains.registry()?.drain_report(drain.id).await;
    let report = report.map_err(registry_error)?;
    Ok(Json(Data {
        data: status(&drain, report.unwrap_or_default()),
    }))
}

/// Test a drain
///
/// Resolves the host, connects, does the TLS handshake and sends one line. Takes at most a minute.
/// At most 16 tests run at once.
#[utoipa::path(
    post,
    path = "/api/apps/{app}/drains/{id}/test",
    tag = "drains",
    params(DrainParams),
    responses((status = 200, description = "The result of each step", body = Data<DrainTest>), AccessErrors)
)]
pub(crate) async fn test(
    State(state): State<Arc<AppState>>,
    request: Authorized<ManageDrains>,
) -> Result<Json<Data<DrainTest>>, ApiError> {
    let drain = find(&state, &request)?;
    let report = state.drains.probe(&drain).await?;
    Ok(Json(Data {
        data: DrainTest {
            steps: report.steps.into_iter().map(DrainTestStep::from).collect(),
            sent: String::from_utf8_lossy(&report.sent).into_owned(),
        },
    }))
}

/// Returns the drain in the path if it belongs to the app in the path.
fn find(state: &AppState, request: &Authorized<ManageDrains>) -> Result<Drain, ApiError> {
    let drains = Arc::clone(&state.drains.registry()?.drains().borrow());
    let drain = request
        .drain_id
        .and_then(|id| drains.get(&id))
        .filter(|drain| drain.app == request.app.as_str());
    drain.cloned().ok_or(ApiError::UnknownDrain)
}

fn status(drain: &Drain, report: DrainReport) -> DrainStatus {
    DrainStatus {
        drain: DrainSummary::from(drain),
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
