//! Helpers of the benchmarks: a streamer, a stream, and measurements.

#![allow(dead_code, reason = "each benchmark uses a part")]
#![allow(clippy::unwrap_used, reason = "a panic reports why the benchmark cannot run")]

use std::sync::Arc;

use bus::{Bus, Epoch, StreamId, StreamMetadata, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running streamer.
pub struct TestServer {
    /// `IP:PORT`.
    pub addr: String,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl TestServer {
    /// Starts a streamer without authentication on a free port.
    pub async fn start(bus: Arc<dyn Bus>) -> Self {
        Self::with_access(bus, streamer::Access::unauthenticated()).await
    }

    /// Starts a streamer on a free port.
    pub async fn with_access(bus: Arc<dyn Bus>, access: streamer::Access) -> Self {
        let listener = streamer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let (config, metrics) = (streamer::Config::default(), streamer::Metrics::default());
        let drains = streamer::DrainService::new(None);
        let task = tokio::spawn(streamer::run(
            config,
            access,
            drains,
            listener,
            bus,
            metrics,
            stop.clone(),
        ));
        Self { addr, stop, task }
    }

    /// Shuts the streamer down.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Returns a stream of an app.
pub fn metadata(app: &str) -> Arc<StreamMetadata> {
    Arc::new(StreamMetadata {
        app: app.parse().unwrap(),
        process: "web-7d4b9c-x2x9z".to_owned(),
        stream: StreamId::new("uid", "web", "c0ffee", Epoch::new()).unwrap(),
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    })
}

/// Returns the timestamp of a line in the text layout. `None` if it has none.
pub fn timestamp_of(line: &[u8]) -> Option<Timestamp> {
    let zone = memchr::memmem::find(line, b"+00:00")?;
    let time = std::str::from_utf8(line.get(zone.checked_sub(26)?..zone)?).ok()?;
    Timestamp::parse(&format!("{time}Z"))
}

/// Returns the milliseconds since a timestamp.
pub fn millis_since(timestamp: Timestamp) -> f64 {
    (Timestamp::now().0 - timestamp.0) as f64 / 1e6
}

/// Returns a quantile of sorted values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

/// Returns the user and system CPU time of a process in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// Returns the resident set size of a process in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
