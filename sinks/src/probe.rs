//! Tries a drain, step by step.

use std::time::{Duration, Instant};

use bus::Timestamp;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, future::BoxFuture};
use registry::{Drain, ProbeReport, ProbeStep, Prober, Protocol, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    SinksError, config::Config, render::Style, transport::connect::Dialler, transport::error::Failure,
    transport::https::Frames, transport::socket_queue::Queue, transport::udp,
};

/// How long it is looked whether a receiver closes the connection on what it was sent.
const LOOK: Duration = Duration::from_millis(500);

/// Tries drains as their reader would.
pub struct Probe {
    dialler: Dialler,
    answer_wait: Duration,
}

impl Probe {
    /// By these settings.
    ///
    /// # Errors
    /// [`SinksError`]: what cannot be used.
    pub fn new(config: &Config) -> Result<Self, SinksError> {
        Ok(Self {
            dialler: Dialler::new(config).map_err(SinksError)?,
            answer_wait: config.answer_wait,
        })
    }

    async fn run(&self, drain: &Drain) -> ProbeReport {
        let mut steps = Steps(Vec::new());
        let sent = self.steps(drain, &mut steps).await.unwrap_or_default();
        ProbeReport {
            steps: steps.0,
            sent: sent.to_vec(),
        }
    }

    async fn steps(&self, drain: &Drain, steps: &mut Steps) -> Option<Bytes> {
        let target = match drain.target() {
            Ok(target) => target,
            Err(why) => return steps.fail("resolve", &Failure::Unusable(why.to_owned())),
        };
        let resolve = async {
            let found = timeout(self.answer_wait, self.dialler.names.of(&target)).await;
            found.map_err(|_| Failure::Late(self.answer_wait))?
        };
        let addresses = steps.take("resolve", resolve, |found| {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            found.join(", ")
        });
        let addresses = addresses.await?;
        let message = message(drain, &target);
        if target.protocol == Protocol::Udp {
            let send = async {
                let socket = udp::open(&addresses).await?;
                socket.send(&message).await.map_err(Failure::Broke)
            };
            steps
                .take("send", send, |bytes| format!("{bytes} bytes, for which nobody answers"))
                .await?;
            return Some(message);
        }
        let connect = self.dialler.connect(&addresses);
        let stream = steps.take("connect", connect, |stream| match stream.peer_addr() {
            Ok(peer) => peer.to_string(),
            Err(_) => String::new(),
        });
        let stream = stream.await?;
        let queue = match Queue::of(&stream) {
            Ok(queue) => queue,
            Err(error) => return steps.fail("connect", &Failure::Connect(error)),
        };
        let secure = self.dialler.secure(&target, stream, queue);
        let connection = if target.protocol.is_tls() {
            steps
                .take("tls", secure, |_| {
                    if target.verify { "verified" } else { "not verified" }.to_owned()
                })
                .await?
        } else {
            secure.await.ok()?
        };
        if target.protocol.is_web() {
            let mut frames = Frames::new(&target, &drain.token);
            let send = timeout(self.answer_wait, frames.probe(connection, message.clone()));
            let send = async { send.await.unwrap_or(Err(Failure::Late(self.answer_wait))) };
            steps
                .take("send", send, |status| format!("it answers {status}"))
                .await?;
            return Some(message);
        }
        let mut stream = connection.stream;
        let send = async {
            stream.write_all(&message).await.map_err(Failure::Broke)?;
            stream.flush().await.map_err(Failure::Broke)?;
            // A receiver that dislikes it closes the connection, soon.
            match timeout(LOOK, stream.read(&mut [0; 1024])).await {
                Ok(Ok(0)) => Err(Failure::Closed),
                Ok(Err(error)) => Err(Failure::Broke(error)),
                Ok(Ok(_)) | Err(_) => Ok(message.len()),
            }
        };
        steps.take("send", send, |bytes| format!("{bytes} bytes")).await?;
        let _ = timeout(LOOK, stream.shutdown()).await;
        Some(message)
    }
}

impl Prober for Probe {
    fn probe<'a>(&'a self, drain: &'a Drain) -> BoxFuture<'a, ProbeReport> {
        self.run(drain).boxed()
    }
}

/// The line that is sent, as it is sent.
fn message(drain: &Drain, target: &Target) -> Bytes {
    let (style, mut out) = (Style::of(target), BytesMut::new());
    let text = format!(
        "{} a test of drain {}: if you read this, lines arrive",
        Timestamp::now(),
        drain.id
    );
    style.line(&mut out, &style.own_header(&drain.app), false, text.as_bytes(), |_| ());
    out.freeze()
}

/// What was done so far.
struct Steps(Vec<ProbeStep>);

impl Steps {
    async fn take<T>(
        &mut self,
        step: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
        detail: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let begun = Instant::now();
        let done = work.await;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (ok, detail) = match &done {
            Ok(done) => (true, detail(done)),
            Err(failure) => (false, failure.to_string()),
        };
        self.0.push(ProbeStep {
            step,
            ok,
            millis,
            detail,
        });
        done.ok()
    }

    fn fail<T>(&mut self, step: &'static str, failure: &Failure) -> Option<T> {
        self.0.push(ProbeStep {
            step,
            ok: false,
            millis: 0,
            detail: failure.to_string(),
        });
        None
    }
}
