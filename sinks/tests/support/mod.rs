//! Sinks on the embedded bus, an app that prints, and receivers that do as they are told.

#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

pub mod receiver;
pub mod web;

use std::{sync::Arc, time::Duration};

use bus::{Batch, Bus, Content, Embedded, EmbeddedSettings, Epoch, StreamId, StreamMetadata, Timestamp};
use registry::{Addresses, Drain, DrainReport, DrainUrl, FileRegistry, Registry};
use sinks::{Config, Metrics, Replica};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Every wait's bound.
pub const BOUND: Duration = Duration::from_secs(60);

pub async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work)
        .await
        .unwrap_or_else(|_| panic!("in time: {what}"))
}

/// This machine's own addresses: where receivers of tests are.
pub fn loopback() -> Addresses {
    Addresses::allowing(vec!["127.0.0.0/8".parse().unwrap()])
}

/// Short pauses; and one notice of a kind, as nobody waits a minute for the next.
pub fn config() -> Config {
    Config {
        addresses: loopback(),
        max_backoff: Duration::from_millis(200),
        report_every: Duration::from_millis(100),
        notice_grain: Duration::from_secs(3600),
        connect_wait: Duration::from_secs(5),
        answer_wait: Duration::from_secs(5),
        ..Config::default()
    }
}

/// A bus and a registry.
pub struct House {
    pub bus: Arc<Embedded>,
    pub registry: Arc<FileRegistry>,
    dir: TempDir,
}

/// Sinks that run.
pub struct Sinks {
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), sinks::SinksError>>,
}

impl House {
    pub async fn open() -> Self {
        Self::open_with(EmbeddedSettings::default()).await
    }

    pub async fn open_with(limits: EmbeddedSettings) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Arc::new(Embedded::open(&dir.path().join("bus"), limits).unwrap());
        let registry = Arc::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap());
        Self { bus, registry, dir }
    }

    /// A drain of app `shop`, and its subscription from now on.
    pub async fn drain(&self, url: &str) -> Drain {
        let url = DrainUrl::parse(url, &loopback()).unwrap();
        let drain = self.registry.add_drain("shop", &url, 100).await.unwrap();
        let app = "shop".parse().unwrap();
        self.bus.create(&app).await.unwrap();
        self.bus.ensure_subscription(&app, &drain.subscription()).await.unwrap();
        drain
    }

    pub fn start(&self, config: Config) -> Sinks {
        let shutdown = CancellationToken::new();
        let registry = Arc::clone(&self.registry) as Arc<dyn Registry>;
        let bus = Arc::clone(&self.bus) as Arc<dyn Bus>;
        let running = tokio::spawn(sinks::run(config, registry, bus, Metrics::default(), shutdown.clone()));
        Sinks { shutdown, running }
    }

    /// Publishes numbered lines `from..to` of a stream, in batches of so many.
    pub async fn print(&self, metadata: &Arc<StreamMetadata>, from: u64, to: u64, each: u64) {
        for seq in (from..to).step_by(usize::try_from(each).unwrap()) {
            let lines: Vec<String> = (seq..to.min(seq + each)).map(|n| format!("line {n}")).collect();
            self.bus.publish(batch(metadata, seq, &lines)).await.unwrap();
        }
    }

    /// Waits until a drain's report is so.
    pub async fn until_report(&self, drain: &Drain, what: &str, holds: impl Fn(&DrainReport) -> bool) -> DrainReport {
        let seen = async {
            loop {
                if let Some(report) = self
                    .registry
                    .report_of(drain.id)
                    .await
                    .unwrap()
                    .filter(|report| holds(report))
                {
                    return report;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        bounded(what, seen).await
    }
}

impl Sinks {
    /// Told to stop, and waited for.
    pub async fn stop(self) {
        self.shutdown.cancel();
        bounded("the end", self.running).await.unwrap().unwrap();
    }

    /// Gone at once, as if killed.
    pub async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

pub fn replica(index: u32, count: u32) -> Replica {
    Replica { index, count }
}

/// A stream of app `shop`.
pub fn metadata(process: &str) -> Arc<StreamMetadata> {
    Arc::new(StreamMetadata {
        app: "shop".parse().unwrap(),
        process: process.to_owned(),
        stream: StreamId::new(&format!("uid-{process}"), "web", "c0ffee", Epoch::new()).unwrap(),
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    })
}

pub fn batch(metadata: &Arc<StreamMetadata>, seq: u64, lines: &[String]) -> Batch {
    let data: String = lines
        .iter()
        .map(|line| format!("{} {line}\n", Timestamp::now()))
        .collect();
    Batch {
        metadata: Arc::clone(metadata),
        seq,
        content: Content::Lines {
            data: data.into(),
            lines: lines.len() as u64,
            part: None,
        },
    }
}

/// Checks that numbered lines of a process are all there, in order of their first coming; returns how many came more than once.
pub fn all_there(messages: &[receiver::Message], process: &str, count: u64) -> u64 {
    let (mut next, mut again) = (0, 0);
    for message in messages.iter().filter(|message| message.app_name == process) {
        let seq: u64 = message.text.split(' ').nth(1).expect(&message.text).parse().unwrap();
        assert!(seq <= next, "{process}: {seq} where {next} was to come");
        if seq == next {
            next += 1;
        } else {
            again += 1;
        }
    }
    assert_eq!(next, count, "{process}");
    again
}
