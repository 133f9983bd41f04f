//! Helpers: sinks on an embedded bus, an app that prints, and controllable receivers.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

pub mod logplex;
pub mod receiver;

use std::{sync::Arc, time::Duration};

use bus::{Batch, Bus, Content, Embedded, EmbeddedSettings, Epoch, StreamId, StreamMetadata, Timestamp};
use registry::{AddressPolicy, Drain, DrainReport, DrainUrl, FileRegistry, Registry};
use sinks::{Config, Metrics, Replica};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The timeout of every wait.
pub const TIMEOUT: Duration = Duration::from_secs(60);

pub async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or_else(|_| panic!("timeout: {what}"))
}

/// Allows loopback addresses, where the receivers of tests listen.
pub fn loopback() -> AddressPolicy {
    AddressPolicy::with_allowed(vec!["127.0.0.0/8".parse().unwrap()])
}

/// Short pauses and timeouts, and one notice per problem.
pub fn config() -> Config {
    Config {
        addresses: loopback(),
        max_backoff: Duration::from_millis(200),
        report_interval: Duration::from_millis(100),
        notice_interval: Duration::from_secs(3600),
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        ..Config::default()
    }
}

/// A bus and a registry.
pub struct Setup {
    pub bus: Arc<Embedded>,
    pub registry: Arc<FileRegistry>,
    dir: TempDir,
}

/// Running sinks.
pub struct Sinks {
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), sinks::SinksError>>,
}

impl Setup {
    pub async fn open() -> Self {
        Self::open_with(EmbeddedSettings::default()).await
    }

    pub async fn open_with(limits: EmbeddedSettings) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Arc::new(Embedded::open(&dir.path().join("bus"), limits).unwrap());
        let registry = Arc::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap());
        Self { bus, registry, dir }
    }

    /// Adds a drain to app `shop` and creates its subscription.
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

    /// Publishes the numbered lines `from..to` of a stream in batches of `batch_lines`.
    pub async fn print(&self, metadata: &Arc<StreamMetadata>, from: u64, to: u64, batch_lines: u64) {
        for seq in (from..to).step_by(usize::try_from(batch_lines).unwrap()) {
            let lines: Vec<String> = (seq..to.min(seq + batch_lines)).map(|n| format!("line {n}")).collect();
            self.bus.publish(batch(metadata, seq, &lines)).await.unwrap();
        }
    }

    /// Waits until a drain's report meets a condition.
    pub async fn until_report(
        &self,
        drain: &Drain,
        what: &str,
        condition: impl Fn(&DrainReport) -> bool,
    ) -> DrainReport {
        let seen = async {
            loop {
                if let Some(report) = self
                    .registry
                    .drain_report(drain.id)
                    .await
                    .unwrap()
                    .filter(|report| condition(report))
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
    /// Shuts down and waits for the end.
    pub async fn stop(self) {
        self.shutdown.cancel();
        bounded("the end of sinks", self.running).await.unwrap().unwrap();
    }

    /// Ends at once, as if killed.
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

/// Checks that all numbered lines of a process arrived, and first arrived in order. Returns the
/// number of repeated lines.
pub fn count_repeated(messages: &[receiver::Message], process: &str, expected: u64) -> u64 {
    let (mut next, mut repeated) = (0, 0);
    for message in messages.iter().filter(|message| message.app_name == process) {
        let seq: u64 = message.text.split(' ').nth(1).expect(&message.text).parse().unwrap();
        assert!(seq <= next, "{process}: received {seq}, expected {next}");
        if seq == next {
            next += 1;
        } else {
            repeated += 1;
        }
    }
    assert_eq!(next, expected, "{process}");
    repeated
}
