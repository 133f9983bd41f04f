//! What the benchmarks share: a streamer, a stream to read, and what a client makes of a line.

#![allow(dead_code, reason = "each benchmark takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say so")]

use std::sync::Arc;

use bus::{Bus, Epoch, StreamId, StreamMetadata, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A streamer that runs.
pub struct Served {
    /// `IP:PORT`.
    pub addr: String,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    /// Starts one on a free port that asks for no key.
    pub async fn start(bus: Arc<dyn Bus>) -> Self {
        Self::asking(bus, streamer::Access::free(None)).await
    }

    /// Starts one on a free port.
    pub async fn asking(bus: Arc<dyn Bus>, access: streamer::Access) -> Self {
        let listener = streamer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let (config, metrics) = (streamer::Config::default(), streamer::Metrics::default());
        let task = tokio::spawn(streamer::run(config, access, listener, bus, metrics, stop.clone()));
        Self { addr, stop, task }
    }

    /// Ends it.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// A stream of an app.
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

/// The time that stands in front of a printed line. `None`: it is none.
pub fn printed_time(line: &[u8]) -> Option<Timestamp> {
    let zone = memchr::memmem::find(line, b"+00:00")?;
    let time = std::str::from_utf8(line.get(zone.checked_sub(26)?..zone)?).ok()?;
    Timestamp::parse(&format!("{time}Z"))
}

/// Milliseconds since a line was printed.
pub fn since(printed: Timestamp) -> f64 {
    (Timestamp::now().0 - printed.0) as f64 / 1e6
}

/// The value below which such a part of them lies.
pub fn at(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// CPU that a process has used, of system and user.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// A process's resident set.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
