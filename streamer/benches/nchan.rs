//! Many WebSockets on one app, compared with nginx's nchan module.
//!
//! `cargo bench -p streamer --bench nchan [-- SOCKETS LINES_PER_SECOND SECONDS]`, by default 1000,
//! 20 and 20, three rounds each. Requires Debian's `nginx` and `libnginx-mod-nchan`. nchan sends
//! messages of 100 bytes; the streamer sends the same text as JSON. CPU and memory are those of the
//! server: for the streamer they include the durable bus and the publisher, for nginx its workers
//! only.

#![allow(clippy::unwrap_used, reason = "a panic reports why the benchmark cannot run")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

mod support;

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{Batch, Bus, Content, Embedded, EmbeddedSettings, Timestamp};
use support::{TestServer, cpu_seconds, metadata, millis_since, quantile, resident_kib};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const READERS: &str = "TRIBUTARY_BENCH_READERS";

/// Precedes the time in a line.
const MARKER: &[u8] = b"at=";

/// Number of digits of a time in nanoseconds.
const DIGITS: usize = 19;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [sockets, rate, seconds] =
        [(0, 1000), (1, 20), (2, 20)].map(|(at, default)| numbers.get(at).copied().unwrap_or(default));
    let load = Load { sockets, rate, seconds };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Ok(url) = std::env::var(READERS) {
        return runtime.block_on(read(&url, &load));
    }
    for _ in 0..3 {
        runtime.block_on(streamer(&load));
        runtime.block_on(nchan(&load));
    }
}

struct Load {
    sockets: u64,
    rate: u64,
    seconds: u64,
}

impl Load {
    fn lines(&self) -> u64 {
        self.rate * self.seconds
    }
}

async fn streamer(load: &Load) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
    let served = TestServer::start(Arc::clone(&bus) as Arc<dyn Bus>).await;
    let metadata = metadata("bench");
    bus.create(&metadata.app).await.unwrap();
    let own = [std::process::id()];
    let url = format!("{}/api/apps/bench/logs?num_lines=0", served.addr);
    measure("tributary", &own, &url, load, async |seq, line| {
        let content = Content::Lines {
            data: format!("{} {line}\n", Timestamp::now()).into(),
            lines: 1,
            part: None,
        };
        let batch = Batch {
            metadata: Arc::clone(&metadata),
            seq,
            content,
        };
        bus.publish(batch).await.unwrap();
    })
    .await;
    served.stop().await;
}

async fn nchan(load: &Load) {
    let nginx = Nginx::start().await;
    let url = format!("{}/sub", nginx.addr);
    let mut publisher = TcpStream::connect(&nginx.addr).await.unwrap();
    let mut response = [0; 4096];
    measure("nchan", &nginx.processes(), &url, load, async |_, line| {
        let request = format!(
            "POST /pub HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n{line}",
            line.len()
        );
        publisher.write_all(request.as_bytes()).await.unwrap();
        let count = publisher.read(&mut response).await.unwrap();
        assert!(
            response[..count].starts_with(b"HTTP/1.1 20"),
            "nchan accepted the message"
        );
    })
    .await;
}

/// Starts the readers in another process, publishes at a constant rate, and prints latency and
/// cost.
async fn measure(name: &str, server: &[u32], url: &str, load: &Load, mut publish: impl AsyncFnMut(u64, &str)) {
    let idle: u64 = server.iter().copied().map(resident_kib).sum();
    let mut readers = Command::new(std::env::current_exe().unwrap())
        .args([load.sockets, load.rate, load.seconds].map(|n| n.to_string()))
        .env(READERS, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = readers.stdout.take().unwrap();
    output.read_exact(&mut [0; 1]).unwrap();
    let full: u64 = server.iter().copied().map(resident_kib).sum();
    let cpu = || -> f64 { server.iter().copied().map(cpu_seconds).sum() };
    let before = cpu();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(load.rate).unwrap());
    for seq in 0..load.lines() {
        tick.tick().await;
        let head = format!("{}{} n={seq} ", str::from_utf8(MARKER).unwrap(), Timestamp::now().0);
        publish(seq, &format!("{head:x<100}")).await;
    }
    let report = tokio::task::spawn_blocking(move || {
        let mut report = String::new();
        output.read_to_string(&mut report).unwrap();
        assert!(readers.wait().unwrap().success());
        report
    });
    print!("{name}: {}", report.await.unwrap());
    let (used, deliveries) = (cpu() - before, (load.sockets * load.lines()) as f64);
    println!(
        "  {:.2} us CPU per delivery, {:.0} deliveries per CPU second; {:.1} KiB per socket, {:.1} MiB in total",
        used / deliveries * 1e6,
        deliveries / used,
        full.saturating_sub(idle) as f64 / load.sockets as f64,
        full as f64 / 1024.0
    );
}

async fn read(url: &str, load: &Load) {
    let (addr, path) = url.split_once('/').unwrap();
    let mut tasks = Vec::new();
    for _ in 0..load.sockets {
        let socket = open(addr, path).await;
        tasks.push(tokio::spawn(listen(socket, load.lines())));
    }
    // The upgrade response does not imply that the subscription is active.
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!();
    std::io::Write::flush(&mut std::io::stdout()).unwrap();
    let started = Instant::now();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies.sort_by(f64::total_cmp);
    println!(
        "{} lines to {} sockets in {:.1} s, none lost; latency: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        latencies.len(),
        load.sockets,
        started.elapsed().as_secs_f64(),
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
        quantile(&latencies, 1.0)
    );
}

async fn open(addr: &str, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET /{path} HTTP/1.1\r\nhost: bench\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket
}

/// Returns the latency of each line, independent of WebSocket framing.
async fn listen(mut socket: TcpStream, lines: u64) -> Vec<f64> {
    let mut latencies = Vec::with_capacity(usize::try_from(lines).unwrap());
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    while (latencies.len() as u64) < lines {
        let count = socket.read(&mut buffer[filled..]).await.unwrap();
        assert!(count > 0, "ended after {} lines", latencies.len());
        let end = filled + count;
        let mut parsed = 0;
        while let Some(found) = memchr::memmem::find(&buffer[parsed..end], MARKER) {
            let from = parsed + found + MARKER.len();
            if end < from + DIGITS {
                break;
            }
            let digits = str::from_utf8(&buffer[from..from + DIGITS]).unwrap();
            latencies.push(millis_since(Timestamp(digits.parse().unwrap())));
            parsed = from + DIGITS;
        }
        // A time may be split between two reads.
        let kept = parsed.max(end.saturating_sub(MARKER.len() + DIGITS));
        buffer.copy_within(kept..end, 0);
        filled = end - kept;
    }
    latencies
}

struct Nginx {
    addr: String,
    master: Child,
    _dir: tempfile::TempDir,
}

impl Nginx {
    /// Starts nginx with one worker per core, Debian's default.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let addr = format!("127.0.0.1:{port}");
        let config = format!(
            "daemon off;\npid {dir}/pid;\nerror_log stderr crit;\nworker_processes auto;\nworker_rlimit_nofile 8192;\n\
             load_module /usr/lib/nginx/modules/ngx_nchan_module.so;\nevents {{ worker_connections 4096; }}\n\
             http {{\naccess_log off;\nkeepalive_requests 1000000;\nserver {{\nlisten {addr};\n\
             location = /sub {{ nchan_subscriber websocket; nchan_channel_id bench; nchan_subscriber_first_message newest; }}\n\
             location = /pub {{ nchan_publisher http; nchan_channel_id bench; }}\n}}\n}}\n",
            dir = dir.path().display()
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let master = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(&file)
            .spawn()
            .expect("install nginx and libnginx-mod-nchan");
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&addr).await.is_err() {
            assert!(Instant::now() < deadline, "nginx listens within 10 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self {
            addr,
            master,
            _dir: dir,
        }
    }

    /// Returns the workers; the master is idle.
    fn processes(&self) -> Vec<u32> {
        let master = self.master.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // On SIGTERM the master stops its workers; after SIGKILL they would continue.
        let _ = Command::new("kill").arg(self.master.id().to_string()).status();
        let _ = self.master.wait();
    }
}
