//! Relays lines to a TCP receiver and compares lines per CPU second with rsyslog and syslog-ng.
//!
//! `cargo bench -p sinks --bench relay [-- LINES ROUNDS]`, by default 1,000,000 and 3. Requires
//! Debian's rsyslog and syslog-ng (`tests/support/install-receivers`). Each program relays the same
//! lines of 100 bytes to a receiver that counts newlines. The CPU time of Tributary includes
//! publishing to the embedded bus with synced writes, and sinks. The CPU time of the others
//! includes receiving over TCP and relaying, with a queue on disk and with one in memory, but not
//! the sender.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run panics")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

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
use registry::{AddressPolicy, DrainUrl, FileRegistry, Registry};
use sinks::{Config, Metrics};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The variable that makes this program relay to the port in it.
const RELAY: &str = "TRIBUTARY_BENCH_RELAY";

/// Where `install-receivers` unpacks rsyslog.
const UNPACKED: &str = "/opt/tributary-receivers";

/// Lines in a batch, as of a busy container.
const BATCH: u64 = 500;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [lines, rounds] = [(0, 1_000_000), (1, 3)].map(|(at, default)| numbers.get(at).copied().unwrap_or(default));
    if let Ok(port) = std::env::var(RELAY) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(relay(&port, lines));
    }
    for _ in 0..rounds {
        tributary(lines);
        for queue in [true, false] {
            rsyslog(lines, queue);
            syslog_ng(lines, queue);
        }
    }
}

/// A receiver that counts lines on all connections.
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

    /// Waits until `lines` lines arrived, at most two minutes.
    fn wait(&self, lines: u64) {
        let started = Instant::now();
        while self.seen.load(Ordering::Relaxed) < lines && started.elapsed() < Duration::from_secs(120) {
            thread::sleep(Duration::from_millis(2));
        }
        let seen = self.seen.load(Ordering::Relaxed);
        if seen < lines {
            println!("timeout: {seen} of {lines} lines received");
        }
    }
}

fn print_result(name: &str, lines: u64, took: Duration, cpu: f64) {
    println!(
        "{name}: {lines} lines in {:.2} s ({:.0}/s), {:.0} lines per CPU second",
        took.as_secs_f64(),
        lines as f64 / took.as_secs_f64(),
        lines as f64 / cpu
    );
}

fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11..=12].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    // USER_HZ is 100 on Linux.
    ticks / 100.0
}

fn tributary(lines: u64) {
    let receiver = Receiver::start();
    let started = Instant::now();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([lines.to_string()])
        .env(RELAY, receiver.port.to_string())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    receiver.wait(lines);
    print_result(
        "tributary, bus on disk, synced",
        lines,
        started.elapsed(),
        cpu_seconds(child.id()),
    );
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Publishes and relays until standard input ends.
async fn relay(port: &str, lines: u64) {
    let dir = TempDir::new().unwrap();
    let bus = Arc::new(Embedded::open(&dir.path().join("bus"), EmbeddedSettings::default()).unwrap());
    let registry = Arc::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap());
    let addresses = AddressPolicy::with_allowed(vec!["127.0.0.0/8".parse().unwrap()]);
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
    // The parent closes the pipe when all lines have arrived.
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]))
        .await
        .unwrap()
        .unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// Sends the lines to a relay as RFC 5424 messages with newlines.
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
    let started = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Measures a relay program.
fn measure(name: &str, lines: u64, receiver: &Receiver, port: u16, child: &mut Child) {
    drop(connect(port));
    let (started, cpu) = (Instant::now(), cpu_seconds(child.id()));
    send(port, lines);
    receiver.wait(lines);
    print_result(name, lines, started.elapsed(), cpu_seconds(child.id()) - cpu);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn rsyslog(lines: u64, queue: bool) {
    let (dir, from) = (TempDir::new().unwrap(), free_port());
    let receiver = Receiver::start();
    let to = receiver.port;
    let path = dir.path().display();
    // Disk-assisted, or a linked list in memory; neither discards messages.
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
    let program = Path::new(UNPACKED).join("usr/sbin/rsyslogd");
    let mut child = Command::new(program)
        .args(["-n", "-f"])
        .arg(dir.path().join("conf"))
        .arg("-i")
        .arg(dir.path().join("pid"))
        .arg("-M")
        .arg(Path::new(UNPACKED).join("usr/lib/x86_64-linux-gnu/rsyslog"))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let name = if queue {
        "rsyslog, queue on disk"
    } else {
        "rsyslog, queue in memory"
    };
    measure(name, lines, &receiver, from, &mut child);
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
    measure(name, lines, &receiver, from, &mut child);
}
