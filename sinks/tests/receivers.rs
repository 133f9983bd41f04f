//! Real receivers, as Debian ships them: rsyslog and syslog-ng take every line, whole, in order, with its fields where they belong; also when they are killed.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bus::Bus;
use sinks::Config;
use support::*;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Where `tests/support/install-receivers` puts what Debian would not install beside the other.
const BESIDE: &str = "/opt/tributary-receivers";

/// Lines in a test. `TRIBUTARY_TEST_LINES` names another count: 1000000.
fn lines() -> u64 {
    let set = std::env::var("TRIBUTARY_TEST_LINES").ok();
    set.map_or(100_000, |set| set.parse().expect("a number"))
}

/// Which program.
#[derive(Clone, Copy)]
enum Program {
    /// rsyslog, with this input: `imtcp` or `imptcp`.
    Rsyslog(&'static str),
    SyslogNg,
}

/// A receiver that writes each message's fields into a file.
struct Server {
    program: Program,
    tls: bool,
    port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Program {
    /// Where it is. `None` where it is not, and nobody demands it.
    fn path(self) -> Option<PathBuf> {
        let (name, demanded) = match self {
            Self::Rsyslog(_) => ("rsyslogd", "TRIBUTARY_REQUIRE_RSYSLOG"),
            Self::SyslogNg => ("syslog-ng", "TRIBUTARY_REQUIRE_SYSLOG_NG"),
        };
        let mut places: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        places.extend(["/usr/sbin".into(), Path::new(BESIDE).join("usr/sbin")]);
        let found = places
            .into_iter()
            .map(|place| place.join(name))
            .find(|path| path.is_file());
        if found.is_none() {
            assert!(
                std::env::var_os(demanded).is_none(),
                "{name} is demanded and not there: tests/support/install-receivers brings it"
            );
            eprintln!("skipped: no {name} (tests/support/install-receivers brings it)");
        }
        found
    }
}

impl Server {
    /// One on a port of its own, that runs.
    async fn start(program: Program, tls: bool) -> Option<Self> {
        program.path()?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self {
            program,
            tls,
            port,
            dir: TempDir::new().unwrap(),
            child: None,
        };
        if tls {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            fs::write(server.file("cert.pem"), made.cert.pem()).unwrap();
            fs::write(server.file("key.pem"), made.signing_key.serialize_pem()).unwrap();
        }
        fs::write(server.file("out"), "").unwrap();
        fs::write(server.file("conf"), server.conf()).unwrap();
        server.run().await;
        Some(server)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn conf(&self) -> String {
        let (dir, port) = (self.dir.path().display(), self.port);
        match self.program {
            Program::Rsyslog(input) => {
                let (global, module) = if self.tls {
                    let files = format!(
                        "DefaultNetstreamDriverCAFile=\"{dir}/cert.pem\" DefaultNetstreamDriverCertFile=\"{dir}/cert.pem\" DefaultNetstreamDriverKeyFile=\"{dir}/key.pem\""
                    );
                    (
                        files,
                        "StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\"",
                    )
                } else {
                    (String::new(), "")
                };
                format!(
                    "global(workDirectory=\"{dir}\" maxMessageSize=\"128k\" {global})\n\
                     module(load=\"{input}\" {module})\n\
                     template(name=\"fields\" type=\"string\" string=\"%pri% %timestamp:::date-rfc3339% %hostname% %app-name% %msg%\\n\")\n\
                     input(type=\"{input}\" address=\"127.0.0.1\" port=\"{port}\")\n\
                     action(type=\"omfile\" file=\"{dir}/out\" template=\"fields\")\n"
                )
            }
            Program::SyslogNg => {
                let transport = if self.tls {
                    format!(
                        "transport(\"tls\") tls(key-file(\"{dir}/key.pem\") cert-file(\"{dir}/cert.pem\") peer-verify(optional-untrusted))"
                    )
                } else {
                    "transport(\"tcp\")".to_owned()
                };
                format!(
                    "@version: 3.38\n\
                     options {{ keep-hostname(yes); keep-timestamp(yes); ts-format(iso); frac-digits(6); stats-freq(0); log-msg-size(131072); }};\n\
                     source s {{ syslog(ip(127.0.0.1) port({port}) {transport}); }};\n\
                     destination d {{ file(\"{dir}/out\" template(\"$PRI $ISODATE $HOST $PROGRAM $MSG\\n\")); }};\n\
                     log {{ source(s); destination(d); flags(flow-control); }};\n"
                )
            }
        }
    }

    /// Starts it, and waits until it listens.
    async fn run(&mut self) {
        let path = self.program.path().expect("it was there a moment ago");
        let mut command = Command::new(&path);
        let conf = self.file("conf");
        match self.program {
            Program::Rsyslog(_) => {
                // One that was unpacked beside the system has its modules beside it.
                let modules = path.parent().unwrap().join("../lib/x86_64-linux-gnu/rsyslog");
                command.arg("-n").arg("-f").arg(conf).arg("-i").arg(self.file("pid"));
                if modules.is_dir() {
                    command.arg("-M").arg(modules);
                }
            }
            Program::SyslogNg => {
                command.args(["-F", "--no-caps", "-f"]).arg(conf);
                command
                    .arg("-p")
                    .arg(self.file("pid"))
                    .arg("-R")
                    .arg(self.file("persist"))
                    .arg("-c")
                    .arg(self.file("ctl"));
            }
        }
        let said = fs::File::create(self.file("said")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .kill_on_drop(true);
        // Whoever was killed leaves it behind, and the next would not start.
        let _ = fs::remove_file(self.file("pid"));
        self.child = Some(command.spawn().unwrap());
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                let ended = self.child.as_mut().unwrap().try_wait().unwrap();
                assert!(
                    ended.is_none(),
                    "{ended:?}: {}",
                    fs::read_to_string(self.file("said")).unwrap()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        bounded("the receiver", listens).await;
    }

    /// Killed, with what it has not read, or read and not written.
    async fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().await.unwrap();
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "syslog+tls" } else { "syslog+tcp" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What drains need to know whom they send to.
    fn config(&self) -> Config {
        Config {
            ca: self.tls.then(|| self.file("cert.pem")),
            ..config()
        }
    }

    /// Waits until its file holds this text.
    async fn until_written(&self, text: &str) -> String {
        let seen = async {
            loop {
                let out = String::from_utf8(fs::read(self.file("out")).unwrap()).unwrap();
                // The newest is what is waited for.
                if out.rfind(text).is_some() {
                    return out;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let most = Duration::from_secs(120);
        tokio::time::timeout(most, seen)
            .await
            .unwrap_or_else(|_| panic!("{text:?}: {}", fs::read_to_string(self.file("said")).unwrap()))
    }
}

/// Prints so many lines from `from` on, at whatever speed the bus takes them.
async fn print(house: &House, metadata: &Arc<bus::StreamMetadata>, from: u64, to: u64) {
    for seq in (from..to).step_by(1000) {
        let lines: Vec<String> = (seq..to.min(seq + 1000))
            .map(|n| format!("line {n} of many, of which each is as long as lines are"))
            .collect();
        house.bus.publish(batch(metadata, seq, &lines)).await.unwrap();
    }
}

/// Every line is there once and in its place, but for those that came again; returns how many did.
fn check(out: &str, count: u64) -> u64 {
    let (mut next, mut again) = (0, 0);
    for line in out.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            (fields[0], fields[2], fields[3], fields[4]),
            ("14", "shop", "web-1", "line"),
            "{line}"
        );
        assert!(fields[1].starts_with("20") && fields[1].contains('.'), "{line}");
        assert!(line.ends_with("as long as lines are"), "torn: {line}");
        let seq: u64 = fields[5].parse().unwrap();
        assert!(seq <= next, "{seq} where {next} was to come");
        if seq == next {
            next += 1;
        } else {
            again += 1;
        }
    }
    assert_eq!(next, count);
    again
}

async fn takes_every_line(program: Program, tls: bool) {
    let Some(server) = Server::start(program, tls).await else {
        return;
    };
    let house = House::open().await;
    house.drain(&server.url()).await;
    let sinks = house.start(server.config());
    let (web, count) = (metadata("web-1"), lines());
    print(&house, &web, 0, count).await;
    let out = server.until_written(&format!("line {} ", count - 1)).await;
    assert_eq!(check(&out, count), 0);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_takes_every_line_over_tcp() {
    takes_every_line(Program::Rsyslog("imtcp"), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_takes_every_line_by_its_plain_input() {
    takes_every_line(Program::Rsyslog("imptcp"), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_takes_every_line_over_tls() {
    takes_every_line(Program::Rsyslog("imtcp"), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_ng_takes_every_line_over_tcp() {
    takes_every_line(Program::SyslogNg, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_ng_takes_every_line_over_tls() {
    takes_every_line(Program::SyslogNg, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_killed_ten_times_has_every_line_in_the_end() {
    let Some(mut server) = Server::start(Program::Rsyslog("imtcp"), false).await else {
        return;
    };
    let house = House::open().await;
    let drain = house.drain(&server.url()).await;
    let sinks = house.start(server.config());
    let web = metadata("web-1");
    let each = lines() / 10;
    for round in 0..10 {
        let half = round * each + each / 2;
        let kill = async {
            server.until_written(&format!("line {half} ")).await;
            server.kill().await;
            server.run().await;
        };
        tokio::join!(print(&house, &web, round * each, (round + 1) * each), kill);
    }
    let out = server.until_written(&format!("line {} ", each * 10 - 1)).await;
    // The last line that it wrote before it was killed may be torn: it came again.
    let whole: String = out
        .lines()
        .filter(|line| line.ends_with("as long as lines are"))
        .map(|line| format!("{line}\n"))
        .collect();
    let again = check(&whole, each * 10);
    let report = house
        .until_report(&drain, "repeats counted", |report| report.resent >= again)
        .await;
    assert_eq!(report.dropped, 0);
    sinks.stop().await;
}
