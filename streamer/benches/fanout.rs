//! One hub, many text tails: what a delivery costs the server, and how long a line is on its way.
//!
//! `cargo bench -p streamer --bench fanout [-- TAILS LINES_PER_SECOND SECONDS DEAF]`, by default 1000 tails, 100 lines/s, 10 s, and 0 tails more that
//! never read. Server and readers are two processes on
//! one machine: the figures of CPU and memory are the server's alone, those of time hold for both sharing it.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say so")]

mod support;

use std::{
    io::Read,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{Batch, Bus, Content, Embedded, EmbeddedSettings, Timestamp};
use support::{Served, at, cpu_seconds, metadata, printed_time, resident_kib, since};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const READERS: &str = "TRIBUTARY_BENCH_READERS";

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [tails, rate, seconds, deaf] =
        [(0, 1000), (1, 100), (2, 10), (3, 0)].map(|(at, default)| numbers.get(at).copied().unwrap_or(default));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match std::env::var(READERS) {
        Ok(addr) => runtime.block_on(read(&addr, tails, rate * seconds, deaf)),
        Err(_) => runtime.block_on(serve(tails, rate, seconds, deaf)),
    }
}

async fn serve(tails: u64, rate: u64, seconds: u64, deaf: u64) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
    let served = Served::start(Arc::clone(&bus) as Arc<dyn Bus>).await;
    let metadata = metadata("bench");
    bus.create(&metadata.app).await.unwrap();
    let own = std::process::id();
    let idle_memory = resident_kib(own);
    let mut readers = Command::new(std::env::current_exe().unwrap())
        .args([tails, rate, seconds, deaf].map(|n| n.to_string()))
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
        "server: {:.2} us CPU a delivery, {:.0} deliveries per CPU second, {memory:.1} KiB a tail",
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

/// Reads `lines` lines on each of `tails` connections; tells the distribution of their ways. `deaf` more connections ask and never read.
async fn read(addr: &str, tails: u64, lines: u64, deaf: u64) {
    let mut silent = Vec::new();
    for _ in 0..deaf {
        silent.push(connect(addr).await);
    }
    let mut tasks = Vec::new();
    for _ in 0..tails {
        let mut connection = connect(addr).await;
        let mut buffer = vec![0; 16 * 1024];
        let begun = connection.read(&mut buffer).await.unwrap();
        assert!(buffer[..begun].starts_with(b"HTTP/1.1 200"));
        tasks.push(tokio::spawn(async move {
            let (mut seen, mut ways) = (0, Vec::with_capacity(usize::try_from(lines).unwrap()));
            let mut begun = 0;
            while seen < lines {
                let got = connection.read(&mut buffer[begun..]).await.unwrap();
                assert!(got > 0, "the stream ended after {seen} lines");
                let end = begun + got;
                let whole = buffer[..end]
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |at| at + 1);
                for line in buffer[..whole].split(|byte| *byte == b'\n') {
                    if let Some(printed) = printed_time(line) {
                        ways.push(since(printed));
                        seen += 1;
                    }
                }
                buffer.copy_within(whole..end, 0);
                begun = end - whole;
            }
            ways
        }));
    }
    println!();
    std::io::Write::flush(&mut std::io::stdout()).unwrap();
    let began = Instant::now();
    let mut ways = Vec::new();
    for task in tasks {
        ways.extend(task.await.unwrap());
    }
    ways.sort_by(f64::total_cmp);
    let at = |part| at(&ways, part);
    println!(
        "{tails} tails and {deaf} that never read, {} lines in all in {:.1} s, none missing",
        ways.len(),
        began.elapsed().as_secs_f64()
    );
    println!(
        "line to client: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
