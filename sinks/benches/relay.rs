//! Lines relayed to a receiver over TCP, beside rsyslog and syslog-ng in the same run: lines a CPU second.
//!
//! `cargo bench -p sinks --bench relay [-- LINES TURNS]`, by default 1,000,000 and 3. Needs Debian's rsyslog and syslog-ng (`tests/support/install-receivers`).
//! Each relays the same lines of 100 bytes to the same receiver, which counts newlines. With us the CPU is that of the whole way on a disk that is synced: publishing to the
//! embedded bus, and sinks. With the others it is that of receiving over TCP and of relaying, with a queue on disk, and without one; what sends to them is not counted.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say so")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bus::{Batch, Bus, Content, Embedded, EmbeddedSettings, Epoch, StreamId, StreamMetadata, Timestamp};
use registry::{Addresses, DrainUrl, FileRegistry, Registry};
use sinks::{Config, Metrics};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Says to this program that it is to relay: to which port, how many lines.
const RELAY: &str = "TRIBUTARY_BENCH_RELAY";

const BESIDE: &str = "/opt/tributary-receivers";

/// Lines in a batch, as a busy container's are.
const BATCH: u64 = 500;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [lines, turns] = [(0, 1_000_000), (1, 3)].map(|(at, default)| numbers.get(at).copied().unwrap_or(default));
    if let Ok(port) = std::env::var(RELAY) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(relay(&port, lines));
    }
    for _ in 0..turns {
        ours(lines);
        for queue in [true, false] {
            rsyslog(lines, queue);
            syslog_ng(lines, queue);
        }
    }
}

/// A receiver that counts lines, on whatever connections.
struct Receiver {
    port: u16,
    seen: Arc<AtomicU64>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, counted) = (stream.unwrap(), Arc::clone(&counted));
                thread::spawn(move || {
                    let mut piece = vec![0; 1 << 20];
                    while let Ok(len @ 1..) = stream.read(&mut piece) {
                        let lines = memchr::memchr_iter(b'\n', &piece[..len]).count() as u64;
                        counted.fetch_add(lines, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { port, seen }
    }

    /// Waits until it has had so many, or two minutes have passed.
    fn wait(&self, lines: u64) {
        let begun = Instant::now();
        while self.seen.load(Ordering::Relaxed) < lines && begun.elapsed() < Duration::from_secs(120) {
            thread::sleep(Duration::from_millis(2));
        }
        let seen = self.seen.load(Ordering::Relaxed);
        if seen < lines {
            println!("gave up: {seen} of {lines} lines have come");
        }
    }
}

fn told(name: &str, lines: u64, took: Duration, cpu: f64) {
    println!(
        "{name}: {lines} lines in {:.2} s ({:.0}/s), {:.0} lines a CPU second",
        took.as_secs_f64(),
        lines as f64 / took.as_secs_f64(),
        lines as f64 / cpu
    );
}

fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11..=12].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    // USER_HZ, the same on all of Linux.
    ticks / 100.0
}

fn ours(lines: u64) {
    let receiver = Receiver::start();
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([lines.to_string()])
        .env(RELAY, receiver.port.to_string())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    receiver.wait(lines);
    told(
        "tributary, bus on disk, synced",
        lines,
        begun.elapsed(),
        cpu_seconds(child.id()),
    );
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Publishes and relays, until its input ends.
async fn relay(port: &str, lines: u64) {
    let dir = TempDir::new().unwrap();
    let bus = Arc::new(Embedded::open(&dir.path().join("bus"), EmbeddedSettings::default()).unwrap());
    let registry = Arc::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap());
    let addresses = Addresses::allowing(vec!["127.0.0.0/8".parse().unwrap()]);
    let url = DrainUrl::parse(&format!("syslog+tcp://127.0.0.1:{port}?framing=lf"), &addresses).unwrap();
    let drain = registry.add_drain("shop", &url, 1).await.unwrap();
    let app = "shop".parse().unwrap();
    bus.create(&app).await.unwrap();
    bus.ensure_subscription(&app, &drain.subscription()).await.unwrap();
    let config = Config {
        addresses,
        ..Config::default()
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(sinks::run(
        config,
        registry,
        Arc::clone(&bus) as _,
        Metrics::default(),
        stop.clone(),
    ));
    let metadata = Arc::new(StreamMetadata {
        app,
        process: "web-1".to_owned(),
        stream: StreamId::new("uid", "web", "c0ffee", Epoch::new()).unwrap(),
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    });
    let padding = "x".repeat(84);
    for seq in (0..lines).step_by(BATCH as usize) {
        let (count, now) = (BATCH.min(lines - seq), Timestamp::now());
        let mut data = String::with_capacity(140 * BATCH as usize);
        for n in seq..seq + count {
            data.push_str(&format!("{now} line {n:010} {padding}\n"));
        }
        let content = Content::Lines {
            data: data.into(),
            lines: count,
            part: None,
        };
        let metadata = Arc::clone(&metadata);
        bus.publish(Batch { metadata, seq, content }).await.unwrap();
    }
    // The other end of it says when all has arrived.
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]))
        .await
        .unwrap()
        .unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// Sends the lines to a relay that listens there, as RFC 5424 with a newline each.
fn send(port: u16, lines: u64) {
    let mut stream = connect(port);
    let padding = "x".repeat(84);
    let mut chunk = Vec::with_capacity(1 << 20);
    for n in 0..lines {
        writeln!(
            chunk,
            "<14>1 2026-11-23T07:00:00.123456Z shop web-1 - - - line {n:010} {padding}"
        )
        .unwrap();
        if chunk.len() > 1 << 19 {
            stream.write_all(&chunk).unwrap();
            chunk.clear();
        }
    }
    stream.write_all(&chunk).unwrap();
}

fn connect(port: u16) -> TcpStream {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Relays through this program.
fn through(name: &str, lines: u64, receiver: &Receiver, port: u16, child: &mut Child) {
    drop(connect(port));
    let (begun, cpu) = (Instant::now(), cpu_seconds(child.id()));
    send(port, lines);
    receiver.wait(lines);
    told(name, lines, begun.elapsed(), cpu_seconds(child.id()) - cpu);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn rsyslog(lines: u64, queue: bool) {
    let (dir, from) = (TempDir::new().unwrap(), free_port());
    let receiver = Receiver::start();
    let to = receiver.port;
    let path = dir.path().display();
    // Disk-assisted; without it, a linked list in memory. Neither throws anything away.
    let disk = if queue {
        "queue.filename=\"relay\" queue.maxdiskspace=\"4g\" queue.saveonshutdown=\"on\""
    } else {
        ""
    };
    let conf = format!(
        "global(workDirectory=\"{path}\")\n\
         module(load=\"imtcp\")\n\
         template(name=\"whole\" type=\"string\" string=\"<%pri%>1 %timestamp:::date-rfc3339% %hostname% %app-name% %procid% %msgid% - %msg%\\n\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{from}\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{to}\" protocol=\"tcp\" template=\"whole\" action.resumeRetryCount=\"-1\"\n\
                queue.type=\"LinkedList\" queue.size=\"100000\" queue.timeoutenqueue=\"60000\" {disk})\n"
    );
    fs::write(dir.path().join("conf"), conf).unwrap();
    let program = Path::new(BESIDE).join("usr/sbin/rsyslogd");
    let mut child = Command::new(program)
        .args(["-n", "-f"])
        .arg(dir.path().join("conf"))
        .arg("-i")
        .arg(dir.path().join("pid"))
        .arg("-M")
        .arg(Path::new(BESIDE).join("usr/lib/x86_64-linux-gnu/rsyslog"))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let name = if queue {
        "rsyslog, queue on disk"
    } else {
        "rsyslog, queue in memory"
    };
    through(name, lines, &receiver, from, &mut child);
}

fn syslog_ng(lines: u64, queue: bool) {
    let (dir, from) = (TempDir::new().unwrap(), free_port());
    let receiver = Receiver::start();
    let to = receiver.port;
    let path = dir.path().display();
    let disk = if queue {
        format!("disk-buffer(disk-buf-size(4294967296) reliable(no) dir(\"{path}\"))")
    } else {
        String::new()
    };
    let conf = format!(
        "@version: 3.38\n\
         options {{ keep-hostname(yes); stats-freq(0); log-fifo-size(200000); }};\n\
         source s {{ network(ip(127.0.0.1) port({from}) flags(syslog-protocol) log-iw-size(100000)); }};\n\
         destination d {{ network(\"127.0.0.1\" port({to}) transport(\"tcp\") flags(syslog-protocol) {disk}); }};\n\
         log {{ source(s); destination(d); flags(flow-control); }};\n"
    );
    fs::write(dir.path().join("conf"), conf).unwrap();
    let mut child = Command::new("/usr/sbin/syslog-ng")
        .args(["-F", "--no-caps", "-f"])
        .arg(dir.path().join("conf"))
        .arg("-p")
        .arg(dir.path().join("pid"))
        .arg("-R")
        .arg(dir.path().join("persist"))
        .arg("-c")
        .arg(dir.path().join("ctl"))
        .spawn()
        .unwrap();
    let name = if queue {
        "syslog-ng, buffer on disk"
    } else {
        "syslog-ng, buffer in memory"
    };
    through(name, lines, &receiver, from, &mut child);
}
