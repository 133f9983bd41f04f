//! The binary as a process, HTTP responses line by line, and a bound on every wait.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

/// Bound of every wait; long enough for a debug build on a busy machine.
pub const BOUND: Duration = Duration::from_secs(60);

/// Waits, and panics after [`BOUND`].
pub async fn bounded<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, wait).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {BOUND:?}"),
    }
}

/// A running `tributary` service. Killed when dropped.
pub struct Tributary {
    child: Child,
    pub addr: SocketAddr,
    pub stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Tributary {
    /// Starts a service and waits until it prints its address.
    pub async fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::of(command(args, env)).await
    }

    /// Starts a service from a command.
    pub async fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let addr = bounded("listening", async {
            let mut output = Vec::new();
            while let Some(line) = stderr.next_line().await.unwrap() {
                if let Some(addr) = line.strip_prefix("listening on http://") {
                    return addr.parse().unwrap();
                }
                output.push(line);
            }
            panic!("{:?} ended: {output:?}", command.as_std());
        })
        .await;
        Self {
            child,
            addr,
            stdout,
            stderr,
        }
    }

    /// Sends SIGTERM and waits for exit code 0.
    pub async fn terminate(self) {
        self.send_sigterm().await;
        self.wait_for_exit().await;
    }

    /// Sends SIGTERM without waiting.
    pub async fn send_sigterm(&self) {
        send_sigterm(&self.child).await;
    }

    /// Returns the next address that the service prints: that of its admin listener.
    pub async fn admin_addr(&mut self) -> SocketAddr {
        bounded("listening", async {
            loop {
                let line = self.stderr.next_line().await.unwrap().expect("it runs");
                if let Some(addr) = line.strip_prefix("listening on http://") {
                    return addr.parse().unwrap();
                }
            }
        })
        .await
    }

    /// Waits for exit code 0.
    pub async fn wait_for_exit(mut self) {
        let mut output = Vec::new();
        let status = bounded("the end after SIGTERM", async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                output.push(line);
            }
            self.child.wait().await.unwrap()
        })
        .await;
        assert!(status.success(), "{status}: {output:?}");
    }

    /// Closes its stdout and stderr.
    pub fn close_output(self) -> Detached {
        Detached(self.child)
    }

    /// Sends SIGKILL and waits for the exit.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub async fn get(&self, path: &str) -> ResponseLines {
        ResponseLines::open(self.addr, path).await
    }

    /// Returns all lines of a response that ends.
    pub async fn get_lines(&self, path: &str) -> Vec<String> {
        let mut response = self.get(path).await;
        let mut lines = Vec::new();
        while let Some(line) = response.line().await {
            lines.push(line);
        }
        lines
    }
}

/// Starts `tributary` without reading its output.
pub fn start_detached(args: &[&str], env: &[(&str, &str)]) -> Detached {
    let mut command = command(args, env);
    Detached(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// A running client command whose stdout is read line by line.
pub struct ClientProcess {
    pub child: Child,
    pub stdout: Lines<BufReader<ChildStdout>>,
}

/// Starts a client command.
pub fn start_client(args: &[&str], env: &[(&str, &str)]) -> ClientProcess {
    let mut child = command(args, env).stderr(Stdio::inherit()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    ClientProcess { child, stdout }
}

impl ClientProcess {
    pub async fn line(&mut self) -> String {
        bounded("a line", self.stdout.next_line())
            .await
            .unwrap()
            .expect("more lines")
    }

    /// Sends SIGINT and waits for exit code 0.
    pub async fn interrupt(mut self) {
        let pid = self.child.id().unwrap();
        let kill = Command::new("sh")
            .args(["-c", &format!("kill -INT {pid}")])
            .status()
            .await
            .unwrap();
        assert!(kill.success());
        let status = bounded("the end after Ctrl-C", self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

/// A TCP proxy at a fixed address whose target can change.
pub struct TcpProxy {
    pub addr: SocketAddr,
    target: tokio::sync::watch::Sender<Option<SocketAddr>>,
}

impl TcpProxy {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (target, current) = tokio::sync::watch::channel(None);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let current = *current.borrow();
                tokio::spawn(async move {
                    let Some(addr) = current else { return };
                    let Ok(mut server) = tokio::net::TcpStream::connect(addr).await else {
                        return;
                    };
                    // The end of one connection closes the other.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { addr, target }
    }

    /// Forwards new connections to this address.
    pub fn forward_to(&self, addr: SocketAddr) {
        self.target.send_replace(Some(addr));
    }
}

/// Starts a proxy that terminates TLS in front of an address.
pub async fn start_tls_proxy(addr: SocketAddr, identity: &rcgen::CertifiedKey<rcgen::KeyPair>) -> SocketAddr {
    let key = rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // The client rejected the certificate.
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                let mut server = tokio::net::TcpStream::connect(addr).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    proxy
}

/// A running `tributary` without a reader of its output.
pub struct Detached(Child);

impl Detached {
    /// Sends SIGTERM and waits for exit code 0.
    pub async fn terminate(mut self) {
        send_sigterm(&self.0).await;
        let status = bounded("the end after SIGTERM", self.0.wait()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

async fn send_sigterm(child: &Child) {
    let pid = child.id().unwrap();
    let kill = Command::new("sh")
        .args(["-c", &format!("kill -TERM {pid}")])
        .status()
        .await
        .unwrap();
    assert!(kill.success());
}

/// Runs `tributary` to its end.
pub async fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    bounded("the end", command(args, env).output()).await.unwrap()
}

/// Prepares `tributary`; the process is killed when dropped.
pub fn command(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
    command
        .args(args)
        .env_remove("KUBECONFIG")
        .env_remove("RUST_LOG")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// An HTTP response, read line by line.
pub struct ResponseLines {
    body: Incoming,
    status: u16,
    rest: Vec<u8>,
    at: usize,
}

impl ResponseLines {
    pub async fn open(addr: SocketAddr, path: &str) -> Self {
        Self::open_as(addr, path, "*/*").await
    }

    /// Requests a path in this media type.
    pub async fn open_as(addr: SocketAddr, path: &str, media_type: &str) -> Self {
        let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let request = http::Request::get(format!("http://{addr}{path}")).header("accept", media_type);
        let request = request.body(Empty::new()).unwrap();
        let response = bounded("a response", client.request(request)).await.unwrap();
        let status = response.status().as_u16();
        Self {
            status,
            body: response.into_body(),
            rest: Vec::new(),
            at: 0,
        }
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the rest of the body.
    pub async fn rest(self) -> String {
        let body = bounded("the rest", self.body.collect()).await.expect("a complete body");
        let rest = [&self.rest[self.at..], &body.to_bytes()].concat();
        String::from_utf8(rest).unwrap()
    }

    /// Returns the next line without its newline; `None` at the end of a complete body.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            let fresh = &self.rest[self.at..];
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&fresh[..end]).into_owned();
                self.at += end + 1;
                return Some(line);
            }
            self.rest.drain(..self.at);
            self.at = 0;
            match bounded("a line", self.body.frame()).await {
                Some(frame) => self
                    .rest
                    .extend_from_slice(frame.expect("a complete body").data_ref().unwrap()),
                None => {
                    assert!(self.rest.is_empty(), "only complete lines");
                    return None;
                }
            }
        }
    }
}

/// The fields of a line in the text format.
pub struct TextLine<'a> {
    pub time: &'a str,
    pub app: &'a str,
    pub process: &'a str,
    pub text: &'a str,
}

pub fn parse_line(line: &str) -> TextLine<'_> {
    let (time, rest) = line.split_once(' ').expect("a time");
    let (app, rest) = rest.split_once('[').expect("an app");
    let (process, text) = rest.split_once("]: ").expect("a process");
    assert_eq!(time.len(), "2026-11-23T07:00:00.123456+00:00".len(), "{line}");
    TextLine {
        time,
        app,
        process,
        text,
    }
}
