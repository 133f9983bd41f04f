//! No drain leads into the operator's network, however it is spelt and whatever its name leads to.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

#[path = "../../tests/support/name_server.rs"]
mod name_server;
mod support;

use std::net::SocketAddr;

use name_server::name_server;
use registry::{Addresses, Drain, DrainState, DrainUrl, Prober, Registry};
use sinks::{Config, Probe};
use support::{
    receiver::Receiver,
    web::{Answer, Web},
    *,
};

/// URLs that lead where no drain may go, or nowhere.
const HOSTILE: [&str; 44] = [
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://localhost/",
    "https://LOCALHOST./",
    "https://a.localhost/",
    "https://127.0.0.1.:443/",
    "https://%31%32%37.0.0.1/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.0.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://192.0.0.1/",
    "https://198.18.0.1/",
    "https://user:hunter2@10.0.0.1/",
    "syslog://127.0.0.1:514",
    "syslog+tcp://0x7f.1:514",
    "syslog+tls://[::1]:6514",
    "syslog+tls://localhost:6514",
    "syslog+tcp://169.254.169.254:80",
    "file:///etc/passwd",
    "gopher://logs.example.com/",
    "ftp://logs.example.com/",
    "unix:///var/run/docker.sock",
    "https://",
    "javascript:alert(1)",
];

#[test]
fn hostile_urls_are_refused_when_they_are_added_and_no_word_of_them_is_said() {
    for url in HOSTILE {
        let refused = DrainUrl::parse(url, &Addresses::default());
        let error = refused.err().unwrap_or_else(|| panic!("{url} was taken")).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// A name server that says of every name that it is these addresses.
async fn named_as(answers: &'static [[u8; 4]]) -> SocketAddr {
    name_server(([127, 0, 0, 1], 0).into(), answers).await.unwrap()
}

/// A drain that was taken for a name.
async fn named(house: &House, port: u16) -> Drain {
    house.drain(&format!("syslog+tcp://logs.example.com:{port}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_into_the_operators_network_by_now_is_not_dialled() {
    let (house, receiver) = (House::open().await, Receiver::start().await);
    let drain = named(&house, receiver.addr.port()).await;
    let sinks = house.start(Config {
        addresses: Addresses::default(),
        name_server: Some(named_as(&[[127, 0, 0, 1], [10, 0, 0, 1]]).await),
        ..config()
    });
    house.print(&metadata("web-1"), 0, 10, 10).await;
    let report = house
        .until_report(&drain, "failing", |report| report.state == DrainState::Failing)
        .await;
    assert!(report.last_error.unwrap().contains("where drains may not go"));
    assert!(receiver.taken().is_empty());
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_names_addresses_those_that_may_be_dialled_are_tried_in_turn() {
    let (house, mut receiver) = (House::open().await, Receiver::start().await);
    named(&house, receiver.addr.port()).await;
    // The first is the operator's, at the second nobody listens.
    let sinks = house.start(Config {
        name_server: Some(named_as(&[[10, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 1]]).await),
        ..config()
    });
    house.print(&metadata("web-1"), 0, 10, 10).await;
    receiver.until(10).await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_into_the_operators_network_is_not_followed() {
    let house = House::open().await;
    let inner = Web::start([], Answer::of(200)).await;
    let leads = Answer {
        headers: vec![("location", format!("http://{}/", inner.addr))],
        ..Answer::of(307)
    };
    let mut outer = Web::start([], leads).await;
    let drain = house.drain(&outer.url()).await;
    let sinks = house.start(config());
    house.print(&metadata("web-1"), 0, 10, 10).await;
    outer.until_frames(1).await;
    house
        .until_report(&drain, "dropped", |report| report.dropped == 10)
        .await;
    assert!(inner.frames.lock().is_empty());
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_each_step_up_to_the_first_that_fails() {
    let (house, mut receiver) = (House::open().await, Receiver::start().await);
    let probe = Probe::new(&config()).unwrap();
    let report = probe
        .probe(&house.drain(&format!("syslog+tcp://{}", receiver.addr)).await)
        .await;
    let steps: Vec<_> = report.steps.iter().map(|step| (step.step, step.ok)).collect();
    assert_eq!(
        steps,
        [("resolve", true), ("connect", true), ("send", true)],
        "{report:?}"
    );
    receiver.until_text("a test of drain").await;
    let sent = String::from_utf8(report.sent).unwrap();
    assert!(sent.contains("shop tributary - - - a test of drain"), "{sent}");

    let web = Web::start([Answer::of(200)], Answer::of(401)).await;
    let drain = house.drain(&web.url()).await;
    assert!(probe.probe(&drain).await.steps.iter().all(|step| step.ok));
    let report = probe.probe(&drain).await;
    let last = report.steps.last().unwrap();
    assert_eq!((last.step, last.ok, &*last.detail), ("send", false, "it answers 401"));

    let tls = house.drain(&format!("syslog+tls://{}", web.addr)).await;
    let last = probe.probe(&tls).await.steps.pop().unwrap();
    assert_eq!((last.step, last.ok), ("tls", false), "{last:?}");

    let guarded = Probe::new(&Config::default()).unwrap();
    let last = guarded.probe(&tls).await.steps.pop().unwrap();
    assert!(
        last.step == "resolve" && last.detail.contains("drains may not go"),
        "{last:?}"
    );

    let nobody = named(&house, 1).await;
    let empty = Config {
        name_server: Some(named_as(&[]).await),
        ..config()
    };
    let last = Probe::new(&empty).unwrap().probe(&nobody).await.steps.pop().unwrap();
    assert_eq!((last.step, last.ok), ("resolve", false), "{last:?}");
    assert!(house.registry.report_of(nobody.id).await.unwrap().is_none());
}
