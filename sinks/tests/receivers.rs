//! Debian's rsyslog and syslog-ng receive every line, complete, in order and with the right fields,
//! also when they are killed.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

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

/// Where `tests/support/install-receivers` unpacks rsyslog, which conflicts with Debian's
/// syslog-ng.
const UNPACKED: &str = "/opt/tributary-receivers";

/// The number of lines in a test; `TRIBUTARY_TEST_LINES` overrides it.
fn lines() -> u64 {
    let set = std::env::var("TRIBUTARY_TEST_LINES").ok();
    set.map_or(100_000, |set| set.parse().expect("a number"))
}

/// The program that receives.
#[derive(Clone, Copy)]
enum Program {
    /// rsyslog with the input module `imtcp` or `imptcp`.
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
    /// The path of the program. `None` if it is not installed and not required.
    fn path(self) -> Option<PathBuf> {
        let (name, required) = match self {
            Self::Rsyslog(_) => ("rsyslogd", "TRIBUTARY_REQUIRE_RSYSLOG"),
            Self::SyslogNg => ("syslog-ng", "TRIBUTARY_REQUIRE_SYSLOG_NG"),
        };
        let mut directories: Vec<PathBuf> =
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        directories.extend(["/usr/sbin".into(), Path::new(UNPACKED).join("usr/sbin")]);
        let found = directories
            .into_iter()
            .map(|directory| directory.join(name))
            .find(|path| path.is_file());
        if found.is_none() {
            assert!(
                std::env::var_os(required).is_none(),
                "{name} is required but not installed; run tests/support/install-receivers"
            );
            eprintln!("skipped: {name} is not installed; run tests/support/install-receivers");
        }
        found
    }
}

impl Server {
    /// Starts a receiver on a free port.
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

    /// Starts the program and waits until it listens.
    async fn run(&mut self) {
        let path = self.program.path().expect("installed");
        let mut command = Command::new(&path);
        let conf = self.file("conf");
        match self.program {
            Program::Rsyslog(_) => {
                // An unpacked rsyslog has its modules next to it.
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
        let output = fs::File::create(self.file("output")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true);
        // A killed process leaves its PID file, which prevents the next start.
        let _ = fs::remove_file(self.file("pid"));
        self.child = Some(command.spawn().unwrap());
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                let ended = self.child.as_mut().unwrap().try_wait().unwrap();
                assert!(
                    ended.is_none(),
                    "{ended:?}: {}",
                    fs::read_to_string(self.file("output")).unwrap()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        bounded("the receiver", listens).await;
    }

    /// Kills the program, with unread and unwritten messages.
    async fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().await.unwrap();
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "syslog+tls" } else { "syslog+tcp" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Settings that trust the receiver's certificate.
    fn config(&self) -> Config {
        Config {
            ca: self.tls.then(|| self.file("cert.pem")),
            ..config()
        }
    }

    /// Waits until the output file contains a text, and returns its content.
    async fn until_written(&self, text: &str) -> String {
        let written = async {
            loop {
                let out = String::from_utf8(fs::read(self.file("out")).unwrap()).unwrap();
                // Searched from the end, where new lines are.
                if out.rfind(text).is_some() {
                    return out;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let limit = Duration::from_secs(120);
        tokio::time::timeout(limit, written)
            .await
            .unwrap_or_else(|_| panic!("{text:?}: {}", fs::read_to_string(self.file("output")).unwrap()))
    }
}

/// Publishes the numbered lines `from..to` in large batches.
async fn print(setup: &Setup, metadata: &Arc<bus::StreamMetadata>, from: u64, to: u64) {
    for seq in (from..to).step_by(1000) {
        let lines: Vec<String> = (seq..to.min(seq + 1000))
            .map(|n| format!("line {n} of many, of which each is as long as lines are"))
            .collect();
        setup.bus.publish(batch(metadata, seq, &lines)).await.unwrap();
    }
}

/// Checks that every line arrived in order with the right fields. Returns the number of repeated
/// lines.
fn check(out: &str, count: u64) -> u64 {
    let (mut next, mut repeated) = (0, 0);
    for line in out.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            (fields[0], fields[2], fields[3], fields[4]),
            ("14", "shop", "web-1", "line"),
            "{line}"
        );
        assert!(fields[1].starts_with("20") && fields[1].contains('.'), "{line}");
        assert!(line.ends_with("as long as lines are"), "incomplete: {line}");
        let seq: u64 = fields[5].parse().unwrap();
        assert!(seq <= next, "received {seq}, expected {next}");
        if seq == next {
            next += 1;
        } else {
            repeated += 1;
        }
    }
    assert_eq!(next, count);
    repeated
}

async fn receives_every_line(program: Program, tls: bool) {
    let Some(server) = Server::start(program, tls).await else {
        return;
    };
    let setup = Setup::open().await;
    setup.drain(&server.url()).await;
    let sinks = setup.start(server.config());
    let (web, count) = (metadata("web-1"), lines());
    print(&setup, &web, 0, count).await;
    let out = server.until_written(&format!("line {} ", count - 1)).await;
    assert_eq!(check(&out, count), 0);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_receives_every_line_over_tcp() {
    receives_every_line(Program::Rsyslog("imtcp"), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_receives_every_line_with_imptcp() {
    receives_every_line(Program::Rsyslog("imptcp"), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_receives_every_line_over_tls() {
    receives_every_line(Program::Rsyslog("imtcp"), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_ng_receives_every_line_over_tcp() {
    receives_every_line(Program::SyslogNg, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_ng_receives_every_line_over_tls() {
    receives_every_line(Program::SyslogNg, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_killed_ten_times_receives_every_line() {
    let Some(mut server) = Server::start(Program::Rsyslog("imtcp"), false).await else {
        return;
    };
    let setup = Setup::open().await;
    let drain = setup.drain(&server.url()).await;
    let sinks = setup.start(server.config());
    let web = metadata("web-1");
    let each = lines() / 10;
    for round in 0..10 {
        let half = round * each + each / 2;
        let kill = async {
            server.until_written(&format!("line {half} ")).await;
            server.kill().await;
            server.run().await;
        };
        tokio::join!(print(&setup, &web, round * each, (round + 1) * each), kill);
    }
    let out = server.until_written(&format!("line {} ", each * 10 - 1)).await;
    // The last line written before a kill may be incomplete; it is resent.
    let complete: String = out
        .lines()
        .filter(|line| line.ends_with("as long as lines are"))
        .map(|line| format!("{line}\n"))
        .collect();
    let repeated = check(&complete, each * 10);
    let report = setup
        .until_report(&drain, "repeats counted", |report| report.resent >= repeated)
        .await;
    assert_eq!(report.dropped, 0);
    sinks.stop().await;
}
