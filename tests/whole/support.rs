//! The binary as a process, a reader of its HTTP, and a bound on every wait.

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

/// Every wait's bound. Wide: a debug build on a busy machine must not fail by it.
pub const BOUND: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub async fn bounded<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, wait).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {BOUND:?}"),
    }
}

/// A `tributary …` that serves. Killed when dropped.
pub struct Tributary {
    child: Child,
    pub addr: SocketAddr,
    pub stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Tributary {
    /// Starts it and waits until it says where it listens.
    pub async fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::of(command(args, env)).await
    }

    /// The same of a command that becomes it.
    pub async fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let addr = bounded("listening", async {
            let mut said = Vec::new();
            while let Some(line) = stderr.next_line().await.unwrap() {
                if let Some(addr) = line.strip_prefix("listening on http://") {
                    return addr.parse().unwrap();
                }
                said.push(line);
            }
            panic!("{:?} ended: {said:?}", command.as_std());
        })
        .await;
        Self {
            child,
            addr,
            stdout,
            stderr,
        }
    }

    /// SIGTERM: it has to end by itself, with exit code 0, having finished what it accepted.
    pub async fn terminate(self) {
        self.tell_to_stop().await;
        self.ended().await;
    }

    /// SIGTERM, without waiting for what comes of it.
    pub async fn tell_to_stop(&self) {
        send_sigterm(&self.child).await;
    }

    /// Where else it says that it listens.
    pub async fn other_addr(&mut self) -> SocketAddr {
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

    /// Waits for its end, with exit code 0.
    pub async fn ended(mut self) {
        let mut said = Vec::new();
        let status = bounded("the end after SIGTERM", async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                said.push(line);
            }
            self.child.wait().await.unwrap()
        })
        .await;
        assert!(status.success(), "{status}: {said:?}");
    }

    /// Closes what it prints to.
    pub fn deafen(self) -> Deafened {
        Deafened(self.child)
    }

    /// SIGKILL, and nothing is left of it when this returns.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub async fn get(&self, path: &str) -> Reading {
        Reading::open(self.addr, path).await
    }

    /// Lines of an answer that ends.
    pub async fn get_lines(&self, path: &str) -> Vec<String> {
        let mut reading = self.get(path).await;
        let mut lines = Vec::new();
        while let Some(line) = reading.line().await {
            lines.push(line);
        }
        lines
    }
}

/// Starts a `tributary …` without waiting for a word of it.
pub fn start(args: &[&str], env: &[(&str, &str)]) -> Deafened {
    let mut command = command(args, env);
    Deafened(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// A `tributary …` that prints, and is read line by line.
pub struct Printing {
    pub child: Child,
    pub stdout: Lines<BufReader<ChildStdout>>,
}

/// Starts a `tributary …` for what it prints.
pub fn printing(args: &[&str], env: &[(&str, &str)]) -> Printing {
    let mut child = command(args, env).stderr(Stdio::inherit()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    Printing { child, stdout }
}

impl Printing {
    pub async fn line(&mut self) -> String {
        bounded("a line", self.stdout.next_line())
            .await
            .unwrap()
            .expect("more lines")
    }

    /// Ctrl-C: it ends quietly.
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

/// An address that stays while what stands behind it comes and goes.
pub struct Front {
    pub addr: SocketAddr,
    behind: tokio::sync::watch::Sender<Option<SocketAddr>>,
}

impl Front {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (behind, now) = tokio::sync::watch::channel(None);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let now = *now.borrow();
                tokio::spawn(async move {
                    let Some(addr) = now else { return };
                    let Ok(mut server) = tokio::net::TcpStream::connect(addr).await else {
                        return;
                    };
                    // Either side's end is the other's.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { addr, behind }
    }

    /// What connects from now on gets there.
    pub fn lead_to(&self, addr: SocketAddr) {
        self.behind.send_replace(Some(addr));
    }
}

/// What ends TLS and hands on what is inside.
pub async fn tls_in_front_of(addr: SocketAddr, identity: &rcgen::CertifiedKey<rcgen::KeyPair>) -> SocketAddr {
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
    let front = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not believe us goes.
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                let mut server = tokio::net::TcpStream::connect(addr).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    front
}

/// A `tributary …` to whom nobody listens.
pub struct Deafened(Child);

impl Deafened {
    /// SIGTERM: exit code 0 all the same.
    pub async fn end(mut self) {
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

/// Runs a `tributary …` that ends.
pub async fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    bounded("the end", command(args, env).output()).await.unwrap()
}

/// A `tributary …`, killed when dropped.
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

/// An answer, line by line.
pub struct Reading {
    body: Incoming,
    status: u16,
    rest: Vec<u8>,
    at: usize,
}

impl Reading {
    pub async fn open(addr: SocketAddr, path: &str) -> Self {
        let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let uri = format!("http://{addr}{path}").parse().unwrap();
        let response = bounded("an answer", client.get(uri)).await.unwrap();
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

    /// What is left of it, to its end.
    pub async fn rest(self) -> String {
        let body = bounded("the rest", self.body.collect()).await.expect("a proper end");
        let rest = [&self.rest[self.at..], &body.to_bytes()].concat();
        String::from_utf8(rest).unwrap()
    }

    /// The next line, without its newline. `None` when the body has ended properly.
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
                    .extend_from_slice(frame.expect("a proper end").data_ref().unwrap()),
                None => {
                    assert!(self.rest.is_empty(), "whole lines only");
                    return None;
                }
            }
        }
    }
}

/// A line of the text layout, taken apart.
pub struct TextLine<'a> {
    pub time: &'a str,
    pub app: &'a str,
    pub process: &'a str,
    pub text: &'a str,
}

pub fn take_apart(line: &str) -> TextLine<'_> {
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
