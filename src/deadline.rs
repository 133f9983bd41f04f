//! A deadline for requests.

use std::time::Duration;

/// How long an API or a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits up to 10 s for the answer to a request.
///
/// # Errors
/// A description of the timeout, if there is no answer in time. The request is cancelled.
pub(crate) async fn answered<T>(request: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, request).await;
    answer.map_err(|_| format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))
}
