//! A cluster, a bus and a collector, and what a reader of the bus sees.
#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod switch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bus::{
    AppName, Bus, BusError, Embedded, EmbeddedSettings, GapReason, PublishTime, ReaderItem, Start,
    reassembly::{EventKind, GapTimeouts, Now, Reassembly},
};
use collector::{CollectorError, Config, Metrics, Source, Status};
use kubesim::{Cluster, PodPlan, RestartPolicy, Scenario};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use switch::Switch;

/// Everything that is waited for comes within this, or the test fails.
pub const SOON: Duration = Duration::from_secs(60);

pub struct Stage {
    pub cluster: Cluster,
    pub gate: Arc<Gate>,
    pub bus: Arc<Switch>,
    pub dir: TempDir,
    /// The collector reads the node's files, in this directory.
    pub pod_log_dir: Option<PathBuf>,
}

/// What stands between the collector and the API.
#[derive(Default)]
pub struct Gate {
    /// The node's pods can be neither listed nor watched; logs can be read.
    pub blind: AtomicBool,
    /// Logs that are asked for are not answered.
    pub hold: AtomicBool,
    /// Logs asked for.
    pub logs: AtomicUsize,
    /// When each was.
    pub asked: Mutex<Vec<Instant>>,
    /// Looks at the beginning of a file are not answered.
    pub hold_looks: AtomicBool,
    /// Such looks asked for.
    pub looks: AtomicUsize,
}

/// What a collector counts, as it is shown.
pub struct Counted {
    registry: Registry,
    pub metrics: Metrics,
}

impl Counted {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        Self {
            metrics: Metrics::register(&mut registry),
            registry,
        }
    }

    /// A metric's value; 0 where it is not shown.
    pub fn value(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric is that much at least.
    pub async fn until(&self, name: &str, least: f64) {
        let enough = async {
            while self.value(name) < least {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(enough).await;
    }
}

/// A collector that runs.
pub struct Running {
    pub status: Status,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), CollectorError>>,
}

/// One stream as a reader of the bus sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub stream: String,
    pub process: String,
    /// Contents without timestamps, parts joined.
    pub texts: Vec<String>,
    /// Seqs that came as lines, in order.
    pub seqs: Vec<u64>,
    /// Known losses, in order.
    pub losses: Vec<(u64, u64, GapReason)>,
    /// Gaps that nobody told.
    pub gaps: Vec<(u64, u64)>,
    pub ended: bool,
}

impl Stage {
    pub async fn new() -> Self {
        Self::playing(Scenario::default()).await
    }

    pub async fn playing(scenario: Scenario) -> Self {
        Self::playing_in(tempfile::tempdir().unwrap(), scenario).await
    }

    /// The node keeps log files, and the collector reads them.
    pub async fn with_files(mut scenario: Scenario) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pods = dir.path().join("pods");
        scenario.log_files.dir = Some(pods.clone());
        let mut stage = Self::playing_in(dir, scenario).await;
        stage.pod_log_dir = Some(pods);
        stage
    }

    async fn playing_in(dir: TempDir, scenario: Scenario) -> Self {
        let config = kubesim::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            scenario,
        };
        let bus = Embedded::open(&dir.path().join("bus"), EmbeddedSettings::default()).unwrap();
        Self {
            cluster: kubesim::start(config).await.unwrap(),
            bus: Arc::new(Switch::new(bus)),
            gate: Arc::default(),
            dir,
            pod_log_dir: None,
        }
    }

    pub async fn pod(&self, name: &str, policy: RestartPolicy) {
        let plan = PodPlan::silent("app", name, "c").restarting(policy);
        self.cluster.create_pod(&plan).unwrap();
        soon(self.cluster.wait_running("app", name, "c")).await.unwrap();
    }

    pub fn write(&self, pod: &str, lines: std::ops::Range<u32>) {
        let texts = lines.map(|n| format!("line {n}"));
        self.cluster.write_lines("app", pod, "c", texts).unwrap();
    }

    /// Writes more than fits the log file (10 MiB), so that what was written before is out of reach.
    pub async fn rotate(&self, pod: &str) {
        let long = "x".repeat(1000);
        while self.cluster.written("app", pod, "c")[0].rotations == 0 {
            let texts = (0..1000).map(|_| &long);
            self.cluster.write_lines("app", pod, "c", texts).unwrap();
            tokio::task::yield_now().await;
        }
    }

    pub async fn exit(&self, pod: &str) {
        soon(self.cluster.exit_container("app", pod, "c", 1)).await.unwrap();
    }

    pub async fn client(&self) -> kube::Client {
        let url = format!("http://{}", self.cluster.addr()).parse().unwrap();
        let mut config = kube::Config::new(url);
        // The client's own patience would hide the collector's.
        config.default_retry = false;
        let inner = kube::Client::try_from(config).unwrap();
        let gate = Arc::clone(&self.gate);
        let gated = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (inner, gate) = (inner.clone(), Arc::clone(&gate));
            async move {
                let path = request.uri().path();
                if path.ends_with("/log") {
                    gate.logs.fetch_add(1, Ordering::SeqCst);
                    gate.asked.lock().unwrap().push(Instant::now());
                    let is_look = request.uri().query().is_some_and(|query| query.contains("limitBytes"));
                    gate.looks.fetch_add(usize::from(is_look), Ordering::SeqCst);
                    while gate.hold.load(Ordering::SeqCst) || (is_look && gate.hold_looks.load(Ordering::SeqCst)) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                } else if path == "/api/v1/pods" && gate.blind.load(Ordering::SeqCst) {
                    return Err(kube::Error::Service("blind".into()));
                }
                inner.send(request).await
            }
        });
        kube::Client::new(gated, "default")
    }

    /// Waits until so many more logs were asked for.
    pub async fn until_asked(&self, times: usize) {
        let enough = self.gate.logs.load(Ordering::SeqCst) + times;
        let asked = async {
            while self.gate.logs.load(Ordering::SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(asked).await;
    }

    /// Starts a collector, once the one before has let go of the checkpoints.
    pub async fn collect(&self) -> Running {
        self.collect_in(&self.dir.path().join("checkpoints")).await
    }

    pub async fn collect_in(&self, dir: &Path) -> Running {
        self.collect_as(dir, |_| {}).await
    }

    /// With other settings than usual.
    pub async fn collect_with(&self, change: impl Fn(&mut Config)) -> Running {
        self.collect_as(&self.dir.path().join("checkpoints"), change).await
    }

    async fn collect_as(&self, dir: &Path, change: impl Fn(&mut Config)) -> Running {
        let deadline = Instant::now() + SOON;
        loop {
            let mut config = Config::new(dir);
            config.node_name = Some(self.cluster.node_name().to_owned());
            if let Some(dir) = &self.pod_log_dir {
                (config.source, config.pod_log_dir) = (Source::Files, dir.clone());
            }
            change(&mut config);
            let (status, shutdown) = (config.status.clone(), CancellationToken::new());
            let bus: Arc<dyn Bus> = self.bus.clone();
            let mut task = tokio::spawn(collector::run(config, self.client().await, bus, shutdown.clone()));
            tokio::select! {
                () = status.listed() => return Running { status, shutdown, task },
                ended = &mut task => match ended.unwrap() {
                    Err(CollectorError::InUse(_)) if Instant::now() < deadline => tokio::task::yield_now().await,
                    other => panic!("the collector ended: {other:?}"),
                },
            }
        }
    }

    /// Bytes of batches that wait on disk.
    pub fn spooled(&self) -> u64 {
        let spool = self.dir.path().join("checkpoints/spool");
        let streams = std::fs::read_dir(spool).into_iter().flatten().flatten();
        let files = streams.flat_map(|stream| std::fs::read_dir(stream.path()).into_iter().flatten().flatten());
        let segments = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "spool"));
        segments
            .filter_map(|file| file.metadata().ok())
            .map(|file| file.len())
            .sum()
    }

    /// Waits until so many bytes of batches are on disk.
    pub async fn until_spooled(&self, bytes: u64) {
        let enough = async {
            while self.spooled() < bytes {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(enough).await;
    }

    /// All that is on the bus, reassembled.
    pub async fn seen(&self) -> BTreeMap<String, Seen> {
        self.seen_of(&"app".parse().unwrap()).await
    }

    /// As [`seen`](Self::seen), of another app.
    pub async fn seen_of(&self, app: &AppName) -> BTreeMap<String, Seen> {
        let mut reader = match self.bus.follow(app, Start::Oldest).await {
            Ok(reader) => reader,
            Err(BusError::UnknownApp(_)) => return BTreeMap::new(),
            Err(error) => panic!("{error}"),
        };
        let hour = Duration::from_secs(3600);
        let mut reassembly = Reassembly::new(GapTimeouts::Tail { reorder_window: hour }, PublishTime(0), hour * 24);
        let start = Instant::now();
        loop {
            match soon(reader.next()).await.unwrap().unwrap() {
                ReaderItem::Delivery(delivery) => {
                    let now = Now {
                        elapsed: start.elapsed(),
                        bus: PublishTime::now(),
                    };
                    reassembly.push(delivery, now);
                }
                ReaderItem::CaughtUp => break,
                other => panic!("{other:?}"),
            }
        }
        reassembly.declare_all();
        let mut streams: BTreeMap<String, Seen> = BTreeMap::new();
        let mut parts = String::new();
        while let Some(event) = reassembly.next_event() {
            let seen = streams.entry(event.metadata.stream.to_string()).or_default();
            seen.stream = event.metadata.stream.to_string();
            seen.process = event.metadata.process.clone();
            match event.kind {
                EventKind::Lines { data, lines, part, .. } => {
                    seen.seqs.extend(event.seq..event.seq + lines);
                    for line in data[..data.len() - 1].split(|byte| *byte == b'\n') {
                        let (_, text) = bus::Timestamp::split_line(line).unwrap();
                        parts.push_str(std::str::from_utf8(text).unwrap());
                        if part != Some(bus::Part::More) {
                            seen.texts.push(std::mem::take(&mut parts));
                        }
                    }
                }
                EventKind::Gap { gap: Some(loss), .. } => seen.losses.push((event.seq, loss.lines, loss.reason)),
                EventKind::Gap { gap: None, lines } => seen.gaps.push((event.seq, lines)),
                EventKind::End => seen.ended = true,
            }
        }
        streams
    }

    /// Waits until what is on the bus is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        self.until_within(SOON, what, wanted).await
    }

    /// As [`until`](Self::until), for what takes longer.
    pub async fn until_within(&self, bound: Duration, what: &str, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let deadline = Instant::now() + bound;
        loop {
            let seen: Vec<Seen> = self.seen().await.into_values().collect();
            if wanted(&seen) {
                return seen;
            }
            assert!(
                Instant::now() < deadline,
                "not within {bound:?}: {what}: {}",
                brief(&seen)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the only stream has so many lines.
    pub async fn until_lines(&self, lines: usize) -> Seen {
        let has = |seen: &[Seen]| seen.iter().map(|seen| seen.texts.len()).sum::<usize>() >= lines;
        let mut seen = self.until(&format!("{lines} lines"), has).await;
        assert_eq!(seen.len(), 1, "one stream: {}", brief(&seen));
        seen.remove(0)
    }

    /// Waits until all of so many streams have ended.
    pub async fn until_ended(&self, streams: usize) -> Vec<Seen> {
        self.until(&format!("{streams} ended"), |seen| {
            seen.len() == streams && seen.iter().all(|seen| seen.ended)
        })
        .await
    }
}

impl Running {
    /// As `kill -9`.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        soon(self.task).await.unwrap().unwrap();
    }
}

impl Seen {
    /// Every one of these lines once, in order, numbered from 0, and nothing said to be missing.
    pub fn assert_whole(&self, lines: std::ops::Range<u32>) {
        let texts: Vec<String> = lines.map(|n| format!("line {n}")).collect();
        assert!(self.texts == texts, "{}", brief(std::slice::from_ref(self)));
        self.assert_nothing_missing();
    }

    pub fn assert_nothing_missing(&self) {
        assert_eq!((&self.losses[..], &self.gaps[..]), (&[][..], &[][..]));
        assert_eq!(self.seqs, (0..self.seqs.len() as u64).collect::<Vec<_>>());
    }
}

fn brief(seen: &[Seen]) -> String {
    let mut text = String::new();
    for seen in seen {
        text += &format!(
            "\n{}: {} lines, first {:?}, last {:?}, losses {:?}, gaps {:?}, ended {}",
            seen.process,
            seen.texts.len(),
            seen.texts.first(),
            seen.texts.last(),
            seen.losses,
            seen.gaps,
            seen.ended
        );
    }
    text
}

pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("within the bound")
}
