//! Syslog drains: every line arrives in order across failures of receiver, connection and sinks.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{sync::Arc, time::Duration};

use bus::Bus;
use registry::{DrainState, Registry};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use sinks::Config;
use support::{
    receiver::{Message, Mode, Receiver},
    *,
};
use tokio::net::UdpSocket;
use tokio_rustls::TlsAcceptor;

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_several_containers_arrive_complete_and_in_order() {
    let (setup, mut receiver) = (Setup::open().await, Receiver::start().await);
    let drain = setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = setup.start(config());
    let (web, worker) = (metadata("web-1"), metadata("worker-1"));
    tokio::join!(setup.print(&web, 0, 20_000, 100), setup.print(&worker, 0, 500, 1));
    receiver.until(20_500).await;
    let messages = receiver.messages();
    assert_eq!(
        count_repeated(&messages, "web-1", 20_000) + count_repeated(&messages, "worker-1", 500),
        0
    );
    let first = &messages[0];
    assert_eq!((first.pri, &*first.host), (14, "shop"));
    assert!(first.time.len() == 27 && first.time.ends_with('Z'), "{first:?}");
    let report = setup
        .until_report(&drain, "connected", |report| report.state == DrainState::Connected)
        .await;
    assert!(report.connected_since.is_some() && report.last_error.is_none());
    sinks.stop().await;
    // After a graceful shutdown everything is confirmed and nothing is resent.
    let restarted = setup.start(config());
    setup.print(&web, 20_000, 20_001, 1).await;
    receiver.until_text("line 20000").await;
    assert_eq!(receiver.messages().len(), 20_501);
    restarted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_a_killed_receiver_did_not_read_are_resent() {
    let (setup, mut receiver) = (Setup::open().await, Receiver::start().await);
    let drain = setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = setup.start(config());
    let web = metadata("web-1");
    let mut printed = 0;
    for round in 0..5 {
        setup.print(&web, printed, printed + 1000, 10).await;
        printed += 1000;
        receiver.until_text(&format!("line {}", printed - 1)).await;
        // The receiver's kernel buffers the next lines, and the receiver does not read them.
        receiver.set(Mode::Blocked);
        setup.print(&web, printed, printed + 1000, 10).await;
        printed += 1000;
        setup
            .until_report(&drain, "all lines written", |report| report.lag_lines == 0)
            .await;
        receiver.take_down().await;
        receiver.set(Mode::Read);
        receiver.until_text(&format!("line {}", printed - 1)).await;
        assert!(receiver.messages().len() as u64 >= printed, "round {round}");
    }
    let repeated = count_repeated_runs(&receiver.messages(), printed);
    let report = setup
        .until_report(&drain, "repeats counted", |report| report.resent > 0)
        .await;
    assert!(
        repeated > 0 && report.resent >= repeated,
        "{repeated} repeated, {report:?}"
    );
    assert_eq!(report.dropped, 0);
    sinks.stop().await;
}

/// Checks that every line arrived, in order except for runs of resent lines. Returns the number of
/// repeated lines.
fn count_repeated_runs(messages: &[Message], count: u64) -> u64 {
    let mut seen = vec![false; usize::try_from(count).unwrap()];
    let mut repeated = 0;
    let mut last: Option<usize> = None;
    for message in messages.iter().filter(|message| message.app_name == "web-1") {
        let seq: usize = message.text.strip_prefix("line ").unwrap().parse().unwrap();
        let follows = last.is_none_or(|last| seq == last + 1);
        assert!(
            follows || seen[seq],
            "{seq} after {last:?}: only resent lines are out of order"
        );
        repeated += u64::from(std::mem::replace(&mut seen[seq], true));
        last = Some(seq);
    }
    assert!(seen.iter().all(|seen| *seen), "no line is lost");
    repeated
}

#[tokio::test(flavor = "multi_thread")]
async fn repeatedly_killed_sinks_lose_no_line() {
    let (setup, mut receiver) = (Setup::open().await, Receiver::start().await);
    setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let web = metadata("web-1");
    for round in 0..5 {
        // A killed process does not release its lease; the next one uses the same name.
        let config = Config {
            holder: "sinks-0".to_owned(),
            ..config()
        };
        let sinks = setup.start(config);
        setup.print(&web, round * 2000, round * 2000 + 2000, 10).await;
        receiver.until_text(&format!("line {}", round * 2000 + 1000)).await;
        sinks.kill().await;
    }
    let sinks = setup.start(Config {
        holder: "sinks-0".to_owned(),
        ..config()
    });
    receiver.until_text("line 9999").await;
    count_repeated_runs(&receiver.messages(), 10_000);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_receiver_delays_no_other_drain_and_buffers_no_more_than_its_limit() {
    let (setup, blocked) = (Setup::open().await, Receiver::start().await);
    blocked.set(Mode::Blocked);
    let blocked_drain = setup.drain(&format!("syslog+tcp://{}", blocked.addr)).await;
    let mut healthy = Vec::new();
    for _ in 0..50 {
        let receiver = Receiver::start().await;
        setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
        healthy.push(receiver);
    }
    let sinks = setup.start(config());
    // More than kernels buffer for a blocked receiver.
    let (web, count, padding) = (metadata("web-1"), 20_000, "x".repeat(500));
    for seq in (0..count).step_by(1000) {
        let lines: Vec<String> = (seq..seq + 1000).map(|n| format!("line {n} {padding}")).collect();
        setup.bus.publish(batch(&web, seq, &lines)).await.unwrap();
    }
    let all = usize::try_from(count).unwrap();
    for receiver in &mut healthy {
        receiver.until(all).await;
        assert_eq!(count_repeated(&receiver.messages(), "web-1", count), 0);
    }
    let report = setup.registry.drain_report(blocked_drain.id).await.unwrap().unwrap();
    assert!(report.lag_lines < count && report.delivered == 0, "{report:?}");
    blocked.set(Mode::Read);
    let mut blocked = blocked;
    blocked.until(all).await;
    assert_eq!(
        setup
            .registry
            .drain_report(blocked_drain.id)
            .await
            .unwrap()
            .unwrap()
            .dropped,
        0
    );
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_datagram_contains_one_message_and_long_lines_are_split() {
    let setup = Setup::open().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let drain = setup.drain(&format!("syslog://{}", socket.local_addr().unwrap())).await;
    let sinks = setup.start(config());
    let long = "x".repeat(3000);
    setup
        .bus
        .publish(batch(&metadata("web-1"), 0, &["short".to_owned(), long.clone()]))
        .await
        .unwrap();
    let mut texts = Vec::new();
    while texts.iter().map(String::len).sum::<usize>() < 3005 {
        let mut datagram = [0; 2048];
        let len = bounded("a datagram", socket.recv(&mut datagram)).await.unwrap();
        assert!(len <= 1024);
        texts.push(Message::parse(std::str::from_utf8(&datagram[..len]).unwrap()).text);
    }
    assert_eq!((texts[0].as_str(), texts[1..].concat()), ("short", long));
    setup
        .until_report(&drain, "counted", |report| report.delivered == 2)
        .await;
    sinks.stop().await;
}

/// A certificate authority, and the file of its certificate.
fn authority() -> (
    tempfile::TempDir,
    std::path::PathBuf,
    rcgen::Issuer<'static, rcgen::KeyPair>,
) {
    let dir = tempfile::tempdir().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
    (dir, ca, rcgen::Issuer::new(params, key))
}

/// An acceptor with a certificate of this authority for a name.
fn acceptor(authority: &rcgen::Issuer<'_, rcgen::KeyPair>, name: &str) -> TlsAcceptor {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new([name.to_owned()])
        .unwrap()
        .signed_by(&key, authority)
        .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_certificate_is_reported_to_the_app_and_nothing_is_sent() {
    let setup = Setup::open().await;
    let (_dir, ca, authority) = authority();
    let config = Config {
        ca: Some(ca),
        ..config()
    };
    let wrong = Receiver::start_with(Some(acceptor(&authority, "elsewhere.example"))).await;
    let drain = setup
        .drain(&format!("syslog+tls://127.0.0.1:{}", wrong.addr.port()))
        .await;
    let mut unverified = Receiver::start_with(Some(acceptor(&authority, "elsewhere.example"))).await;
    setup
        .drain(&format!("syslog+tls://127.0.0.1:{}?verify=off", unverified.addr.port()))
        .await;
    let mut right = Receiver::start_with(Some(acceptor(&authority, "127.0.0.1"))).await;
    setup
        .drain(&format!("syslog+tls://127.0.0.1:{}", right.addr.port()))
        .await;
    let sinks = setup.start(config);
    setup.print(&metadata("web-1"), 0, 1000, 10).await;
    let report = setup
        .until_report(&drain, "failing", |report| report.state == DrainState::Failing)
        .await;
    assert!(
        report
            .last_error
            .as_ref()
            .unwrap()
            .starts_with("TLS handshake failed: "),
        "{report:?}"
    );
    assert_eq!(report.delivered + report.dropped, 0);
    // The notice arrives in the app's other drains, not in this one.
    right.until_text("Error L14 (certificate validation)").await;
    // The notice can be published before the last lines.
    right.until_text("line 999").await;
    unverified.until_text("Error L14 (certificate validation)").await;
    let lines: Vec<Message> = right
        .messages()
        .into_iter()
        .filter(|message| message.app_name == "web-1")
        .collect();
    assert_eq!(count_repeated(&lines, "web-1", 1000), 0);
    assert!(
        wrong.messages().is_empty(),
        "nothing is sent before the certificate is verified"
    );
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporarily_invalid_certificate_loses_no_line() {
    let setup = Setup::open().await;
    let (_dir, ca, authority) = authority();
    let (good, bad) = (
        acceptor(&authority, "127.0.0.1"),
        acceptor(&authority, "elsewhere.example"),
    );
    let mut receiver = Receiver::start_with(Some(good.clone())).await;
    let drain = setup.drain(&format!("syslog+tls://{}", receiver.addr)).await;
    let sinks = setup.start(Config {
        ca: Some(ca),
        ..config()
    });
    let web = metadata("web-1");
    for round in 0..3 {
        setup.print(&web, round * 1000, round * 1000 + 500, 10).await;
        receiver.until_text(&format!("line {}", round * 1000 + 499)).await;
        receiver.set_certificate(bad.clone());
        receiver.take_down().await;
        receiver.set(Mode::Read);
        setup.print(&web, round * 1000 + 500, round * 1000 + 1000, 10).await;
        let refused = |report: &registry::DrainReport| {
            report
                .last_error
                .as_ref()
                .is_some_and(|error| error.starts_with("TLS handshake failed: "))
        };
        setup.until_report(&drain, "refused", refused).await;
        receiver.set_certificate(good.clone());
        receiver.until_text(&format!("line {}", round * 1000 + 999)).await;
    }
    let messages = receiver.messages();
    let repeated = count_repeated_runs(&messages, 3000);
    let report = setup
        .until_report(&drain, "counted", |report| report.resent >= repeated)
        .await;
    assert_eq!(report.dropped, 0);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_drain_deletes_its_subscription() {
    let (setup, mut receiver) = (Setup::open().await, Receiver::start().await);
    let drain = setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = setup.start(config());
    setup.print(&metadata("web-1"), 0, 10, 10).await;
    receiver.until(10).await;
    assert_eq!(setup.bus.apps_with_subscriptions().await.unwrap().len(), 1);
    setup.registry.remove_drain("shop", drain.id).await.unwrap();
    let deleted = async {
        while !setup.bus.apps_with_subscriptions().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    bounded("deletion of the subscription", deleted).await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_the_drains() {
    let setup = Setup::open().await;
    let mut receivers = Vec::new();
    for _ in 0..6 {
        let receiver = Receiver::start().await;
        setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
        receivers.push(receiver);
    }
    let [one, two] = [0, 1].map(|index| {
        setup.start(Config {
            replica: replica(index, 2),
            ..config()
        })
    });
    let web = metadata("web-1");
    setup.print(&web, 0, 1000, 10).await;
    for receiver in &mut receivers {
        receiver.until(1000).await;
    }
    // A single process takes over all drains.
    two.stop().await;
    one.stop().await;
    let alone = setup.start(config());
    setup.print(&web, 1000, 2000, 10).await;
    for receiver in &mut receivers {
        receiver.until(2000).await;
        assert_eq!(count_repeated(&receiver.messages(), "web-1", 2000), 0, "each line once");
        assert_eq!(receiver.messages().len(), 2000);
    }
    alone.stop().await;
}

/// Accepts octet-counted messages of at most `max` bytes, and closes the connection at a longer one,
/// as syslog-ng does. Sends the messages to `received`.
async fn accept_short_messages(
    listener: tokio::net::TcpListener,
    max: usize,
    received: tokio::sync::mpsc::UnboundedSender<String>,
) {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
    while let Ok((stream, _)) = listener.accept().await {
        let received = received.clone();
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            loop {
                let mut digits = Vec::new();
                if stream.read_until(b' ', &mut digits).await.unwrap_or(0) == 0 {
                    return;
                }
                let len: usize = String::from_utf8_lossy(&digits).trim().parse().unwrap();
                if len > max {
                    return;
                }
                let mut message = vec![0; len];
                if stream.read_exact(&mut message).await.is_err() {
                    return;
                }
                let _ = received.send(String::from_utf8(message).unwrap());
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_closes_at_a_long_line_gets_it_in_smaller_messages() {
    let setup = Setup::open().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    setup
        .drain(&format!("syslog+tcp://{}", listener.local_addr().unwrap()))
        .await;
    let (received, mut messages) = tokio::sync::mpsc::unbounded_channel();
    let accepting = tokio::spawn(accept_short_messages(listener, 64 << 10, received));
    let sinks = setup.start(config());
    let web = metadata("web-1");
    let lines = ["line 0".to_owned(), "x".repeat(100_000), "line 2".to_owned()];
    bus::Bus::publish(&*setup.bus, batch(&web, 0, &lines)).await.unwrap();
    let mut parts = 0;
    loop {
        let message = bounded("a message", messages.recv()).await.unwrap();
        parts += message.matches('x').count();
        if message.ends_with("line 2") {
            break;
        }
    }
    assert_eq!(parts, 100_000, "every byte of the line arrives");
    sinks.stop().await;
    accepting.abort();
}
