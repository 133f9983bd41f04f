//! One hub with many text tails: CPU time per delivery, and latency.
//!
//! `cargo bench -p streamer --bench fanout [-- TAILS LINES_PER_SECOND SECONDS STALLED]`, by default
//! 1000 tails, 100 lines/s and 10 s, without stalled tails that never read. Server and clients are
//! two processes on one machine: CPU and memory are those of the server, latency is affected by
//! both.

#![allow(clippy::unwrap_used, reason = "a panic reports why the benchmark cannot run")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

mod support;

use std::{
    io::Read,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{Batch, Bus, Content, Embedded, EmbeddedSettings, Timestamp};
use support::{TestServer, cpu_seconds, metadata, millis_since, quantile, resident_kib, timestamp_of};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const READERS: &str = "TRIBUTARY_BENCH_READERS";

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [tails, rate, seconds, stalled] =
        [(0, 1000), (1, 100), (2, 10), (3, 0)].map(|(at, default)| numbers.get(at).copied().unwrap_or(default));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match std::env::var(READERS) {
        Ok(addr) => runtime.block_on(read(&addr, tails, rate * seconds, stalled)),
        Err(_) => runtime.block_on(serve(tails, rate, seconds, stalled)),
    }
}

async fn serve(tails: u64, rate: u64, seconds: u64, stalled: u64) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
    let served = TestServer::start(Arc::clone(&bus) as Arc<dyn Bus>).await;
    let metadata = metadata("bench");
    bus.create(&metadata.app).await.unwrap();
    let own = std::process::id();
    let idle_memory = resident_kib(own);
    let mut readers = Command::new(std::env::current_exe().unwrap())
        .args([tails, rate, seconds, stalled].map(|n| n.to_string()))
        .env(READERS, &served.addr)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 1];
    let mut output = readers.stdout.take().unwrap();
    output.read_exact(&mut ready).unwrap();
    let memory = (resident_kib(own) - idle_memory) as f64 / tails as f64;
    let cpu = cpu_seconds(own);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
    for seq in 0..rate * seconds {
        tick.tick().await;
        let data = format!("{} {:0>88}\n", Timestamp::now(), seq);
        let content = Content::Lines {
            data: data.into(),
            lines: 1,
            part: None,
        };
        bus.publish(Batch {
            metadata: Arc::clone(&metadata),
            seq,
            content,
        })
        .await
        .unwrap();
    }
    let mut report = String::new();
    tokio::task::spawn_blocking(move || {
        output.read_to_string(&mut report).unwrap();
        print!("{report}");
        assert!(readers.wait().unwrap().success());
    })
    .await
    .unwrap();
    let used = cpu_seconds(own) - cpu;
    let deliveries = (tails * rate * seconds) as f64;
    println!(
        "server: {:.2} us CPU per delivery, {:.0} deliveries per CPU second, {memory:.1} KiB per tail",
        used / deliveries * 1e6,
        deliveries / used
    );
    served.stop().await;
}

async fn connect(addr: &str) -> TcpStream {
    let mut connection = TcpStream::connect(addr).await.unwrap();
    connection
        .write_all(b"GET /api/apps/bench/logs?num_lines=0 HTTP/1.1\r\nhost: bench\r\n\r\n")
        .await
        .unwrap();
    connection
}

/// Reads `lines` lines on each of `tails` connections and prints the latencies. `stalled` more
/// connections send a request and never read.
async fn read(addr: &str, tails: u64, lines: u64, stalled: u64) {
    let mut unread = Vec::new();
    for _ in 0..stalled {
        unread.push(connect(addr).await);
    }
    let mut tasks = Vec::new();
    for _ in 0..tails {
        let mut connection = connect(addr).await;
        let mut buffer = vec![0; 16 * 1024];
        let count = connection.read(&mut buffer).await.unwrap();
        assert!(buffer[..count].starts_with(b"HTTP/1.1 200"));
        tasks.push(tokio::spawn(async move {
            let (mut received, mut latencies) = (0, Vec::with_capacity(usize::try_from(lines).unwrap()));
            let mut filled = 0;
            while received < lines {
                let count = connection.read(&mut buffer[filled..]).await.unwrap();
                assert!(count > 0, "the stream ended after {received} lines");
                let end = filled + count;
                let whole = buffer[..end]
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |at| at + 1);
                for line in buffer[..whole].split(|byte| *byte == b'\n') {
                    if let Some(timestamp) = timestamp_of(line) {
                        latencies.push(millis_since(timestamp));
                        received += 1;
                    }
                }
                buffer.copy_within(whole..end, 0);
                filled = end - whole;
            }
            latencies
        }));
    }
    println!();
    std::io::Write::flush(&mut std::io::stdout()).unwrap();
    let started = Instant::now();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies.sort_by(f64::total_cmp);
    let q = |q| quantile(&latencies, q);
    println!(
        "{tails} tails and {stalled} stalled ones, {} lines in {:.1} s, none lost",
        latencies.len(),
        started.elapsed().as_secs_f64()
    );
    println!(
        "latency: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        q(0.5),
        q(0.99),
        q(1.0)
    );
}
