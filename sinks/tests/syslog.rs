//! Syslog drains: every line arrives, in order, whatever happens to receiver, connection or sinks.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

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
async fn lines_of_several_containers_arrive_whole_and_in_order() {
    let (house, mut receiver) = (House::open().await, Receiver::start().await);
    let drain = house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = house.start(config());
    let (web, worker) = (metadata("web-1"), metadata("worker-1"));
    tokio::join!(house.print(&web, 0, 20_000, 100), house.print(&worker, 0, 500, 1));
    receiver.until(20_500).await;
    let taken = receiver.taken();
    assert_eq!(
        all_there(&taken, "web-1", 20_000) + all_there(&taken, "worker-1", 500),
        0
    );
    let first = &taken[0];
    assert_eq!((first.pri, &*first.host), (14, "shop"));
    assert!(first.time.len() == 27 && first.time.ends_with('Z'), "{first:?}");
    let report = house
        .until_report(&drain, "connected", |report| report.state == DrainState::Connected)
        .await;
    assert!(report.connected_since.is_some() && report.last_error.is_none());
    sinks.stop().await;
    // Ended in good order: all of it is acknowledged, and nothing comes again.
    let again = house.start(config());
    house.print(&web, 20_000, 20_001, 1).await;
    receiver.until_text("line 20000").await;
    assert_eq!(receiver.taken().len(), 20_501);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_receiver_left_unread_is_sent_again() {
    let (house, mut receiver) = (House::open().await, Receiver::start().await);
    let drain = house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = house.start(config());
    let web = metadata("web-1");
    let mut printed = 0;
    for round in 0..5 {
        house.print(&web, printed, printed + 1000, 10).await;
        printed += 1000;
        receiver.until_text(&format!("line {}", printed - 1)).await;
        // What is printed now its kernel takes, and nobody reads.
        receiver.set(Mode::Deaf);
        house.print(&web, printed, printed + 1000, 10).await;
        printed += 1000;
        house
            .until_report(&drain, "all of it written", |report| report.lag_lines == 0)
            .await;
        receiver.die().await;
        receiver.set(Mode::Read);
        receiver.until_text(&format!("line {}", printed - 1)).await;
        assert!(receiver.taken().len() as u64 >= printed, "round {round}");
    }
    let again = all_there_any_order_of_repeats(&receiver.taken(), printed);
    let report = house
        .until_report(&drain, "repeats counted", |report| report.resent > 0)
        .await;
    assert!(again > 0 && report.resent >= again, "{again} came again, {report:?}");
    assert_eq!(report.dropped, 0);
    sinks.stop().await;
}

/// Every line came, and a line that comes again begins a run that goes on to where it was.
fn all_there_any_order_of_repeats(messages: &[Message], count: u64) -> u64 {
    let mut seen = vec![false; usize::try_from(count).unwrap()];
    let mut again = 0;
    let mut last: Option<usize> = None;
    for message in messages.iter().filter(|message| message.app_name == "web-1") {
        let seq: usize = message.text.strip_prefix("line ").unwrap().parse().unwrap();
        let follows = last.is_none_or(|last| seq == last + 1);
        assert!(
            follows || seen[seq],
            "{seq} behind {last:?}: order is kept, but for what is sent again"
        );
        again += u64::from(std::mem::replace(&mut seen[seq], true));
        last = Some(seq);
    }
    assert!(seen.iter().all(|seen| *seen), "none is lost");
    again
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_are_killed_again_and_again_lose_nothing() {
    let (house, mut receiver) = (House::open().await, Receiver::start().await);
    house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let web = metadata("web-1");
    for round in 0..5 {
        // Whoever is killed gives no lease back: the same one comes again.
        let config = Config {
            holder: "sinks-0".to_owned(),
            ..config()
        };
        let sinks = house.start(config);
        house.print(&web, round * 2000, round * 2000 + 2000, 10).await;
        receiver.until_text(&format!("line {}", round * 2000 + 1000)).await;
        sinks.kill().await;
    }
    let sinks = house.start(Config {
        holder: "sinks-0".to_owned(),
        ..config()
    });
    receiver.until_text("line 9999").await;
    all_there_any_order_of_repeats(&receiver.taken(), 10_000);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_reads_holds_up_nobody_else_and_holds_no_more_than_its_window() {
    let (house, deaf) = (House::open().await, Receiver::start().await);
    deaf.set(Mode::Deaf);
    let blocked = house.drain(&format!("syslog+tcp://{}", deaf.addr)).await;
    let mut healthy = Vec::new();
    for _ in 0..50 {
        let receiver = Receiver::start().await;
        house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
        healthy.push(receiver);
    }
    let sinks = house.start(config());
    // More than kernels hold for who does not read.
    let (web, count, padding) = (metadata("web-1"), 20_000, "x".repeat(500));
    for seq in (0..count).step_by(1000) {
        let lines: Vec<String> = (seq..seq + 1000).map(|n| format!("line {n} {padding}")).collect();
        house.bus.publish(batch(&web, seq, &lines)).await.unwrap();
    }
    let all = usize::try_from(count).unwrap();
    for receiver in &mut healthy {
        receiver.until(all).await;
        assert_eq!(all_there(&receiver.taken(), "web-1", count), 0);
    }
    let report = house.registry.report_of(blocked.id).await.unwrap().unwrap();
    assert!(report.lag_lines < count && report.delivered == 0, "{report:?}");
    deaf.set(Mode::Read);
    let mut deaf = deaf;
    deaf.until(all).await;
    assert_eq!(house.registry.report_of(blocked.id).await.unwrap().unwrap().dropped, 0);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_hold_a_message_each_and_a_long_line_becomes_several() {
    let house = House::open().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let drain = house.drain(&format!("syslog://{}", socket.local_addr().unwrap())).await;
    let sinks = house.start(config());
    let long = "x".repeat(3000);
    house
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
    house
        .until_report(&drain, "counted", |report| report.delivered == 2)
        .await;
    sinks.stop().await;
}

/// An authority, and where its certificate is.
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

/// A certificate of this authority for `localhost`, or for another name.
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
async fn a_certificate_that_is_wrong_is_told_in_the_apps_log_and_lines_wait_until_it_is_right() {
    let house = House::open().await;
    let (_dir, ca, authority) = authority();
    let config = Config {
        ca: Some(ca),
        ..config()
    };
    let wrong = Receiver::start_with(Some(acceptor(&authority, "elsewhere.example"))).await;
    let drain = house
        .drain(&format!("syslog+tls://127.0.0.1:{}", wrong.addr.port()))
        .await;
    let mut unverified = Receiver::start_with(Some(acceptor(&authority, "elsewhere.example"))).await;
    house
        .drain(&format!("syslog+tls://127.0.0.1:{}?verify=off", unverified.addr.port()))
        .await;
    let mut right = Receiver::start_with(Some(acceptor(&authority, "127.0.0.1"))).await;
    house
        .drain(&format!("syslog+tls://127.0.0.1:{}", right.addr.port()))
        .await;
    let sinks = house.start(config);
    house.print(&metadata("web-1"), 0, 1000, 10).await;
    let report = house
        .until_report(&drain, "failing", |report| report.state == DrainState::Failing)
        .await;
    assert!(report.last_error.as_ref().unwrap().starts_with("TLS: "), "{report:?}");
    assert_eq!(report.delivered + report.dropped, 0);
    // Told to the app: its other drains have it, this one never.
    right.until_text("Error L14 (certificate validation)").await;
    unverified.until_text("Error L14 (certificate validation)").await;
    let lines: Vec<Message> = right
        .taken()
        .into_iter()
        .filter(|message| message.app_name == "web-1")
        .collect();
    assert_eq!(all_there(&lines, "web-1", 1000), 0);
    assert!(wrong.taken().is_empty(), "nothing was said to who is not known");
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_swapped_for_a_bad_one_and_back_costs_no_line() {
    let house = House::open().await;
    let (_dir, ca, authority) = authority();
    let (good, bad) = (
        acceptor(&authority, "127.0.0.1"),
        acceptor(&authority, "elsewhere.example"),
    );
    let mut receiver = Receiver::start_with(Some(good.clone())).await;
    let drain = house.drain(&format!("syslog+tls://{}", receiver.addr)).await;
    let sinks = house.start(Config {
        ca: Some(ca),
        ..config()
    });
    let web = metadata("web-1");
    for round in 0..3 {
        house.print(&web, round * 1000, round * 1000 + 500, 10).await;
        receiver.until_text(&format!("line {}", round * 1000 + 499)).await;
        receiver.show(bad.clone());
        receiver.die().await;
        receiver.set(Mode::Read);
        house.print(&web, round * 1000 + 500, round * 1000 + 1000, 10).await;
        let refused = |report: &registry::DrainReport| {
            report
                .last_error
                .as_ref()
                .is_some_and(|error| error.starts_with("TLS: "))
        };
        house.until_report(&drain, "refused", refused).await;
        receiver.show(good.clone());
        receiver.until_text(&format!("line {}", round * 1000 + 999)).await;
    }
    let taken = receiver.taken();
    let again = all_there_any_order_of_repeats(&taken, 3000);
    let report = house
        .until_report(&drain, "counted", |report| report.resent >= again)
        .await;
    assert_eq!(report.dropped, 0);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_removed_ends_and_its_subscription_with_it() {
    let (house, mut receiver) = (House::open().await, Receiver::start().await);
    let drain = house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = house.start(config());
    house.print(&metadata("web-1"), 0, 10, 10).await;
    receiver.until(10).await;
    assert_eq!(house.bus.apps_with_subscriptions().await.unwrap().len(), 1);
    house.registry.remove_drain("shop", drain.id).await.unwrap();
    let gone = async {
        while !house.bus.apps_with_subscriptions().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    bounded("the subscription's end", gone).await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_drains_and_each_has_one_reader() {
    let house = House::open().await;
    let mut receivers = Vec::new();
    for _ in 0..6 {
        let receiver = Receiver::start().await;
        house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
        receivers.push(receiver);
    }
    let [one, two] = [0, 1].map(|index| {
        house.start(Config {
            replica: replica(index, 2),
            ..config()
        })
    });
    let web = metadata("web-1");
    house.print(&web, 0, 1000, 10).await;
    for receiver in &mut receivers {
        receiver.until(1000).await;
    }
    // One goes, and what was its own is the other's.
    two.stop().await;
    one.stop().await;
    let alone = house.start(config());
    house.print(&web, 1000, 2000, 10).await;
    for receiver in &mut receivers {
        receiver.until(2000).await;
        assert_eq!(
            all_there(&receiver.taken(), "web-1", 2000),
            0,
            "each line once, no false gap"
        );
        assert_eq!(receiver.taken().len(), 2000);
    }
    alone.stop().await;
}
