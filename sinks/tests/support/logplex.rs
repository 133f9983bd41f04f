//! A receiver of Logplex frames with scripted responses, written from Logplex's documentation.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::{bounded, receiver::next_message};

/// A parsed frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub headers: HeaderMap,
    pub path: String,
    /// The messages without their newlines.
    pub messages: Vec<String>,
    /// The status of the response.
    pub status: u16,
}

/// A scripted response.
#[derive(Clone, Debug)]
pub struct ScriptedResponse {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub delay: Duration,
}

impl ScriptedResponse {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            delay: Duration::ZERO,
        }
    }
}

/// The first responses, and the response to all later requests.
type Script = Arc<Mutex<(VecDeque<ScriptedResponse>, ScriptedResponse)>>;

/// A receiver on a free port.
pub struct LogplexReceiver {
    pub addr: SocketAddr,
    pub frames: Arc<Mutex<Vec<Frame>>>,
    script: Script,
    count: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl LogplexReceiver {
    pub async fn start(first: impl IntoIterator<Item = ScriptedResponse>, then: ScriptedResponse) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let script: Script = Arc::new(Mutex::new((first.into_iter().collect(), then)));
        let (frames, (counted, count)) = (Arc::default(), watch::channel(0));
        let counted = Arc::new(counted);
        let (responses, received) = (Arc::clone(&script), Arc::clone(&frames));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let (responses, received, counted) =
                    (Arc::clone(&responses), Arc::clone(&received), Arc::clone(&counted));
                let serve = service_fn(move |request| {
                    respond(
                        request,
                        Arc::clone(&responses),
                        Arc::clone(&received),
                        Arc::clone(&counted),
                    )
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        Self {
            addr,
            frames,
            script,
            count,
            accepting,
        }
    }

    /// Sets the response to all later requests.
    pub fn set_response(&self, response: ScriptedResponse) {
        self.script.lock().1 = response;
    }

    pub fn url(&self) -> String {
        format!("http://user:hunter2@{}/drain?key=K", self.addr)
    }

    /// Waits until `count` frames were received in total.
    pub async fn until_frames(&mut self, count: usize) {
        bounded("frames", self.count.wait_for(|received| *received >= count))
            .await
            .unwrap();
    }

    /// Waits until the accepted frames contain `count` messages.
    pub async fn until_messages(&mut self, count: usize) {
        let frames = Arc::clone(&self.frames);
        let contains = |_: &usize| messages(&frames.lock()).len() >= count;
        bounded("messages", self.count.wait_for(contains)).await.unwrap();
    }

    /// The texts of all messages in accepted frames.
    pub fn texts(&self) -> Vec<String> {
        messages(&self.frames.lock())
    }
}

impl Drop for LogplexReceiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn messages(frames: &[Frame]) -> Vec<String> {
    let accepted = frames.iter().filter(|frame| frame.status / 100 == 2);
    let messages = accepted.flat_map(|frame| &frame.messages);
    messages
        .map(|message| message.split_once(" - ").unwrap().1.to_owned())
        .collect()
}

async fn respond(
    request: Request<Incoming>,
    script: Script,
    frames: Arc<Mutex<Vec<Frame>>>,
    counted: Arc<watch::Sender<usize>>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!(head.method, "POST");
    assert_eq!(head.headers["content-type"], "application/logplex-1");
    let mut body = body.collect().await.unwrap().to_bytes();
    assert_eq!(head.headers["content-length"], body.len().to_string(), "not chunked");
    if head
        .headers
        .get("content-encoding")
        .is_some_and(|encoding| encoding == "gzip")
    {
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut GzDecoder::new(&body[..]), &mut plain).unwrap();
        body = plain.into();
    }
    let mut rest = BytesMut::from(&body[..]);
    let mut messages = Vec::new();
    while let Some(message) = next_message(&mut rest) {
        let line = message.strip_suffix('\n').expect("ends in a newline");
        assert!(!line.contains('\n') && line.splitn(7, ' ').count() == 7, "{line}");
        messages.push(line.to_owned());
    }
    assert!(rest.is_empty(), "complete messages only");
    assert_eq!(head.headers["logplex-msg-count"], messages.len().to_string());
    let response = {
        let mut script = script.lock();
        script.0.pop_front().unwrap_or_else(|| script.1.clone())
    };
    tokio::time::sleep(response.delay).await;
    let count = {
        let mut frames = frames.lock();
        frames.push(Frame {
            headers: head.headers,
            path: head.uri.to_string(),
            messages,
            status: response.status,
        });
        frames.len()
    };
    counted.send_replace(count);
    let mut builder = http::Response::builder().status(response.status);
    for (name, value) in response.headers {
        builder = builder.header(name, value);
    }
    Ok(builder.body(Full::default()).unwrap())
}
