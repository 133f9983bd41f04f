//! A line's whole way: from the container runtime's stamp, through the log API, collector, bus and streamer, to a client that follows.
//!
//! `cargo bench --bench way [-- SECONDS]`. Runs `tributary demo` as a process of its own and reads it as a client would; figures of CPU and memory are that process's,
//! simulated node included.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say so")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bus::Timestamp;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(20);
    way(6, 50, seconds);
    way(6, 3_333, seconds);
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

    /// A follower's connection, behind the answer's first bytes.
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

fn way(containers: u64, rate: u64, seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("scenario.toml");
    let text = format!(
        "seed = 1\n[[pods]]\nnamespace = \"bench\"\nname = \"web\"\nreplicas = {containers}\n\
         [[pods.containers]]\nname = \"web\"\nrate = {rate}\nsize = 100\ntext = \"line {{seq}}\"\n"
    );
    std::fs::write(&scenario, text).unwrap();
    let demo = Demo::start(&scenario.display().to_string());
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    let mut connection = demo.follow(10);
    let mut buffer = vec![0; 256 * 1024];
    let mut first = None;
    let mut filled = 0;
    let mut ways = Vec::new();
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
                first.get_or_insert_with(|| began.elapsed());
                ways.push((now.0 - Timestamp::parse(&stamp).unwrap().0) as f64 / 1e6);
            }
        }
        buffer.copy_within(whole..end, 0);
        filled = end - whole;
    }
    let used = demo.cpu_seconds() - cpu;
    // The history at the beginning is older than its way.
    let mut live = ways.split_off(ways.len().min(50));
    live.sort_by(f64::total_cmp);
    let at = |part: f64| live[((live.len() - 1) as f64 * part) as usize];
    println!(
        "{containers} containers, {} lines/s in all, {} lines",
        containers * rate,
        live.len()
    );
    println!(
        "  first line of the first tail after {:.1} ms",
        first.unwrap().as_secs_f64() * 1e3
    );
    println!(
        "  runtime's stamp to client: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    println!(
        "  demo: {:.1} % of a core, {:.1} MiB resident",
        used / seconds as f64 * 100.0,
        demo.resident_mib()
    );
}
