//! Drains never connect to forbidden addresses, in any notation and after any name resolution.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

#[path = "../../tests/support/name_server.rs"]
mod name_server;
mod support;

use std::net::SocketAddr;

use name_server::name_server;
use registry::{AddressPolicy, Drain, DrainState, DrainUrl, Prober, Registry};
use sinks::{Config, DrainProber};
use support::{
    logplex::{LogplexReceiver, ScriptedResponse},
    receiver::Receiver,
    *,
};

/// URLs with forbidden addresses or unsupported schemes.
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
fn hostile_urls_are_refused_without_repeating_them() {
    for url in HOSTILE {
        let refused = DrainUrl::parse(url, &AddressPolicy::default());
        let error = refused
            .err()
            .unwrap_or_else(|| panic!("{url} was accepted"))
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// A name server that resolves every name to these addresses.
async fn resolver_with(answers: &'static [[u8; 4]]) -> SocketAddr {
    name_server(([127, 0, 0, 1], 0).into(), answers).await.unwrap()
}

/// Adds a drain with a host name.
async fn add_named(setup: &Setup, port: u16) -> Drain {
    setup.drain(&format!("syslog+tcp://logs.example.com:{port}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_resolves_to_forbidden_addresses_is_not_connected_to() {
    let (setup, receiver) = (Setup::open().await, Receiver::start().await);
    let drain = add_named(&setup, receiver.addr.port()).await;
    let sinks = setup.start(Config {
        addresses: AddressPolicy::default(),
        name_server: Some(resolver_with(&[[127, 0, 0, 1], [10, 0, 0, 1]]).await),
        ..config()
    });
    setup.print(&metadata("web-1"), 0, 10, 10).await;
    let report = setup
        .until_report(&drain, "failing", |report| report.state == DrainState::Failing)
        .await;
    assert!(report.last_error.unwrap().contains("public addresses only"));
    assert!(receiver.messages().is_empty());
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_allowed_addresses_of_a_name_are_tried() {
    let (setup, mut receiver) = (Setup::open().await, Receiver::start().await);
    add_named(&setup, receiver.addr.port()).await;
    // The first address is forbidden, the second refuses connections.
    let sinks = setup.start(Config {
        name_server: Some(resolver_with(&[[10, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 1]]).await),
        ..config()
    });
    setup.print(&metadata("web-1"), 0, 10, 10).await;
    receiver.until(10).await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let setup = Setup::open().await;
    let inner = LogplexReceiver::start([], ScriptedResponse::status(200)).await;
    let redirect = ScriptedResponse {
        headers: vec![("location", format!("http://{}/", inner.addr))],
        ..ScriptedResponse::status(307)
    };
    let mut outer = LogplexReceiver::start([], redirect).await;
    let drain = setup.drain(&outer.url()).await;
    let sinks = setup.start(config());
    setup.print(&metadata("web-1"), 0, 10, 10).await;
    outer.until_frames(1).await;
    setup
        .until_report(&drain, "dropped", |report| report.dropped == 10)
        .await;
    assert!(inner.frames.lock().is_empty());
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_reports_each_step_up_to_the_first_failure() {
    let (setup, mut receiver) = (Setup::open().await, Receiver::start().await);
    let probe = DrainProber::new(&config()).unwrap();
    let report = probe
        .probe(&setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await)
        .await;
    let steps: Vec<_> = report.steps.iter().map(|step| (step.step, step.ok)).collect();
    assert_eq!(
        steps,
        [("resolve", true), ("connect", true), ("send", true)],
        "{report:?}"
    );
    receiver.until_text("test message of drain").await;
    let sent = String::from_utf8(report.sent).unwrap();
    assert!(sent.contains("shop tributary - - - test message of drain"), "{sent}");

    let web = LogplexReceiver::start([ScriptedResponse::status(200)], ScriptedResponse::status(401)).await;
    let drain = setup.drain(&web.url()).await;
    assert!(probe.probe(&drain).await.steps.iter().all(|step| step.ok));
    let report = probe.probe(&drain).await;
    let last = report.steps.last().unwrap();
    assert_eq!(
        (last.step, last.ok, &*last.detail),
        ("send", false, "the receiver responded with HTTP 401")
    );

    let tls = setup.drain(&format!("syslog+tls://{}", web.addr)).await;
    let last = probe.probe(&tls).await.steps.pop().unwrap();
    assert_eq!((last.step, last.ok), ("tls", false), "{last:?}");

    let guarded = DrainProber::new(&Config::default()).unwrap();
    let last = guarded.probe(&tls).await.steps.pop().unwrap();
    assert!(
        last.step == "resolve" && last.detail.contains("public addresses only"),
        "{last:?}"
    );

    let unresolvable = add_named(&setup, 1).await;
    let empty = Config {
        name_server: Some(resolver_with(&[]).await),
        ..config()
    };
    let last = DrainProber::new(&empty)
        .unwrap()
        .probe(&unresolvable)
        .await
        .steps
        .pop()
        .unwrap();
    assert_eq!((last.step, last.ok), ("resolve", false), "{last:?}");
    assert!(setup.registry.drain_report(unresolvable.id).await.unwrap().is_none());
}
