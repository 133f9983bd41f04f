//! Logplex frames over HTTP and HTTPS: each POST request contains messages, each response confirms
//! or rejects them.
//!
//! *Source*: Heroku Dev Center, Log Drains; Logplex, README.http_drains.md.

use std::{io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use registry::{DrainTarget, Protocol};
use system::{clock, random::random, task};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{connect::Connection, error::DeliveryError, outcome::Outcome};
use crate::{metrics::GapLabel, queue::Rendered, reader::DrainReader, stats::DrainStats};

/// The maximum size of a frame in bytes and in messages, as in Logplex.
const FRAME_BYTES: usize = 102_400;
const FRAME_MESSAGES: usize = 1000;

/// How long a response is awaited after shutdown is requested.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of a response body, which is read so that the connection can be reused.
const MAX_RESPONSE_BYTES: usize = 64 << 10;

/// Sends frames to one receiver, over all of its connections: a frame without a final response is
/// sent again with the same id.
pub(crate) struct FrameSender {
    request: RequestTemplate,
    /// Halved by each 413 response.
    max_frame_bytes: usize,
    pending: Option<Frame>,
}

/// What all requests have in common.
struct RequestTemplate {
    target: DrainTarget,
    token: String,
}

/// A frame without a final response.
struct Frame {
    id: String,
    body: Bytes,
    rendered: Rendered,
    /// The number of items in frames up to and including this one.
    items: u64,
    is_sent: bool,
}

/// A final response.
enum Response {
    Accepted(u16),
    /// The frame will never be accepted.
    Rejected(u16),
    TooLarge,
}

/// Lines that the receiver rejected.
pub(crate) struct Rejection {
    pub(crate) lines: u64,
    pub(crate) status: u16,
}

/// The limits of a connection.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionLimits {
    pub(crate) max_age: Duration,
    pub(crate) response_timeout: Duration,
}

impl FrameSender {
    pub(crate) fn new(target: &DrainTarget, token: &str) -> Self {
        Self {
            request: RequestTemplate {
                target: target.clone(),
                token: token.to_owned(),
            },
            max_frame_bytes: FRAME_BYTES,
            pending: None,
        }
    }

    /// Sends frames until the connection fails, expires, or shutdown is requested. The reader's
    /// queue is not rewound: a pending frame is sent again unchanged.
    pub(crate) async fn run(
        &mut self,
        reader: &mut DrainReader,
        connection: Connection,
        stats: &DrainStats,
        limits: ConnectionLimits,
        stop: &CancellationToken,
        mut on_rejection: impl FnMut(Rejection),
    ) -> Outcome {
        let response_timeout = limits.response_timeout;
        let (mut sender, mut driver) = match timeout(response_timeout, open(connection)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Outcome::Failed(error),
            Err(_) => return Outcome::Failed(DeliveryError::Timeout(response_timeout)),
        };
        let expires = clock::steady() + limits.max_age;
        // Sent on an earlier connection without a final response.
        if let Some(frame) = self.pending.as_ref().filter(|frame| frame.is_sent) {
            stats.add_resent(frame.rendered.lines);
        }
        let mut responses = 0;
        loop {
            if self.pending.is_none() && reader.queue.has_more() {
                self.pending = Some(self.fill(reader));
            }
            let Some(frame) = &mut self.pending else {
                tokio::select! {
                    filled = reader.fill() => match filled {
                        Some(Ok(())) => continue,
                        Some(Err(error)) => return Outcome::Bus(Some(error)),
                        None => return Outcome::Bus(None),
                    },
                    // Receivers close idle connections.
                    _ = &mut driver => return Outcome::Expired,
                    () = stop.cancelled() => return Outcome::Stopped,
                    () = tokio::time::sleep_until(expires) => return Outcome::Expired,
                }
            };
            frame.is_sent = true;
            let response = tokio::select! {
                response = timeout(response_timeout, self.request.send(&mut sender, frame)) => response,
                () = async { stop.cancelled().await; tokio::time::sleep(SHUTDOWN_TIMEOUT).await } => return Outcome::Stopped,
            };
            let response = match response {
                Ok(Ok(response)) => response,
                // The receiver closed an idle connection at the moment of the request.
                Ok(Err(DeliveryError::Closed)) if responses > 0 => return Outcome::Expired,
                Ok(Err(error)) => return Outcome::Failed(error),
                Err(_) => return Outcome::Failed(DeliveryError::Timeout(response_timeout)),
            };
            responses += 1;
            let Some(frame) = self.pending.take() else { continue };
            match response {
                Response::Accepted(_) => {
                    stats.add_delivered(frame.rendered.lines);
                    stats.set_accepted();
                    reader.confirm(frame.items);
                }
                Response::TooLarge if frame.rendered.messages > 1 => {
                    self.max_frame_bytes = (frame.body.len() / 2).clamp(1, self.max_frame_bytes);
                    reader.queue.undo_frame();
                }
                Response::TooLarge | Response::Rejected(_) => {
                    let status = if let Response::Rejected(status) = response {
                        status
                    } else {
                        413
                    };
                    let lines = frame.rendered.lines;
                    stats.set_refusing(&format!("the receiver responded with HTTP {status}"));
                    stats.add_gap(GapLabel::Rejected, lines);
                    reader.confirm(frame.items);
                    on_rejection(Rejection { lines, status });
                }
            }
            if stop.is_cancelled() {
                return Outcome::Stopped;
            }
            if clock::steady() >= expires {
                return Outcome::Expired;
            }
        }
    }

    /// Whether a frame waits for a final response.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Sends one message and returns the status of the response.
    ///
    /// # Errors
    /// A delivery error, or the receiver's rejection.
    pub(crate) async fn probe(&mut self, connection: Connection, body: Bytes) -> Result<u16, DeliveryError> {
        let (mut sender, _driver) = open(connection).await?;
        let rendered = Rendered {
            messages: 1,
            ..Rendered::default()
        };
        let frame = Frame::new(body, rendered, 0);
        let rejected = |status| DeliveryError::Status {
            status,
            retry_after: None,
        };
        match self.request.send(&mut sender, &frame).await? {
            Response::Accepted(status) => Ok(status),
            Response::Rejected(status) => Err(rejected(status)),
            Response::TooLarge => Err(rejected(413)),
        }
    }

    fn fill(&self, reader: &mut DrainReader) -> Frame {
        let mut body = BytesMut::with_capacity(self.max_frame_bytes + 1024);
        let rendered = reader
            .queue
            .render_frame(&mut body, self.max_frame_bytes, FRAME_MESSAGES);
        Frame::new(body.freeze(), rendered, reader.queue.rendered())
    }
}

impl Frame {
    /// A frame with a new id.
    fn new(body: Bytes, rendered: Rendered, items: u64) -> Self {
        Self {
            id: format!("{:032X}", random::<u128>()),
            body,
            rendered,
            items,
            is_sent: false,
        }
    }
}

impl RequestTemplate {
    async fn send(&self, sender: &mut SendRequest<Full<Bytes>>, frame: &Frame) -> Result<Response, DeliveryError> {
        let http = |error: &dyn std::fmt::Display| DeliveryError::Http(error.to_string());
        let request = self.request(frame).map_err(|error| http(&error))?;
        sender.ready().await.map_err(|_| DeliveryError::Closed)?;
        let response = sender.send_request(request).await.map_err(|error| {
            let unsent = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
            if unsent { DeliveryError::Closed } else { http(&error) }
        })?;
        let (head, body) = response.into_parts();
        // A redirect is a rejection: its target was not checked.
        let result = match head.status {
            status if status.is_success() => Ok(Response::Accepted(status.as_u16())),
            StatusCode::PAYLOAD_TOO_LARGE => Ok(Response::TooLarge),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(head.status),
            status if status.is_client_error() || status.is_redirection() => Ok(Response::Rejected(status.as_u16())),
            status => Err(status),
        };
        // The body is ignored, but must be read before the connection is reused.
        let _ = http_body_util::Limited::new(body, MAX_RESPONSE_BYTES).collect().await;
        result.map_err(|status| DeliveryError::Status {
            status: status.as_u16(),
            retry_after: head.headers.get(header::RETRY_AFTER).and_then(retry_after),
        })
    }

    fn request(&self, frame: &Frame) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = if self.target.path_and_query.is_empty() {
            "/"
        } else {
            self.target.path_and_query.as_str()
        };
        let mut request = Request::post(path)
            .header(header::HOST, self.host())
            .header(header::USER_AGENT, concat!("Tributary/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/logplex-1")
            .header("Logplex-Msg-Count", frame.rendered.messages)
            .header("Logplex-Frame-Id", &frame.id)
            .header("Logplex-Drain-Token", &self.token);
        if let Some((user, password)) = &self.target.credentials {
            let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            let mut value = HeaderValue::try_from(value)?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let mut body = frame.body.clone();
        if self.target.gzip
            && let Ok(compressed) = compress(&body)
        {
            body = compressed;
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        request.body(Full::new(body))
    }

    fn host(&self) -> String {
        let host = match self.target.address {
            Some(std::net::IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.target.host.clone(),
        };
        match (self.target.protocol, self.target.port) {
            (Protocol::Http, 80) | (Protocol::Https, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// Performs the HTTP handshake. Dropping the returned handle ends the task that drives the
/// connection.
async fn open(connection: Connection) -> Result<(SendRequest<Full<Bytes>>, AbortOnDropHandle<()>), DeliveryError> {
    let opened = handshake(TokioIo::new(connection.stream)).await;
    let (sender, driver) = opened.map_err(|error| DeliveryError::Http(error.to_string()))?;
    let driver = task::spawn(async { drop(driver.await) });
    Ok((sender, AbortOnDropHandle::new(driver)))
}

fn compress(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

/// Parses `Retry-After`: seconds or a date.
///
/// *Source*: RFC 9110, section 10.2.3.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(clock::wall_time()).unwrap_or_default())
}
