//! Tests a drain step by step.

use std::time::Duration;

use bus::Timestamp;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, future::BoxFuture};
use registry::{Drain, DrainTarget, ProbeReport, ProbeStep, Prober, Protocol};
use system::{clock, net::SocketQueue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    config::Config,
    error::SinksError,
    render::MessageFormat,
    transport::{connect::Connector, error::DeliveryError, https::FrameSender, udp},
};

/// How long to wait for the receiver to close the connection in response to the line.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// Tests drains with the settings of running drains.
pub struct DrainProber {
    connector: Connector,
    response_timeout: Duration,
}

impl DrainProber {
    /// Creates a prober with these settings.
    ///
    /// # Errors
    /// [`SinksError`] if a setting cannot be used.
    pub fn new(config: &Config) -> Result<Self, SinksError> {
        Ok(Self {
            connector: Connector::new(config).map_err(SinksError)?,
            response_timeout: config.response_timeout,
        })
    }

    async fn run(&self, drain: &Drain) -> ProbeReport {
        let mut steps = Steps(Vec::new());
        let sent = self.run_steps(drain, &mut steps).await.unwrap_or_default();
        ProbeReport {
            steps: steps.0,
            sent: sent.to_vec(),
        }
    }

    /// Runs the steps up to the first failure and returns the bytes sent.
    async fn run_steps(&self, drain: &Drain, steps: &mut Steps) -> Option<Bytes> {
        let target = match drain.target() {
            Ok(target) => target,
            Err(reason) => return steps.fail("resolve", &DeliveryError::Unusable(reason.to_owned())),
        };
        let resolve = async {
            let found = timeout(self.response_timeout, self.connector.resolver.resolve(&target)).await;
            found.map_err(|_| DeliveryError::Timeout(self.response_timeout))?
        };
        let addresses = steps.run("resolve", resolve, |addresses| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            addresses.join(", ")
        });
        let addresses = addresses.await?;
        let message = message(drain, &target);
        if target.protocol == Protocol::Udp {
            let send = async {
                let socket = udp::open(&addresses).await?;
                socket.send(&message).await.map_err(DeliveryError::Io)
            };
            steps
                .run("send", send, |bytes| {
                    format!("{bytes} bytes sent; UDP does not confirm delivery")
                })
                .await?;
            return Some(message);
        }
        let connect = self.connector.connect(&addresses);
        let stream = steps.run("connect", connect, |stream| match stream.peer_addr() {
            Ok(peer) => peer.to_string(),
            Err(_) => String::new(),
        });
        let stream = stream.await?;
        let socket = match SocketQueue::of(&stream) {
            Ok(socket) => socket,
            Err(error) => return steps.fail("connect", &DeliveryError::Connect(error)),
        };
        let secure = self.connector.secure(&target, stream, socket);
        let connection = if target.protocol.is_tls() {
            steps
                .run("tls", secure, |_| {
                    if target.verify {
                        "certificate verified"
                    } else {
                        "certificate not verified (verify=off)"
                    }
                    .to_owned()
                })
                .await?
        } else {
            secure.await.ok()?
        };
        if target.protocol.is_http() {
            let mut frames = FrameSender::new(&target, &drain.token);
            let send = timeout(self.response_timeout, frames.probe(connection, message.clone()));
            let send = async { send.await.unwrap_or(Err(DeliveryError::Timeout(self.response_timeout))) };
            steps
                .run("send", send, |status| {
                    format!("the receiver responded with HTTP {status}")
                })
                .await?;
            return Some(message);
        }
        let mut stream = connection.stream;
        let send = async {
            stream.write_all(&message).await.map_err(DeliveryError::Io)?;
            stream.flush().await.map_err(DeliveryError::Io)?;
            // A receiver that does not accept the message closes the connection soon.
            match timeout(CLOSE_WAIT, stream.read(&mut [0; 1024])).await {
                Ok(Ok(0)) => Err(DeliveryError::Closed),
                Ok(Err(error)) => Err(DeliveryError::Io(error)),
                Ok(Ok(_)) | Err(_) => Ok(message.len()),
            }
        };
        steps.run("send", send, |bytes| format!("{bytes} bytes sent")).await?;
        let _ = timeout(CLOSE_WAIT, stream.shutdown()).await;
        Some(message)
    }
}

impl Prober for DrainProber {
    fn probe<'a>(&'a self, drain: &'a Drain) -> BoxFuture<'a, ProbeReport> {
        self.run(drain).boxed()
    }
}

/// The rendered test message.
fn message(drain: &Drain, target: &DrainTarget) -> Bytes {
    let (format, mut out) = (MessageFormat::of(target), BytesMut::new());
    let text = format!("{} test message of drain {}", Timestamp::now(), drain.id);
    format.render_line(
        &mut out,
        &format.notice_header(&drain.app),
        false,
        text.as_bytes(),
        |_| (),
    );
    out.freeze()
}

/// The completed steps.
struct Steps(Vec<ProbeStep>);

impl Steps {
    async fn run<T>(
        &mut self,
        step: &'static str,
        work: impl Future<Output = Result<T, DeliveryError>>,
        detail: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let started = clock::steady();
        let result = work.await;
        let millis = u64::try_from(clock::since(started).as_millis()).unwrap_or(u64::MAX);
        let (ok, detail) = match &result {
            Ok(value) => (true, detail(value)),
            Err(error) => (false, error.to_string()),
        };
        self.0.push(ProbeStep {
            step,
            ok,
            millis,
            detail,
        });
        result.ok()
    }

    fn fail<T>(&mut self, step: &'static str, error: &DeliveryError) -> Option<T> {
        self.0.push(ProbeStep {
            step,
            ok: false,
            millis: 0,
            detail: error.to_string(),
        });
        None
    }
}
