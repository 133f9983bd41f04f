//! Builds the request for a log and classifies the response.
//!
//! kube's own log request would copy every line. `sinceTime` is not used: the kubelet compares each
//! line with it, so that it drops the lines that follow a clock that stepped back.

use std::time::Duration;

use bus::Timestamp;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;

use crate::instance::Instance;

/// Time limit for response headers. The kubelet sends them at once, even for an empty log.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);

/// Upper bound for `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Upper bound for the size of an error body.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Parameters of a log request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Keep the response open for new lines.
    pub follow: bool,
    /// Request the instance before the newest one.
    pub previous: bool,
    /// Start this many lines before the end of the current file; a long line counts several times.
    pub tail_lines: Option<u32>,
    /// Maximum number of bytes to return.
    pub limit_bytes: Option<u32>,
}

/// The API's response to a log request.
#[derive(Debug)]
pub enum LogResponse {
    /// The log.
    LogBody(LogBody),
    /// The container waits to start or the pod to be scheduled; there is no log yet.
    NotStarted,
    /// The pod does not exist.
    PodGone,
    /// The container has no previous instance.
    NoPrevious,
    /// The API server is overloaded; retry after this delay at the earliest.
    Busy(Duration),
    /// The collector is not authenticated or not authorized; retry, because an operator can fix it.
    Refused(String),
    /// Any other failure; retry.
    Failed(String),
}

/// The body of a log response, frame by frame.
#[derive(Debug)]
pub struct LogBody(Body);

impl LogBody {
    /// Returns the next frame, or `None` at a clean end, which carries no reason.
    ///
    /// *Cancel safety*: no data is lost.
    ///
    /// # Errors
    /// A message if the connection breaks.
    pub async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            match self.0.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Err(error) => return Some(Err(error.to_string())),
            }
        }
    }
}

impl LogRequest {
    /// Requests the log of an instance.
    ///
    /// *Cancel safety*: dropping the future closes the connection.
    pub async fn send(&self, client: &kube::Client, instance: &Instance) -> LogResponse {
        let request = match Request::get(self.uri(instance)).body(Body::empty()) {
            Ok(request) => request,
            Err(error) => return LogResponse::Failed(error.to_string()),
        };
        match tokio::time::timeout(HEADERS_TIMEOUT, client.send(request)).await {
            Err(_) => LogResponse::Failed("no response".to_owned()),
            Ok(Err(error)) => LogResponse::Failed(error.to_string()),
            Ok(Ok(response)) => read_response(response).await,
        }
    }

    fn uri(&self, instance: &Instance) -> String {
        let Instance {
            namespace, pod, key, ..
        } = instance;
        let mut uri = format!(
            "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={}&timestamps=true",
            key.container
        );
        if self.follow {
            uri.push_str("&follow=true");
        }
        if self.previous {
            uri.push_str("&previous=true");
        }
        if let Some(bytes) = self.limit_bytes {
            uri.push_str(&format!("&limitBytes={bytes}"));
        }
        if let Some(lines) = self.tail_lines {
            uri.push_str(&format!("&tailLines={lines}"));
        }
        uri
    }
}

async fn read_response(response: Response<Body>) -> LogResponse {
    let status = response.status();
    match status {
        StatusCode::OK => return LogResponse::LogBody(LogBody(response.into_body())),
        StatusCode::NO_CONTENT => return LogResponse::NotStarted,
        _ => {}
    }
    if let Some(wait) = retry_after(&response) {
        return LogResponse::Busy(wait);
    }
    let body = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect();
    let body = match tokio::time::timeout(HEADERS_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    read_error(status, &body)
}

/// Returns the delay that an overloaded server requests. Kubernetes sends seconds, never a date.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let is_busy = response.status() == StatusCode::TOO_MANY_REQUESTS || response.status().is_server_error();
    let seconds = response.headers().get(RETRY_AFTER).filter(|_| is_busy)?;
    let seconds: u64 = seconds.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The fields of a Kubernetes `Status` that distinguish errors.
#[derive(Debug, Default, Deserialize)]
struct ApiError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    kind: String,
}

fn read_error(status: StatusCode, body: &[u8]) -> LogResponse {
    let error: ApiError = serde_json::from_slice(body).unwrap_or_default();
    let kind = error.details.map(|details| details.kind).unwrap_or_default();
    match status {
        // A kubelet that has just started answers 404 of kind `pods/log` for a second or two.
        StatusCode::NOT_FOUND if kind == "pods" => LogResponse::PodGone,
        StatusCode::BAD_REQUEST if error.message.contains("is waiting to start") => LogResponse::NotStarted,
        StatusCode::BAD_REQUEST if error.message.starts_with("previous terminated container") => {
            LogResponse::NoPrevious
        }
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => LogResponse::Refused(error.message),
        _ => LogResponse::Failed(format!("{status}: {}", error.message)),
    }
}

/// Returns whether unterminated text at the end of a log is a kubelet error. With timestamps
/// requested, every line starts with one.
///
/// *Source*: the kubelet writes errors into the log body, with status 200 and without a newline.
pub fn is_kubelet_error(text: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 5] = [
        b"unable to retrieve container logs for ",
        b"failed to ",
        b"error ",
        b"context ",
        b"rpc error",
    ];
    PREFIXES.iter().any(|prefix| text.starts_with(prefix)) && Timestamp::split_line(text).is_none()
}

/// Returns whether a kubelet error says that no more follows can be served; the log up to now was
/// sent before it.
///
/// *Source*: each follow takes an inotify instance, of which a user has 128 by default.
pub fn is_follow_limit(text: &[u8]) -> bool {
    is_kubelet_error(text) && text.starts_with(b"failed to create fsnotify watcher: too many open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(kind: &str, message: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({"message": message, "details": {"kind": kind}})).unwrap()
    }

    #[test]
    fn errors_are_classified() {
        let not_found = |kind| read_error(StatusCode::NOT_FOUND, &status(kind, "x"));
        assert!(matches!(not_found("pods"), LogResponse::PodGone));
        assert!(matches!(not_found("pods/log"), LogResponse::Failed(_)));
        let bad = |message| read_error(StatusCode::BAD_REQUEST, &status("", message));
        assert!(matches!(
            bad("container \"a\" in pod \"b\" is waiting to start: PodInitializing"),
            LogResponse::NotStarted
        ));
        assert!(matches!(
            bad("previous terminated container \"a\" in pod \"b\" not found"),
            LogResponse::NoPrevious
        ));
        assert!(matches!(
            bad("container zzz is not valid for pod b"),
            LogResponse::Failed(_)
        ));
        assert!(matches!(
            read_error(StatusCode::INTERNAL_SERVER_ERROR, b"no json"),
            LogResponse::Failed(_)
        ));
    }

    #[test]
    fn kubelet_errors_are_not_lines() {
        assert!(is_kubelet_error(
            b"unable to retrieve container logs for containerd://abc"
        ));
        assert!(is_kubelet_error(
            b"failed to create fsnotify watcher: too many open files"
        ));
        assert!(!is_kubelet_error(b"2026-11-23T08:06:08.519378747Z failed to start"));
        assert!(!is_kubelet_error(b"BBBB"));
    }
}
