//! Lost lines between a node and a client under faults, compared with `kubectl logs -f` of the same
//! containers.
//!
//! `cargo bench --bench node -- [api|files] [LINES] [calm|kill]`: six containers print LINES
//! (50,000) numbered lines each, 20,000 per second in total, into log files that rotate at 1 MiB,
//! while follows end, break, or stay on a rotated file. With `calm` there are no faults and files
//! rotate at 10 MiB, the kubelet's default. With `kill` the API server and the kubelet restart too,
//! and `tributary up` is killed with SIGKILL five times. A client reads with `tributary logs -o
//! json`, which reconnects. A lost line counts as reported if a gap notice stands between its
//! neighbours.

#![allow(clippy::unwrap_used, reason = "a failed benchmark should panic")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;

const CONTAINERS: usize = 6;

/// Lines per second of all containers.
const RATE: usize = 20_000;

/// The run ends after this long without a line.
const SILENCE: Duration = Duration::from_secs(30);

/// Interval of the kills.
const KILL_EVERY: Duration = Duration::from_secs(5);

const KILLS: usize = 5;

const BIN: &str = env!("CARGO_BIN_EXE_tributary");

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let source = if args.iter().any(|arg| arg == "files") {
        "files"
    } else {
        "api"
    };
    let lines = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(50_000);
    let has = |word: &str| args.iter().any(|arg| arg == word);
    let faults = match (has("calm"), has("kill")) {
        (true, _) => Faults::None,
        (_, true) => Faults::Kills,
        _ => Faults::Streams,
    };
    run(source, lines, faults);
}

/// Faults during a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    None,
    Streams,
    Kills,
}

fn run(source: &str, lines: u64, faults: Faults) {
    let kill = faults == Faults::Kills;
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("scenario.toml");
    std::fs::write(&scenario, scenario_of(lines, faults)).unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let mut node = Command::new(BIN);
    node.arg("kubesim").arg("--scenario").arg(&scenario);
    node.arg("--kubeconfig-out").arg(&kubeconfig);
    if source == "files" {
        node.arg("--pod-log-dir").arg(dir.path().join("pods"));
    }
    let _node = Process(node.stderr(Stdio::null()).spawn().unwrap());
    until(|| kubeconfig.exists());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let addr = format!("127.0.0.1:{port}");
    let mut up = up(dir.path(), &addr, source);
    until(|| logs(&addr).arg("--no-follow").output().unwrap().status.success());
    let (lines_of, ours) = mpsc::channel();
    let _client = client(&addr, lines_of);
    let kubectl: Vec<_> = pods(&kubeconfig)
        .iter()
        .map(|pod| (follow(dir.path(), pod), dir.path().join(pod_file(pod))))
        .collect();

    let started = Instant::now();
    let (mut seen, mut kills, mut resident) = (Seen::default(), 0, 0);
    while let Ok(line) = ours.recv_timeout(SILENCE) {
        seen.add(&line);
        if kill && kills < KILLS && started.elapsed() > KILL_EVERY * u32::try_from(kills + 1).unwrap() {
            resident = resident.max(up.peak_kib());
            up.0.kill().unwrap();
            up.0.wait().unwrap();
            up = self::up(dir.path(), &addr, source);
            kills += 1;
        }
        if seen.ended(lines) {
            break;
        }
    }
    resident = resident.max(up.peak_kib());
    let (lost, reported) = seen.lost(lines);
    println!(
        "{source}, {kills} kills: {} lines of {}, {} repeated, {} lost, {} of them reported; at most {} MB resident",
        seen.distinct(),
        lines * CONTAINERS as u64,
        seen.repeated,
        lost,
        reported,
        resident / 1024
    );
    let mut lost_by_kubectl = Vec::new();
    for (mut follow, file) in kubectl {
        assert!(follow.0.wait().unwrap().success());
        let all = std::fs::read_to_string(file).unwrap();
        let numbers: BTreeSet<u64> = all.lines().filter_map(number).collect();
        lost_by_kubectl.push(lines - numbers.len() as u64);
    }
    println!(
        "kubectl logs -f: {} lost, {lost_by_kubectl:?} by container",
        lost_by_kubectl.iter().sum::<u64>()
    );
}

/// Returns the scenario of a run.
fn scenario_of(lines: u64, faults: Faults) -> String {
    let rate = RATE / CONTAINERS;
    let seconds = lines as usize / rate;
    let (rotate, check) = if faults == Faults::None {
        (10 << 20, 10)
    } else {
        (1 << 20, 3)
    };
    let mut text = format!(
        "seed = 1\nrotate_bytes = {rotate}\n[log_files]\nmax_size = {rotate}\ncheck = \"{check}s\"\n\
         [[pods]]\nnamespace = \"bench\"\nname = \"web\"\nreplicas = {CONTAINERS}\n\
         [[pods.containers]]\nname = \"web\"\nlines = {lines}\nrate = {rate}\nsize = 100\ntext = \"n={{seq}} \"\n"
    );
    if faults == Faults::None {
        return text;
    }
    let mut fault = |at: usize, kind: &str| text += &format!("[[faults]]\nat = \"{at}s\"\nkind = {kind}\n");
    for (at, kind) in (4..seconds)
        .step_by(4)
        .zip(["end-streams", "strand-follows", "break-streams"].iter().cycle())
    {
        fault(at, &format!("\"{kind}\""));
    }
    if faults == Faults::Kills {
        // Not during a kill: `up` cannot start without the API.
        fault(12, "\"api-down\"\nfor = \"1s\"");
        fault(17, "\"kubelet-down\"\nfor = \"1s\"");
    }
    text
}

fn up(dir: &Path, addr: &str, source: &str) -> Process {
    let mut up = Command::new(BIN);
    up.args(["up", "--listen", addr, "--source", source, "--data-dir"])
        .arg(dir.join("data"));
    if source == "files" {
        up.arg("--pod-log-dir").arg(dir.join("pods"));
    }
    up.env("KUBECONFIG", dir.join("kubeconfig"));
    Process(up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn logs(addr: &str) -> Command {
    let mut logs = Command::new(BIN);
    logs.args(["logs", "bench", "-o", "json", "-n", "1000000", "--server"]);
    logs.arg(format!("http://{addr}"));
    logs
}

/// Starts a client that reads from the first line on.
fn client(addr: &str, lines: mpsc::Sender<Value>) -> Process {
    let mut logs = Command::new(BIN);
    logs.args(["logs", "bench", "-o", "json", "-n", "1000000", "--server"])
        .arg(format!("http://{addr}"));
    let mut child = logs.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if lines.send(serde_json::from_str(&line).unwrap()).is_err() {
                return;
            }
        }
    });
    Process(child)
}

fn kubectl(kubeconfig: &Path) -> Command {
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("--kubeconfig").arg(kubeconfig).args(["-n", "bench"]);
    kubectl
}

fn pods(kubeconfig: &Path) -> Vec<String> {
    let mut names = Vec::new();
    until(|| {
        let listed = kubectl(kubeconfig)
            .args(["get", "pods", "-o", "name"])
            .output()
            .unwrap();
        names = String::from_utf8(listed.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        names.len() == CONTAINERS
    });
    names
}

/// Follows a pod with kubectl into a file, and restarts kubectl when it fails or is cut off.
fn follow(dir: &Path, pod: &str) -> Process {
    let script = r#"until kubectl --kubeconfig "$0" -n bench logs -f "$1" >> "$2"; do sleep 0.1; done"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(dir.join("kubeconfig")).arg(pod);
    Process(
        shell
            .arg(dir.join(pod_file(pod)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

/// Replaces the slash in a name of `kubectl get -o name`.
fn pod_file(pod: &str) -> String {
    pod.replace('/', "-")
}

/// The lines that the client received.
#[derive(Default)]
struct Seen {
    /// By process: each line's number, and whether a gap notice of its stream precedes it.
    numbers: BTreeMap<String, BTreeMap<u64, bool>>,
    /// Container instances with a gap notice and no line since.
    pending_notices: BTreeSet<String>,
    repeated: u64,
}

impl Seen {
    fn add(&mut self, line: &Value) {
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        if let Some(stream) = line["notice"]["stream"].as_str() {
            self.pending_notices.insert(instance(stream));
            return;
        }
        let Some(number) = number(text("text")) else { return };
        let is_reported = self.pending_notices.remove(&instance(text("stream")));
        let numbers = self.numbers.entry(text("process").to_owned()).or_default();
        self.repeated += u64::from(numbers.insert(number, is_reported).is_some());
    }

    fn distinct(&self) -> usize {
        self.numbers.values().map(BTreeMap::len).sum()
    }

    fn ended(&self, lines: u64) -> bool {
        let last = |numbers: &BTreeMap<u64, bool>| numbers.contains_key(&(lines - 1));
        self.numbers.len() == CONTAINERS && self.numbers.values().all(last)
    }

    /// Returns the number of lost lines, and how many of them a gap notice reports.
    fn lost(&self, lines: u64) -> (u64, u64) {
        let (mut lost, mut reported) = (0, 0);
        for numbers in self.numbers.values() {
            let mut next = 0;
            for (number, is_reported) in numbers {
                lost += number - next;
                reported += if *is_reported { number - next } else { 0 };
                next = number + 1;
            }
            lost += lines - next;
        }
        (lost + lines * (CONTAINERS - self.numbers.len()) as u64, reported)
    }
}

/// Returns a stream id without its epoch: after a gap of unknown size a new epoch starts.
fn instance(stream: &str) -> String {
    stream
        .rsplit_once('/')
        .map_or(stream, |(instance, _)| instance)
        .to_owned()
}

fn number(text: &str) -> Option<u64> {
    let number = text.split("n=").nth(1)?;
    number.split(' ').next()?.parse().ok()
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not within 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Process(Child);

impl Process {
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
