//! One app's lines to many WebSockets, beside nginx's nchan module in the same run.
//!
//! `cargo bench -p streamer --bench nchan [-- SOCKETS LINES_PER_SECOND SECONDS]`, by default 1000, 20 and 20, three turns each. Needs Debian's `nginx` and `libnginx-mod-nchan`.
//! A line is a message of 100 bytes to nchan; from us it comes in its JSON. Figures of CPU and memory are the server's: with us the synced bus and its publisher
//! included, with nginx all its processes, but not what publishes.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say so")]

mod support;

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{Batch, Bus, Content, Embedded, EmbeddedSettings, Timestamp};
use support::{Served, at, cpu_seconds, metadata, resident_kib, since};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const READERS: &str = "TRIBUTARY_BENCH_READERS";

/// What stands before the time in a line.
const PRINTED: &[u8] = b"at=";

/// Digits of a time in nanoseconds.
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
        runtime.block_on(ours(&load));
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

async fn ours(load: &Load) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
    let served = Served::start(Arc::clone(&bus) as Arc<dyn Bus>).await;
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
    let mut answer = [0; 4096];
    measure("nchan", &nginx.processes(), &url, load, async |_, line| {
        let request = format!(
            "POST /pub HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n{line}",
            line.len()
        );
        publisher.write_all(request.as_bytes()).await.unwrap();
        let got = publisher.read(&mut answer).await.unwrap();
        assert!(answer[..got].starts_with(b"HTTP/1.1 20"), "nchan took it");
    })
    .await;
}

/// Readers in a process of their own, a line a tick, and what that cost the server.
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
        let head = format!("{}{} n={seq} ", str::from_utf8(PRINTED).unwrap(), Timestamp::now().0);
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
        "  {:.2} us CPU a delivery, {:.0} deliveries per CPU second; {:.1} KiB a socket, {:.1} MiB in all",
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
    // An answer of 101 does not say that the subscription stands.
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!();
    std::io::Write::flush(&mut std::io::stdout()).unwrap();
    let began = Instant::now();
    let mut ways = Vec::new();
    for task in tasks {
        ways.extend(task.await.unwrap());
    }
    ways.sort_by(f64::total_cmp);
    println!(
        "{} lines to {} sockets in {:.1} s, none missing; line to client: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        ways.len(),
        load.sockets,
        began.elapsed().as_secs_f64(),
        at(&ways, 0.5),
        at(&ways, 0.99),
        at(&ways, 1.0)
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

/// How long each of so many lines was on its way; whatever frames they come in.
async fn listen(mut socket: TcpStream, lines: u64) -> Vec<f64> {
    let mut ways = Vec::with_capacity(usize::try_from(lines).unwrap());
    let mut buffer = vec![0; 16 * 1024];
    let mut begun = 0;
    while (ways.len() as u64) < lines {
        let got = socket.read(&mut buffer[begun..]).await.unwrap();
        assert!(got > 0, "ended after {} lines", ways.len());
        let end = begun + got;
        let mut taken = 0;
        while let Some(found) = memchr::memmem::find(&buffer[taken..end], PRINTED) {
            let from = taken + found + PRINTED.len();
            if end < from + DIGITS {
                break;
            }
            let printed = str::from_utf8(&buffer[from..from + DIGITS]).unwrap();
            ways.push(since(Timestamp(printed.parse().unwrap())));
            taken = from + DIGITS;
        }
        // A time may be cut in two.
        let kept = taken.max(end.saturating_sub(PRINTED.len() + DIGITS));
        buffer.copy_within(kept..end, 0);
        begun = end - kept;
    }
    ways
}

struct Nginx {
    addr: String,
    master: Child,
    _dir: tempfile::TempDir,
}

impl Nginx {
    /// With as many workers as there are cores, as Debian has it.
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
            .expect("nginx is to be installed, with libnginx-mod-nchan");
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

    /// The workers; the master does nothing.
    fn processes(&self) -> Vec<u32> {
        let master = self.master.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It ends its workers, who would outlive it if it were killed.
        let _ = Command::new("kill").arg(self.master.id().to_string()).status();
        let _ = self.master.wait();
    }
}
