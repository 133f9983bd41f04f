//! Logplex frames over HTTP and HTTPS: a POST of messages, which the receiver answers for.
//!
//! *Source*: Heroku Dev Center, Log Drains; Logplex, README.http_drains.md.

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use registry::{Protocol, Target};
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    queue::Rendered, reader::Feed, stats::Counts, transport::connect::Connection, transport::error::Failure,
    transport::outcome::End,
};

/// What Logplex sends at most in a frame.
const FRAME_BYTES: usize = 102_400;
const FRAME_MESSAGES: usize = 1000;

/// How long an answer is waited for once we are told to stop.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// What is read of an answer's body, so that the connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Sends frames to one receiver. Lives over its connections: a frame that is not answered for keeps its id.
pub(crate) struct Frames {
    envelope: Envelope,
    /// Halved by a receiver that finds frames too large.
    frame_bytes: usize,
    frame: Option<Frame>,
}

/// What is around every frame.
struct Envelope {
    target: Target,
    token: String,
}

/// A frame that the receiver has not answered for.
struct Frame {
    id: String,
    body: Bytes,
    rendered: Rendered,
    /// How many pieces are in frames up to this one, of the connection's.
    pieces: u64,
    /// Whether it was sent.
    tried: bool,
}

/// What a receiver answered.
enum Answer {
    Taken(u16),
    /// It will never take it.
    Refused(u16),
    TooLarge,
}

/// What to tell the app: so many of its lines were refused.
pub(crate) struct Refusal {
    pub(crate) lines: u64,
    pub(crate) status: u16,
}

impl Frames {
    pub(crate) fn new(target: &Target, token: &str) -> Self {
        Self {
            envelope: Envelope {
                target: target.clone(),
                token: token.to_owned(),
            },
            frame_bytes: FRAME_BYTES,
            frame: None,
        }
    }

    /// Sends what the feed has until the connection ends, or is to. The feed is never rewound: a frame is answered for, or sent again as it is.
    pub(crate) async fn run(
        &mut self,
        feed: &mut Feed,
        connection: Connection,
        counts: &Counts,
        (age, answer_wait): (Duration, Duration),
        stop: &CancellationToken,
        mut refused: impl FnMut(Refusal),
    ) -> End {
        let (mut sender, mut driving) = match timeout(answer_wait, open(connection)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(failure)) => return End::Failed(failure),
            Err(_) => return End::Failed(Failure::Late(answer_wait)),
        };
        let old = Instant::now() + age;
        // What was sent on the connection before, and not answered for.
        if let Some(frame) = self.frame.as_ref().filter(|frame| frame.tried) {
            counts.note(|report| report.resent += frame.rendered.lines);
        }
        let mut answers = 0;
        loop {
            if self.frame.is_none() && feed.queue.has_more() {
                self.frame = Some(self.fill(feed));
            }
            let Some(frame) = &mut self.frame else {
                tokio::select! {
                    filled = feed.fill() => match filled {
                        Some(Ok(())) => continue,
                        Some(Err(error)) => return End::Bus(Some(error)),
                        None => return End::Bus(None),
                    },
                    // Receivers close what is not used for a while.
                    _ = &mut driving => return End::Renewed,
                    () = stop.cancelled() => return End::Stopped,
                    () = tokio::time::sleep_until(old) => return End::Renewed,
                }
            };
            frame.tried = true;
            let answered = tokio::select! {
                answered = timeout(answer_wait, self.envelope.ask(&mut sender, frame)) => answered,
                () = async { stop.cancelled().await; tokio::time::sleep(LAST_ANSWER).await } => return End::Stopped,
            };
            let answer = match answered {
                Ok(Ok(answer)) => answer,
                // It was closed just when it was used again.
                Ok(Err(Failure::Closed)) if answers > 0 => return End::Renewed,
                Ok(Err(failure)) => return End::Failed(failure),
                Err(_) => return End::Failed(Failure::Late(answer_wait)),
            };
            answers += 1;
            let Some(frame) = self.frame.take() else { continue };
            match answer {
                Answer::Taken(_) => {
                    counts.note(|report| report.delivered += frame.rendered.lines);
                    feed.settle(frame.pieces);
                }
                Answer::TooLarge if frame.rendered.messages > 1 => {
                    self.frame_bytes = (frame.body.len() / 2).clamp(1, self.frame_bytes);
                    feed.queue.take_back();
                }
                Answer::TooLarge | Answer::Refused(_) => {
                    let status = if let Answer::Refused(status) = answer {
                        status
                    } else {
                        413
                    };
                    counts.note(|report| report.dropped += frame.rendered.lines);
                    feed.settle(frame.pieces);
                    refused(Refusal {
                        lines: frame.rendered.lines,
                        status,
                    });
                }
            }
            if stop.is_cancelled() {
                return End::Stopped;
            }
            if Instant::now() >= old {
                return End::Renewed;
            }
        }
    }

    /// Whether a frame waits for an answer.
    pub(crate) fn are_open(&self) -> bool {
        self.frame.is_some()
    }

    /// Sends one message and returns the status that it is answered with.
    ///
    /// # Errors
    /// What went wrong, a refusal too.
    pub(crate) async fn probe(&mut self, connection: Connection, body: Bytes) -> Result<u16, Failure> {
        let (mut sender, _driving) = open(connection).await?;
        let rendered = Rendered {
            messages: 1,
            ..Rendered::default()
        };
        let frame = Frame::new(body, rendered, 0);
        let refused = |status| Failure::Answer {
            status,
            retry_after: None,
        };
        match self.envelope.ask(&mut sender, &frame).await? {
            Answer::Taken(status) => Ok(status),
            Answer::Refused(status) => Err(refused(status)),
            Answer::TooLarge => Err(refused(413)),
        }
    }

    fn fill(&self, feed: &mut Feed) -> Frame {
        let mut body = BytesMut::with_capacity(self.frame_bytes + 1024);
        let rendered = feed.queue.render_frame(&mut body, self.frame_bytes, FRAME_MESSAGES);
        Frame::new(body.freeze(), rendered, feed.queue.rendered())
    }
}

impl Frame {
    /// One that was not sent yet, under an id of its own.
    fn new(body: Bytes, rendered: Rendered, pieces: u64) -> Self {
        Self {
            id: format!("{:032X}", rand::random::<u128>()),
            body,
            rendered,
            pieces,
            tried: false,
        }
    }
}

impl Envelope {
    async fn ask(&self, sender: &mut SendRequest<Full<Bytes>>, frame: &Frame) -> Result<Answer, Failure> {
        let http = |error: &dyn std::fmt::Display| Failure::Http(error.to_string());
        let request = self.request(frame).map_err(|error| http(&error))?;
        sender.ready().await.map_err(|_| Failure::Closed)?;
        let response = sender.send_request(request).await.map_err(|error| {
            let unsent = error.is_canceled() || error.is_closed() || error.is_incomplete_message();
            if unsent { Failure::Closed } else { http(&error) }
        })?;
        let (head, body) = response.into_parts();
        // Redirects are refusals: nobody has looked at where they lead.
        let answer = match head.status {
            status if status.is_success() => Ok(Answer::Taken(status.as_u16())),
            StatusCode::PAYLOAD_TOO_LARGE => Ok(Answer::TooLarge),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(head.status),
            status if status.is_client_error() || status.is_redirection() => Ok(Answer::Refused(status.as_u16())),
            status => Err(status),
        };
        // What else it says is nothing to us, but has to be read before it is asked again.
        let _ = http_body_util::Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        answer.map_err(|status| Failure::Answer {
            status: status.as_u16(),
            retry_after: head.headers.get(header::RETRY_AFTER).and_then(retry_after),
        })
    }

    fn request(&self, frame: &Frame) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = if self.target.path.is_empty() {
            "/"
        } else {
            self.target.path.as_str()
        };
        let mut request = Request::post(path)
            .header(header::HOST, self.host())
            .header(header::USER_AGENT, concat!("Tributary/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/logplex-1")
            .header("Logplex-Msg-Count", frame.rendered.messages)
            .header("Logplex-Frame-Id", &frame.id)
            .header("Logplex-Drain-Token", &self.token);
        if let Some((user, password)) = &self.target.login {
            let login = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            let mut login = HeaderValue::try_from(login)?;
            login.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, login);
        }
        let mut body = frame.body.clone();
        if self.target.gzip
            && let Ok(smaller) = compress(&body)
        {
            body = smaller;
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

/// Speaks HTTP on a connection, whose own task ends when what is returned is dropped.
async fn open(connection: Connection) -> Result<(SendRequest<Full<Bytes>>, AbortOnDropHandle<()>), Failure> {
    let opened = handshake(TokioIo::new(connection.stream)).await;
    let (sender, driving) = opened.map_err(|error| Failure::Http(error.to_string()))?;
    let driving = tokio::spawn(async { drop(driving.await) });
    Ok((sender, AbortOnDropHandle::new(driving)))
}

fn compress(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

/// Seconds, or a date.
///
/// *Source*: RFC 9110, section 10.2.3.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}
