//! TLS, and timeouts of slow clients.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use streamer::{Config, Tls};
use support::*;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A certificate for `localhost` in files.
struct Identity {
    dir: TempDir,
    roots: RootCertStore,
}

impl Identity {
    fn new() -> Self {
        let mut identity = Self {
            dir: TempDir::new().unwrap(),
            roots: RootCertStore::empty(),
        };
        identity.renew();
        identity
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces both files; the old certificate stays trusted.
    fn renew(&mut self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        self.roots.add(made.cert.der().clone()).unwrap();
        replace(&self.path("key.pem"), &made.signing_key.serialize_pem());
        replace(&self.path("cert.pem"), &made.cert.pem());
    }

    fn tls(&self) -> Tls {
        Tls::open(self.path("cert.pem"), self.path("key.pem")).unwrap()
    }
}

fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, work).await.expect("in time")
}

/// Opens a TLS connection that offers one protocol.
async fn connect(stack: &Stack, roots: &RootCertStore, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(stack.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    bounded(connector.connect(name, stream)).await.unwrap()
}

/// Returns the version, HSTS header and body of a response.
async fn get(stack: &Stack, roots: &RootCertStore, protocol: &[u8], path: &str) -> (Version, String, String) {
    let io = TokioIo::new(connect(stack, roots, protocol).await);
    let request = |uri: String| {
        Request::get(uri)
            .header("host", "localhost")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let exchange = async {
        let response = if protocol == b"h2" {
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
            tokio::spawn(connection);
            sender
                .send_request(request(format!("https://localhost{path}")))
                .await
                .unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request(path.to_owned())).await.unwrap()
        };
        assert_eq!(response.status(), 200);
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let hsts = parts.headers["strict-transport-security"].to_str().unwrap().to_owned();
        (parts.version, hsts, String::from_utf8(body.to_vec()).unwrap())
    };
    bounded(exchange).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_serves_http_1_and_http_2() {
    let identity = Identity::new();
    let stack = Stack::with_tls(Config::default(), identity.tls()).await;
    stack.publish([lines(&stream("web", Duration::ZERO), 0, 3)]).await;
    for (protocol, version) in [(&b"http/1.1"[..], Version::HTTP_11), (b"h2", Version::HTTP_2)] {
        let (negotiated, hsts, body) = get(&stack, &identity.roots, protocol, "/api/apps/shop/logs?follow=False").await;
        assert_eq!(negotiated, version);
        assert!(hsts.starts_with("max-age="));
        assert_eq!(body.lines().count(), 3);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_certificate_is_reloaded_without_failed_requests() {
    let mut identity = Identity::new();
    let stack = Stack::with_tls(Config::default(), identity.tls()).await;
    let current = async |identity: &Identity| {
        let (version, _, body) = get(&stack, &identity.roots, b"http/1.1", "/healthz").await;
        assert_eq!((version, &*body), (Version::HTTP_11, "ok\n"));
        let stream = connect(&stack, &identity.roots, b"http/1.1").await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = current(&identity).await;
    // An incomplete renewal keeps the previous certificate.
    replace(&identity.path("cert.pem"), "no certificate");
    for _ in 0..20 {
        assert_eq!(current(&identity).await, before);
    }
    // Trust both certificates; replace the files while eight clients send requests and a tail is
    // open.
    let next = Identity::new();
    identity.roots.extend(next.roots.roots.iter().cloned());
    let roots = &identity.roots;
    stack.publish([lines(&stream("web", Duration::ZERO), 0, 1)]).await;
    let mut open = TokioIo::new(connect(&stack, roots, b"http/1.1").await).into_inner();
    let request = b"GET /api/apps/shop/logs HTTP/1.1\r\nhost: localhost\r\n\r\n";
    bounded(open.write_all(request)).await.unwrap();
    let stop = std::cell::Cell::new(false);
    let clients = (0..8).map(async |n| {
        let protocol: &[u8] = if n % 2 == 0 { b"h2" } else { b"http/1.1" };
        let mut requests = 0;
        while !stop.get() {
            assert_eq!(get(&stack, roots, protocol, "/healthz").await.2, "ok\n");
            requests += 1;
        }
        requests
    });
    let swap = async {
        for name in ["key.pem", "cert.pem"] {
            std::fs::copy(next.path(name), next.path("copy")).unwrap();
            std::fs::rename(next.path("copy"), identity.path(name)).unwrap();
        }
        while current(&identity).await == before {}
        stop.set(true);
    };
    let (requests, ()) = bounded(async { tokio::join!(futures::future::join_all(clients), swap) }).await;
    assert!(requests.iter().all(|count| *count > 1), "{requests:?}");
    stack.publish([lines(&stream("web", Duration::ZERO), 1, 2)]).await;
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("[web]: 1\n") {
        let mut piece = [0; 4096];
        let count = bounded(open.read(&mut piece)).await.unwrap();
        assert_ne!(count, 0, "the tail continues with its certificate");
        read.extend_from_slice(&piece[..count]);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_match_the_certificate_is_refused() {
    let (one, other) = (Identity::new(), Identity::new());
    let error = |certificate, key| Tls::open(certificate, key).err().unwrap().to_string();
    let message = error(one.path("cert.pem"), other.path("key.pem"));
    assert!(message.contains("cannot be used together"), "{message}");
    let message = error(one.path("cert.pem"), one.path("none.pem"));
    assert!(message.contains("none.pem: no such file"), "{message}");
    let message = error(one.path("key.pem"), one.path("key.pem"));
    assert!(
        message.contains("contains no PEM section of the expected kind"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_head_and_a_plain_request_to_tls_are_refused() {
    let identity = Identity::new();
    let (plain, tls) = (
        Stack::start(Config::default()).await,
        Stack::with_tls(Config::default(), identity.tls()).await,
    );
    let long = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
        "x".repeat(200_000)
    );
    for (stack, request, expected) in [
        (&plain, &*long, "HTTP/1.1 431"),
        (&tls, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", ""),
    ] {
        let mut client = TcpStream::connect(stack.addr).await.unwrap();
        let (mut read, mut write) = client.split();
        let mut response = Vec::new();
        // Either side may close the connection first.
        let _ = tokio::join!(
            write.write_all(request.as_bytes()),
            bounded(read.read_to_end(&mut response))
        );
        let response = String::from_utf8_lossy(&response);
        assert!(
            response.starts_with(expected) && !response.contains(" 200 "),
            "{response:?}"
        );
    }
    plain.stop().await;
    tls.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_head_or_handshake_is_disconnected() {
    let config = Config {
        header_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    let identity = Identity::new();
    let (plain, tls) = (
        Stack::start(config).await,
        Stack::with_tls(config, identity.tls()).await,
    );
    for (stack, start) in [
        (&plain, &b""[..]),
        (&plain, b"GET /healthz HTTP/1.1\r\nhost:"),
        (&tls, b""),
        (&tls, b"\x16\x03\x01"),
    ] {
        let mut client = TcpStream::connect(stack.addr).await.unwrap();
        client.write_all(start).await.unwrap();
        let mut response = Vec::new();
        bounded(client.read_to_end(&mut response)).await.unwrap();
        assert!(!String::from_utf8_lossy(&response).contains(" 200 "));
    }
    // Also between two requests.
    let mut client = TcpStream::connect(plain.addr).await.unwrap();
    client
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut response = Vec::new();
    bounded(client.read_to_end(&mut response)).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200"));
    // The timeout does not apply to responses.
    plain.publish([lines(&stream("web", Duration::ZERO), 0, 1)]).await;
    let mut tail = plain.get("/api/apps/shop/logs").await;
    assert!(tail.line().await.is_some());
    tokio::time::sleep(config.header_timeout * 3).await;
    plain.publish([lines(&stream("web", Duration::ZERO), 0, 1)]).await;
    assert!(tail.line().await.is_some(), "the tail continues");
    plain.stop().await;
    tls.stop().await;
}
