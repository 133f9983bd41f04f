//! Questions that have to be answered in time.

use std::time::Duration;

/// How long an API or a server may take for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The answer to a question, whatever it is.
///
/// # Errors
/// That there was none in time, in words.
pub(crate) async fn answered<T>(asked: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(ANSWER_WAIT, asked).await;
    answer.map_err(|_| format!("nothing within {} s", ANSWER_WAIT.as_secs()))
}
