//! A receiver of Logplex frames that answers as it is told, written from what Logplex says of them.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::{bounded, receiver::octets};

/// A frame, taken apart.
#[derive(Clone, Debug)]
pub struct Frame {
    pub headers: HeaderMap,
    pub path: String,
    /// Each a line of eight parts, without its newline.
    pub messages: Vec<String>,
    /// What it was answered with.
    pub status: u16,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub after: Duration,
}

impl Answer {
    pub fn of(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            after: Duration::ZERO,
        }
    }
}

/// What it does: the answers that come first, and the one for all that come later.
type Script = Arc<Mutex<(VecDeque<Answer>, Answer)>>;

pub struct Web {
    pub addr: SocketAddr,
    pub frames: Arc<Mutex<Vec<Frame>>>,
    script: Script,
    taken: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl Web {
    pub async fn start(first: impl IntoIterator<Item = Answer>, then: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let script: Script = Arc::new(Mutex::new((first.into_iter().collect(), then)));
        let (frames, (counted, taken)) = (Arc::default(), watch::channel(0));
        let counted = Arc::new(counted);
        let (asked, kept) = (Arc::clone(&script), Arc::clone(&frames));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let (asked, kept, counted) = (Arc::clone(&asked), Arc::clone(&kept), Arc::clone(&counted));
                let serve = service_fn(move |request| {
                    answer(request, Arc::clone(&asked), Arc::clone(&kept), Arc::clone(&counted))
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        Self {
            addr,
            frames,
            script,
            taken,
            accepting,
        }
    }

    pub fn answer_from_now_on(&self, answer: Answer) {
        self.script.lock().1 = answer;
    }

    pub fn url(&self) -> String {
        format!("http://user:hunter2@{}/drain?key=K", self.addr)
    }

    /// Waits until so many frames came.
    pub async fn until_frames(&mut self, count: usize) {
        bounded("frames", self.taken.wait_for(|taken| *taken >= count))
            .await
            .unwrap();
    }

    /// Waits until the frames that were taken hold so many messages.
    pub async fn until_messages(&mut self, count: usize) {
        let frames = Arc::clone(&self.frames);
        let holds = |_: &usize| messages(&frames.lock()).len() >= count;
        bounded("messages", self.taken.wait_for(holds)).await.unwrap();
    }

    /// The texts of all messages that were taken.
    pub fn texts(&self) -> Vec<String> {
        messages(&self.frames.lock())
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn messages(frames: &[Frame]) -> Vec<String> {
    let taken = frames.iter().filter(|frame| frame.status / 100 == 2);
    let messages = taken.flat_map(|frame| &frame.messages);
    messages
        .map(|message| message.split_once(" - ").unwrap().1.to_owned())
        .collect()
}

async fn answer(
    request: Request<Incoming>,
    script: Script,
    frames: Arc<Mutex<Vec<Frame>>>,
    counted: Arc<watch::Sender<usize>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
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
    while let Some(message) = octets(&mut rest) {
        let line = message.strip_suffix('\n').expect("ends in a newline");
        assert!(!line.contains('\n') && line.splitn(7, ' ').count() == 7, "{line}");
        messages.push(line.to_owned());
    }
    assert!(rest.is_empty(), "whole messages only");
    assert_eq!(head.headers["logplex-msg-count"], messages.len().to_string());
    let answer = {
        let mut script = script.lock();
        script.0.pop_front().unwrap_or_else(|| script.1.clone())
    };
    tokio::time::sleep(answer.after).await;
    let count = {
        let mut frames = frames.lock();
        frames.push(Frame {
            headers: head.headers,
            path: head.uri.to_string(),
            messages,
            status: answer.status,
        });
        frames.len()
    };
    counted.send_replace(count);
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::default()).unwrap())
}
