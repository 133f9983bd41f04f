//! A simulated cluster, a bus, a collector, and a reader of the bus.
#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod faulty_bus;

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
use collector::{CollectorError, Config, Metrics, Progress, Source};
use kubesim::{Cluster, PodPlan, RestartPolicy, Scenario};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use faulty_bus::FaultyBus;

/// Time limit for everything that a test waits for.
pub const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Harness {
    pub cluster: Cluster,
    pub gate: Arc<ApiGate>,
    pub bus: Arc<FaultyBus>,
    pub dir: TempDir,
    /// The collector reads the node's files in this directory.
    pub pod_log_dir: Option<PathBuf>,
}

/// Controls the connection between the collector and the API.
#[derive(Default)]
pub struct ApiGate {
    /// Pods can be neither listed nor watched; logs can be read.
    pub pods_unavailable: AtomicBool,
    /// Log requests get no response.
    pub hold: AtomicBool,
    /// Number of log requests.
    pub logs: AtomicUsize,
    /// Times of the log requests.
    pub log_requests: Mutex<Vec<Instant>>,
    /// Rotation probes get no response.
    pub hold_probes: AtomicBool,
    /// Number of rotation probes.
    pub probes: AtomicUsize,
}

/// Registers a collector's metrics and reads their values.
pub struct MetricsProbe {
    registry: Registry,
    pub metrics: Metrics,
}

impl MetricsProbe {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        Self {
            metrics: Metrics::register(&mut registry),
            registry,
        }
    }

    /// Returns a metric's value, or 0 if it is not exported.
    pub fn value(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has at least this value.
    pub async fn wait_for(&self, name: &str, least: f64) {
        let condition = async {
            while self.value(name) < least {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        in_time(condition).await;
    }
}

/// A running collector.
pub struct RunningCollector {
    pub progress: Progress,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), CollectorError>>,
}

/// One stream as a reader of the bus receives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRead {
    pub stream: String,
    pub process: String,
    /// Contents without timestamps, with parts joined.
    pub texts: Vec<String>,
    /// Sequence numbers of the lines, in order.
    pub seqs: Vec<u64>,
    /// Recorded gaps, in order: sequence number, lines, reason.
    pub recorded_gaps: Vec<(u64, u64, GapReason)>,
    /// Gaps that are not recorded.
    pub silent_gaps: Vec<(u64, u64)>,
    pub ended: bool,
}

impl Harness {
    pub async fn new() -> Self {
        Self::playing(Scenario::default()).await
    }

    pub async fn playing(scenario: Scenario) -> Self {
        Self::playing_in(tempfile::tempdir().unwrap(), scenario).await
    }

    /// Creates a node that writes log files, which the collector reads.
    pub async fn with_files(mut scenario: Scenario) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pods = dir.path().join("pods");
        scenario.log_files.dir = Some(pods.clone());
        let mut harness = Self::playing_in(dir, scenario).await;
        harness.pod_log_dir = Some(pods);
        harness
    }

    async fn playing_in(dir: TempDir, scenario: Scenario) -> Self {
        let config = kubesim::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            scenario,
        };
        let bus = Embedded::open(&dir.path().join("bus"), EmbeddedSettings::default()).unwrap();
        Self {
            cluster: kubesim::start(config).await.unwrap(),
            bus: Arc::new(FaultyBus::new(bus)),
            gate: Arc::default(),
            dir,
            pod_log_dir: None,
        }
    }

    pub async fn pod(&self, name: &str, policy: RestartPolicy) {
        let plan = PodPlan::silent("app", name, "c").restarting(policy);
        self.cluster.create_pod(&plan).unwrap();
        in_time(self.cluster.wait_running("app", name, "c")).await.unwrap();
    }

    pub fn write(&self, pod: &str, lines: std::ops::Range<u32>) {
        let texts = lines.map(|n| format!("line {n}"));
        self.cluster.write_lines("app", pod, "c", texts).unwrap();
    }

    /// Writes more than the log file holds (10 MiB), so that earlier lines can no longer be read.
    pub async fn rotate(&self, pod: &str) {
        let long = "x".repeat(1000);
        while self.cluster.written("app", pod, "c")[0].rotations == 0 {
            let texts = (0..1000).map(|_| &long);
            self.cluster.write_lines("app", pod, "c", texts).unwrap();
            tokio::task::yield_now().await;
        }
    }

    pub async fn exit(&self, pod: &str) {
        in_time(self.cluster.exit_container("app", pod, "c", 1)).await.unwrap();
    }

    pub async fn client(&self) -> kube::Client {
        let url = format!("http://{}", self.cluster.addr()).parse().unwrap();
        let mut config = kube::Config::new(url);
        // The client's retries would hide the collector's.
        config.default_retry = false;
        let inner = kube::Client::try_from(config).unwrap();
        let gate = Arc::clone(&self.gate);
        let gated = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (inner, gate) = (inner.clone(), Arc::clone(&gate));
            async move {
                let path = request.uri().path();
                if path.ends_with("/log") {
                    gate.logs.fetch_add(1, Ordering::SeqCst);
                    gate.log_requests.lock().unwrap().push(Instant::now());
                    let is_probe = request.uri().query().is_some_and(|query| query.contains("limitBytes"));
                    gate.probes.fetch_add(usize::from(is_probe), Ordering::SeqCst);
                    while gate.hold.load(Ordering::SeqCst) || (is_probe && gate.hold_probes.load(Ordering::SeqCst)) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                } else if path == "/api/v1/pods" && gate.pods_unavailable.load(Ordering::SeqCst) {
                    return Err(kube::Error::Service("blind".into()));
                }
                inner.send(request).await
            }
        });
        kube::Client::new(gated, "default")
    }

    /// Waits for this many more log requests.
    pub async fn wait_for_log_requests(&self, times: usize) {
        let condition = self.gate.logs.load(Ordering::SeqCst) + times;
        let log_requests = async {
            while self.gate.logs.load(Ordering::SeqCst) < condition {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time(log_requests).await;
    }

    /// Starts a collector once the previous one has released the checkpoints.
    pub async fn collect(&self) -> RunningCollector {
        self.collect_in(&self.dir.path().join("checkpoints")).await
    }

    pub async fn collect_in(&self, dir: &Path) -> RunningCollector {
        self.collect_as(dir, |_| {}).await
    }

    /// Starts a collector with changed settings.
    pub async fn collect_with(&self, change: impl Fn(&mut Config)) -> RunningCollector {
        self.collect_as(&self.dir.path().join("checkpoints"), change).await
    }

    async fn collect_as(&self, dir: &Path, change: impl Fn(&mut Config)) -> RunningCollector {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut config = Config::new(dir);
            config.node_name = Some(self.cluster.node_name().to_owned());
            if let Some(dir) = &self.pod_log_dir {
                (config.source, config.pod_log_dir) = (Source::Files, dir.clone());
            }
            change(&mut config);
            let (progress, shutdown) = (config.progress.clone(), CancellationToken::new());
            let bus: Arc<dyn Bus> = self.bus.clone();
            let mut task = tokio::spawn(collector::run(config, self.client().await, bus, shutdown.clone()));
            tokio::select! {
                () = progress.listed() => return RunningCollector { progress, shutdown, task },
                ended = &mut task => match ended.unwrap() {
                    Err(CollectorError::InUse(_)) if Instant::now() < deadline => tokio::task::yield_now().await,
                    other => panic!("the collector ended: {other:?}"),
                },
            }
        }
    }

    /// Returns the bytes in the spool.
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

    /// Waits until the spool has at least this many bytes.
    pub async fn wait_for_spooled(&self, bytes: u64) {
        let condition = async {
            while self.spooled() < bytes {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        in_time(condition).await;
    }

    /// Reads and reassembles everything on the bus.
    pub async fn streams(&self) -> BTreeMap<String, StreamRead> {
        self.read_app(&"app".parse().unwrap()).await
    }

    /// Like [`streams`](Self::streams), for another app.
    pub async fn read_app(&self, app: &AppName) -> BTreeMap<String, StreamRead> {
        let mut reader = match self.bus.follow(app, Start::Oldest).await {
            Ok(reader) => reader,
            Err(BusError::UnknownApp(_)) => return BTreeMap::new(),
            Err(error) => panic!("{error}"),
        };
        let hour = Duration::from_secs(3600);
        let mut reassembly = Reassembly::new(GapTimeouts::Tail { reorder_window: hour }, PublishTime(0), hour * 24);
        let start = Instant::now();
        loop {
            match in_time(reader.next()).await.unwrap().unwrap() {
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
        let mut streams: BTreeMap<String, StreamRead> = BTreeMap::new();
        let mut parts = String::new();
        while let Some(event) = reassembly.next_event() {
            let stream = streams.entry(event.metadata.stream.to_string()).or_default();
            stream.stream = event.metadata.stream.to_string();
            stream.process = event.metadata.process.clone();
            match event.kind {
                EventKind::Lines { data, lines, part, .. } => {
                    stream.seqs.extend(event.seq..event.seq + lines);
                    for line in data[..data.len() - 1].split(|byte| *byte == b'\n') {
                        let (_, text) = bus::Timestamp::split_line(line).unwrap();
                        parts.push_str(std::str::from_utf8(text).unwrap());
                        if part != Some(bus::Part::More) {
                            stream.texts.push(std::mem::take(&mut parts));
                        }
                    }
                }
                EventKind::Gap { gap: Some(gap), .. } => stream.recorded_gaps.push((event.seq, gap.lines, gap.reason)),
                EventKind::Gap { gap: None, lines } => stream.silent_gaps.push((event.seq, lines)),
                EventKind::End => stream.ended = true,
            }
        }
        streams
    }

    /// Waits until the streams on the bus satisfy the predicate.
    pub async fn wait_for(&self, what: &str, predicate: impl Fn(&[StreamRead]) -> bool) -> Vec<StreamRead> {
        self.wait_within(TIMEOUT, what, predicate).await
    }

    /// Like [`wait_for`](Self::wait_for), with another time limit.
    pub async fn wait_within(
        &self,
        bound: Duration,
        what: &str,
        predicate: impl Fn(&[StreamRead]) -> bool,
    ) -> Vec<StreamRead> {
        let deadline = Instant::now() + bound;
        loop {
            let streams: Vec<StreamRead> = self.streams().await.into_values().collect();
            if predicate(&streams) {
                return streams;
            }
            assert!(
                Instant::now() < deadline,
                "not within {bound:?}: {what}: {}",
                summary(&streams)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the only stream has this many lines.
    pub async fn wait_for_lines(&self, lines: usize) -> StreamRead {
        let has = |streams: &[StreamRead]| streams.iter().map(|stream| stream.texts.len()).sum::<usize>() >= lines;
        let mut streams = self.wait_for(&format!("{lines} lines"), has).await;
        assert_eq!(streams.len(), 1, "one stream: {}", summary(&streams));
        streams.remove(0)
    }

    /// Waits until this many streams have ended.
    pub async fn wait_for_ended(&self, count: usize) -> Vec<StreamRead> {
        self.wait_for(&format!("{count} ended streams"), |streams| {
            streams.len() == count && streams.iter().all(|stream| stream.ended)
        })
        .await
    }
}

impl RunningCollector {
    /// Stops the collector like `kill -9`.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        in_time(self.task).await.unwrap().unwrap();
    }
}

impl StreamRead {
    /// Asserts that exactly these lines were read, once and in order, numbered from 0, without
    /// gaps.
    pub fn assert_whole(&self, lines: std::ops::Range<u32>) {
        let texts: Vec<String> = lines.map(|n| format!("line {n}")).collect();
        assert!(self.texts == texts, "{}", summary(std::slice::from_ref(self)));
        self.assert_no_gaps();
    }

    pub fn assert_no_gaps(&self) {
        assert_eq!((&self.recorded_gaps[..], &self.silent_gaps[..]), (&[][..], &[][..]));
        assert_eq!(self.seqs, (0..self.seqs.len() as u64).collect::<Vec<_>>());
    }
}

fn summary(streams: &[StreamRead]) -> String {
    let mut text = String::new();
    for stream in streams {
        text += &format!(
            "\n{}: {} lines, first {:?}, last {:?}, gaps {:?}, gaps {:?}, ended {}",
            stream.process,
            stream.texts.len(),
            stream.texts.first(),
            stream.texts.last(),
            stream.recorded_gaps,
            stream.silent_gaps,
            stream.ended
        );
    }
    text
}

pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, work)
        .await
        .expect("a change within the time limit")
}
