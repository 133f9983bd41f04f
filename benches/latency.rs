//! Latency from the container runtime's timestamp, through the log API, collector, bus and
//! streamer, to a live tail.
//!
//! `cargo bench --bench latency [-- [neighbour] SECONDS]`; `neighbour` measures a quiet app alone
//! and beside a loud one. The benchmark runs `tributary demo` as a separate process and reads it as
//! a client does. CPU and memory are those of that process, including the simulated node.

#![allow(clippy::unwrap_used, reason = "a failed benchmark should panic")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bus::Timestamp;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(20);
    if std::env::args().any(|arg| arg == "neighbour") {
        return neighbour(seconds);
    }
    latency(6, 50, seconds);
    latency(6, 3_333, seconds);
}

struct Demo {
    child: Child,
    addr: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Demo {
    fn start(scenario: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["demo", "--listen", "127.0.0.1:0", "--scenario", scenario])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let addr = lines
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned));
        Self {
            child,
            addr: addr.unwrap(),
        }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    fn resident_mib(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Opens a live tail and reads the status line of the response.
    fn follow(&self, num_lines: u64) -> TcpStream {
        loop {
            let mut connection = TcpStream::connect(&self.addr).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            write!(
                connection,
                "GET /api/apps/bench/logs?num_lines={num_lines} HTTP/1.1\r\nhost: bench\r\n\r\n"
            )
            .unwrap();
            let mut head = [0; 12];
            connection.read_exact(&mut head).unwrap();
            if head.ends_with(b"200") {
                return connection;
            }
        }
    }
}

struct Measured {
    /// From the request to the first line.
    first: Duration,
    /// From the runtime's timestamp to the client, in milliseconds, sorted.
    latencies: Vec<f64>,
    /// Share of one core.
    cpu: f64,
    resident_mib: f64,
}

impl Measured {
    fn at(&self, part: f64) -> f64 {
        self.latencies[((self.latencies.len() - 1) as f64 * part) as usize]
    }
}

/// Returns the scenario of one app.
fn pod(app: &str, replicas: u64, rate: u64, size: u64) -> String {
    format!(
        "[[pods]]\nnamespace = \"{app}\"\nname = \"web\"\nreplicas = {replicas}\n\
         [[pods.containers]]\nname = \"web\"\nrate = {rate}\nsize = {size}\ntext = \"line {{seq}}\"\n"
    )
}

/// Follows the app `bench` for this many seconds.
fn measure(pods: &str, seconds: u64) -> Measured {
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("scenario.toml");
    std::fs::write(&scenario, format!("seed = 1\n{pods}")).unwrap();
    let demo = Demo::start(&scenario.display().to_string());
    std::thread::sleep(Duration::from_secs(2));
    let started = Instant::now();
    let mut connection = demo.follow(10);
    let mut buffer = vec![0; 256 * 1024];
    let mut first = None;
    let mut filled = 0;
    let mut latencies = Vec::new();
    let cpu = demo.cpu_seconds();
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let got = connection.read(&mut buffer[filled..]).unwrap();
        assert!(got > 0, "the stream ended");
        let now = Timestamp::now();
        let end = filled + got;
        let whole = buffer[..end]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in buffer[..whole].split(|byte| *byte == b'\n') {
            if let Some(at) = line.windows(6).position(|window| window == b"+00:00") {
                let stamp = format!("{}Z", std::str::from_utf8(&line[at - 26..at]).unwrap());
                first.get_or_insert_with(|| started.elapsed());
                latencies.push((now.0 - Timestamp::parse(&stamp).unwrap().0) as f64 / 1e6);
            }
        }
        buffer.copy_within(whole..end, 0);
        filled = end - whole;
    }
    // The history at the beginning would count as late.
    let mut latencies = latencies.split_off(latencies.len().min(50));
    latencies.sort_by(f64::total_cmp);
    Measured {
        first: first.unwrap(),
        latencies,
        cpu: (demo.cpu_seconds() - cpu) / seconds as f64,
        resident_mib: demo.resident_mib(),
    }
}

fn latency(containers: u64, rate: u64, seconds: u64) {
    let measured = measure(&pod("bench", containers, rate, 100), seconds);
    println!(
        "{containers} containers, {} lines/s in all, {} lines",
        containers * rate,
        measured.latencies.len()
    );
    println!(
        "  first line of the first tail after {:.1} ms",
        measured.first.as_secs_f64() * 1e3
    );
    report(&measured);
}

/// Measures a quiet app alone and beside one that prints 30 MB/s, three times each.
fn neighbour(seconds: u64) {
    let quiet = pod("bench", 1, 50, 100);
    let loud = pod("loud", 3, 10_000, 1_000);
    for _ in 0..3 {
        println!("a quiet app, alone");
        report(&measure(&quiet, seconds));
        println!("the same beside 30 MB/s");
        report(&measure(&format!("{quiet}{loud}"), seconds));
    }
}

fn report(measured: &Measured) {
    println!(
        "  runtime's timestamp to client: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        measured.at(0.5),
        measured.at(0.99),
        measured.at(1.0)
    );
    println!(
        "  demo: {:.1} % of a core, {:.1} MiB resident",
        measured.cpu * 100.0,
        measured.resident_mib
    );
}
