//! On Google's Pub/Sub emulator: how soon a first tail shows a line, and what the way from bus to client costs beside a bare client.
//!
//! `cargo bench -p streamer --bench pubsub [-- LINES_PER_SECOND SECONDS]`, by default 50 lines/s for 20 s. The bare client is the same crate's, pulls from the
//! same topic at the same time with a subscription of its own, and does nothing with what it gets: what the streamer's tail sees later than it is the streamer's.
//! All is one process but the emulator, on one machine.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say so")]

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
use support::{Served, at, metadata, printed_time, since};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

const PROJECT: &str = "bench";

/// Apps whose first tail is timed.
const APPS: usize = 20;

/// What lines begin with that are counted, and those that are not.
const COUNTED: &str = "counted";
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
    let served = Served::start(Arc::clone(&bus) as Arc<dyn Bus>).await;
    first_lines(&*bus, &served.addr).await;
    ways(&*bus, &served.addr, emulator.host(), rate, seconds).await;
    served.stop().await;
    bus.close().await;
    emulator.stop().await;
}

/// From a request to the first byte of a line, of apps that nobody reads yet and that have spoken.
async fn first_lines(bus: &dyn Bus, addr: &str) {
    let mut took = Vec::new();
    for number in 0..APPS {
        let metadata = metadata(&format!("first-{number}"));
        bus.create(&metadata.app).await.unwrap();
        for seq in 0..10 {
            publish(bus, &metadata, seq, COUNTED).await;
        }
        let began = Instant::now();
        let mut tail = Tail::open(addr, &metadata.app, 10).await;
        tail.stamp().await;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    tell(&format!("first line of the first tail of {APPS} apps"), &mut took);
}

/// From before a publish until a bare client has it, and until a tail has it.
async fn ways(bus: &dyn Bus, addr: &str, host: &str, rate: u64, seconds: u64) {
    let lines = rate * seconds;
    let metadata = metadata("way");
    bus.create(&metadata.app).await.unwrap();
    let bare = bare(host, &metadata.app, lines).await;
    let mut tail = Tail::open(addr, &metadata.app, 0).await;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
    // A tail joins a stream that it finds at the lowest number it hears of within its hold: it is past that before anything is counted.
    let (mut seq, mut seen) = (0, 0);
    while seen < 3 * rate {
        tokio::select! {
            _ = tick.tick() => {
                publish(bus, &metadata, seq, WARM).await;
                seq += 1;
            }
            _ = tail.stamp() => seen += 1,
        }
    }
    let reader = tokio::spawn(async move {
        let mut ways = Vec::new();
        while (ways.len() as u64) < lines {
            let (stamp, is_counted) = tail.stamp().await;
            ways.extend(is_counted.then(|| since(stamp)));
        }
        ways
    });
    for seq in seq..seq + lines {
        tick.tick().await;
        publish(bus, &metadata, seq, COUNTED).await;
    }
    let (mut of_tail, mut of_bare) = (reader.await.unwrap(), bare.await.unwrap());
    tell("publish to a bare client", &mut of_bare);
    tell("publish to a tail", &mut of_tail);
    let ratio = |part| at(&of_tail, part) / at(&of_bare, part);
    println!(
        "a tail's way by a bare client's: p50 {:.2}, p99 {:.2}",
        ratio(0.5),
        ratio(0.99)
    );
}

/// Pulls as many counted messages of the app's as there will be, each acknowledged as it comes.
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
        let mut ways = Vec::new();
        while (ways.len() as u64) < lines {
            let (message, handler) = messages.next().await.unwrap().unwrap();
            let line = std::str::from_utf8(&message.data).unwrap();
            let (stamp, text) = line.split_once(' ').unwrap();
            if text.starts_with(COUNTED) {
                ways.push(since(Timestamp::parse(stamp).unwrap()));
            }
            handler.ack();
        }
        ways
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

/// A plain HTTP client that follows an app.
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

    /// The time in the next line, and whether it is one that counts.
    ///
    /// *Cancel safety*: nothing is lost.
    async fn stamp(&mut self) -> (Timestamp, bool) {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.read) {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                if let Some(printed) = printed_time(&line) {
                    let is_counted = memchr::memmem::find(&line, COUNTED.as_bytes()).is_some();
                    return (printed, is_counted);
                }
            }
            let got = self.connection.read_buf(&mut self.read).await.unwrap();
            assert!(got > 0, "the stream ended");
        }
    }
}

fn tell(what: &str, millis: &mut [f64]) {
    millis.sort_by(f64::total_cmp);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| at(millis, part));
    println!("{what}: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
}
