//! Latency on Google's Pub/Sub emulator: of the first line of a tail, and of live lines compared
//! with a bare Pub/Sub client.
//!
//! `cargo bench -p streamer --bench pubsub [-- LINES_PER_SECOND SECONDS]`, by default 50 lines/s
//! for 20 s. The bare client uses the same client library, pulls from the same topic at the same
//! time with another subscription, and discards the messages; the difference is the latency that
//! the streamer adds. Everything but the emulator runs in one process.

#![allow(clippy::unwrap_used, reason = "a panic reports why the benchmark cannot run")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

#[path = "../../tests/support/emulator.rs"]
mod emulator;
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{AppName, Batch, Bus, Content, PubSub, PubSubSettings, StreamMetadata, Timestamp};
use emulator::Emulator;
use google_cloud_auth::credentials::anonymous;
use google_cloud_pubsub::client::{Subscriber, SubscriptionAdmin};
use support::{TestServer, metadata, millis_since, quantile, timestamp_of};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

const PROJECT: &str = "bench";

/// Number of apps whose first tail is measured.
const APPS: usize = 20;

/// Prefixes of lines that are measured, and of those that are not.
const MEASURED: &str = "measured";
const WARM: &str = "warm";

#[tokio::main]
async fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [rate, seconds] = [(0, 50), (1, 20)].map(|(at, default)| numbers.get(at).copied().unwrap_or(default));
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let mut settings = PubSubSettings::new(PROJECT, "bench");
    settings.emulator = Some(emulator.host().to_owned());
    let bus = Arc::new(PubSub::open(settings).await.unwrap());
    let served = TestServer::start(Arc::clone(&bus) as Arc<dyn Bus>).await;
    first_lines(&*bus, &served.addr).await;
    live_lines(&*bus, &served.addr, emulator.host(), rate, seconds).await;
    served.stop().await;
    bus.close().await;
    emulator.stop().await;
}

/// Measures the time from a request to the first line, for apps with lines and without a hub.
async fn first_lines(bus: &dyn Bus, addr: &str) {
    let mut millis = Vec::new();
    for number in 0..APPS {
        let metadata = metadata(&format!("first-{number}"));
        bus.create(&metadata.app).await.unwrap();
        for seq in 0..10 {
            publish(bus, &metadata, seq, MEASURED).await;
        }
        let started = Instant::now();
        let mut tail = Tail::open(addr, &metadata.app, 10).await;
        tail.stamp().await;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
    }
    print_quantiles(&format!("first line of the first tail of {APPS} apps"), &mut millis);
}

/// Measures the latency from publish to a bare client and to a tail.
async fn live_lines(bus: &dyn Bus, addr: &str, host: &str, rate: u64, seconds: u64) {
    let lines = rate * seconds;
    let metadata = metadata("live");
    bus.create(&metadata.app).await.unwrap();
    let bare = bare(host, &metadata.app, lines).await;
    let mut tail = Tail::open(addr, &metadata.app, 0).await;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
    // A hub waits before it starts a stream; let that pass before lines are measured.
    let (mut seq, mut received) = (0, 0);
    while received < 3 * rate {
        tokio::select! {
            _ = tick.tick() => {
                publish(bus, &metadata, seq, WARM).await;
                seq += 1;
            }
            _ = tail.stamp() => received += 1,
        }
    }
    let reader = tokio::spawn(async move {
        let mut latencies = Vec::new();
        while (latencies.len() as u64) < lines {
            let (stamp, is_measured) = tail.stamp().await;
            latencies.extend(is_measured.then(|| millis_since(stamp)));
        }
        latencies
    });
    for seq in seq..seq + lines {
        tick.tick().await;
        publish(bus, &metadata, seq, MEASURED).await;
    }
    let (mut of_tail, mut of_bare) = (reader.await.unwrap(), bare.await.unwrap());
    print_quantiles("publish to bare client", &mut of_bare);
    print_quantiles("publish to tail", &mut of_tail);
    let ratio = |q| quantile(&of_tail, q) / quantile(&of_bare, q);
    println!(
        "tail latency / bare client latency: p50 {:.2}, p99 {:.2}",
        ratio(0.5),
        ratio(0.99)
    );
}

/// Pulls and acknowledges messages until `lines` measured ones have arrived. Returns their
/// latencies.
async fn bare(host: &str, app: &AppName, lines: u64) -> JoinHandle<Vec<f64>> {
    let (endpoint, credentials) = (format!("http://{host}"), anonymous::Builder::new().build());
    let admin = SubscriptionAdmin::builder()
        .with_endpoint(&endpoint)
        .with_credentials(credentials.clone());
    let name = format!("projects/{PROJECT}/subscriptions/bare");
    let admin = admin.build().await.unwrap();
    let create = admin.create_subscription().set_name(&name);
    let create = create.set_topic(format!("projects/{PROJECT}/topics/tributary-app-{app}"));
    create.send().await.unwrap();
    let subscriber = Subscriber::builder()
        .with_endpoint(&endpoint)
        .with_credentials(credentials);
    let subscriber = subscriber.build().await.unwrap();
    tokio::spawn(async move {
        let mut messages = subscriber.subscribe(&name).build();
        let mut latencies = Vec::new();
        while (latencies.len() as u64) < lines {
            let (message, handler) = messages.next().await.unwrap().unwrap();
            let line = std::str::from_utf8(&message.data).unwrap();
            let (stamp, text) = line.split_once(' ').unwrap();
            if text.starts_with(MEASURED) {
                latencies.push(millis_since(Timestamp::parse(stamp).unwrap()));
            }
            handler.ack();
        }
        latencies
    })
}

async fn publish(bus: &dyn Bus, metadata: &Arc<StreamMetadata>, seq: u64, text: &str) {
    let content = Content::Lines {
        data: format!("{} {text} {seq:0>80}\n", Timestamp::now()).into(),
        lines: 1,
        part: None,
    };
    let metadata = Arc::clone(metadata);
    bus.publish(Batch { metadata, seq, content }).await.unwrap();
}

/// A plain HTTP client that tails an app.
struct Tail {
    connection: TcpStream,
    read: Vec<u8>,
}

impl Tail {
    async fn open(addr: &str, app: &AppName, num_lines: usize) -> Self {
        let mut connection = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET /api/apps/{app}/logs?num_lines={num_lines} HTTP/1.1\r\nhost: bench\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        Self {
            connection,
            read: Vec::new(),
        }
    }

    /// Returns the timestamp of the next line and whether the line is measured.
    ///
    /// *Cancel safety*: dropping the call loses nothing.
    async fn stamp(&mut self) -> (Timestamp, bool) {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.read) {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                if let Some(timestamp) = timestamp_of(&line) {
                    let is_measured = memchr::memmem::find(&line, MEASURED.as_bytes()).is_some();
                    return (timestamp, is_measured);
                }
            }
            let count = self.connection.read_buf(&mut self.read).await.unwrap();
            assert!(count > 0, "the stream ended");
        }
    }
}

fn print_quantiles(name: &str, millis: &mut [f64]) {
    millis.sort_by(f64::total_cmp);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| quantile(millis, q));
    println!("{name}: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
}
