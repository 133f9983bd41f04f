//! The node: its kubelet, its API server, and containers that print lines whose text occurs once.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use kubesim::{Cluster, FaultKind, LogFiles, LogLine, PodPlan, RestartPolicy, Scenario};
use parking_lot::Mutex;

use super::{hosts::Hosts, later};
use crate::{
    check::printed::{Output, Printed, Unit},
    machine::process::Process,
    plan::{ContainerPlan, Plan, Source},
    trace,
};

/// Where the kubelet writes log files.
pub const LOG_DIR: &str = "/var/log/pods";

/// How often the kubelet looks at the sizes of logs.
const ROTATION_CHECK: Duration = Duration::from_secs(5);

/// Least time between two rotations of a log, and the time between those in a row. A kubelet looks
/// at a log every few seconds, so that each file exists for a while.
const ROTATION_PAUSE: Duration = Duration::from_millis(700);

/// Least age of the first line of a log that is rotated: it must become large first. What a
/// container printed within its first 3 s may be rotated away unnoticed, as docs/operators/sources.md
/// says.
const YOUNGEST_ROTATED: Duration = Duration::from_secs(3);

/// The API as a client's transport.
pub type Service = kubesim::ApiService;

/// The node.
pub struct Node {
    cluster: Arc<Cluster>,
    process: Arc<Process>,
    containers: Vec<Arc<Printer>>,
    has_clock_fault: Arc<AtomicBool>,
}

/// A container that prints.
struct Printer {
    plan: ContainerPlan,
    app: String,
    source: Source,
    cluster: Arc<Cluster>,
    printed: Arc<Mutex<Printed>>,
    /// The current pod: it is replaced by others.
    pod: Mutex<String>,
    replaced: AtomicU32,
    /// Numbers the lines of all instances.
    lines: AtomicU32,
    /// Bytes since the last look at the log's size.
    bytes: AtomicU64,
    /// When the log was rotated.
    rotated_at: Mutex<Option<Duration>>,
    /// The current instance, and when it printed its first line.
    first_printed: Mutex<(String, Duration)>,
    /// Nothing was printed since the log was rotated.
    is_log_empty: AtomicBool,
    /// Whether the runtime stamps lines by a clock that stands still, or out of order.
    has_clock_fault: Arc<AtomicBool>,
}

impl Node {
    /// Starts the node with the containers of a plan.
    ///
    /// # Errors
    /// The cluster does not start.
    pub async fn start(plan: &Plan, hosts: &Hosts, printed: Arc<Mutex<Printed>>) -> anyhow::Result<Self> {
        let process = hosts.process("node", &hosts.node);
        let log_files = LogFiles {
            dir: (plan.source == Source::Files).then(|| LOG_DIR.into()),
            max_size: plan.rotate_bytes,
            max_files: plan.rotate_files,
            check: ROTATION_CHECK,
            // Summer time in Berlin; the fault `winter-time` ends it.
            utc_offset: Some(SignedDuration::from_hours(2)),
        };
        let scenario = Scenario {
            seed: plan.seed,
            // The kubelet looks at sizes every few seconds, as `Printer::rotate_if_large` does.
            rotate_bytes: usize::MAX,
            restart_backoff: Duration::from_secs(1),
            pods: plan
                .containers
                .iter()
                .map(|container| pod(plan, container, &container.pod))
                .collect(),
            log_files,
            ..Scenario::default()
        };
        let cluster = Arc::new(process.enter(|| kubesim::start_in_process(scenario))?);
        let has_clock_fault = Arc::new(AtomicBool::new(false));
        let containers: Vec<_> = plan
            .containers
            .iter()
            .map(|container| {
                Arc::new(Printer {
                    plan: container.clone(),
                    app: plan.apps[container.app].clone(),
                    source: plan.source,
                    cluster: Arc::clone(&cluster),
                    printed: Arc::clone(&printed),
                    pod: Mutex::new(container.pod.clone()),
                    replaced: AtomicU32::new(0),
                    lines: AtomicU32::new(0),
                    bytes: AtomicU64::new(0),
                    rotated_at: Mutex::new(None),
                    first_printed: Mutex::default(),
                    is_log_empty: AtomicBool::new(false),
                    has_clock_fault: Arc::clone(&has_clock_fault),
                })
            })
            .collect();
        for container in &containers {
            process.spawn(Arc::clone(container).run(plan.duration));
            if plan.source == Source::Api {
                process.spawn(Arc::clone(container).rotate_if_large(plan.rotate_bytes));
            }
        }
        Ok(Self {
            cluster,
            process,
            containers,
            has_clock_fault,
        })
    }

    /// Returns the transport of API clients.
    pub fn service(&self) -> Service {
        self.cluster.service()
    }

    /// Returns how many requests for logs there have been.
    pub fn log_requests(&self) -> u64 {
        self.cluster.log_requests()
    }

    /// Returns the number of containers.
    pub fn containers(&self) -> usize {
        self.containers.len()
    }

    /// Causes a fault of the cluster.
    pub fn cause(&self, fault: FaultKind) {
        self.process.enter(|| self.cluster.cause(fault));
    }

    /// Ends the faults that do not end by themselves.
    pub fn end_faults(&self) {
        self.process.enter(|| {
            self.cluster.set_down(false);
            self.cluster.stall_follows(false);
            self.cluster.mute_watches(false);
        });
    }

    /// Prints lines at once.
    pub fn burst(&self, container: usize, lines: u32, bytes: u32) {
        if let Some(container) = self.containers.get(container) {
            self.process.enter(|| container.print(lines, bytes));
        }
    }

    /// Prints lines whose stamps are out of order.
    pub fn print_out_of_order(&self, container: usize) {
        let Some(container) = self.containers.get(container) else {
            return;
        };
        self.cause(FaultKind::DelayWrites {
            duration: Duration::from_secs(5),
            delay: Duration::from_millis(5),
        });
        self.stamp_by_clock(Duration::from_secs(5));
        self.process.enter(|| container.print(50, 60));
    }

    /// Every container prints lines at once.
    pub fn print_everywhere(&self, lines: u32, bytes: u32) {
        for container in &self.containers {
            self.process.enter(|| container.print(lines, bytes));
        }
    }

    /// Containers whose log is empty since it was rotated print a line. The API shows nothing of
    /// what was rotated before an empty log: a gap is declared with the next line, or at the end.
    pub fn print_in_empty_logs(&self) {
        let is_empty = |container: &&Arc<Printer>| container.is_log_empty.load(Ordering::Relaxed);
        for container in self.containers.iter().filter(is_empty) {
            self.process.enter(|| container.print(1, 60));
        }
    }

    /// Lets the clock stand still for a time.
    pub fn freeze_clock(&self, time: Duration) {
        self.stamp_by_clock(time);
        self.cause(FaultKind::FreezeClock { duration: time });
    }

    fn stamp_by_clock(&self, time: Duration) {
        let has_fault = Arc::clone(&self.has_clock_fault);
        has_fault.store(true, Ordering::Relaxed);
        later(time, move || has_fault.store(false, Ordering::Relaxed));
    }

    /// Makes a container exit.
    pub fn exit(&self, container: usize, code: i32) {
        let Some(container) = self.containers.get(container).cloned() else {
            return;
        };
        self.process.spawn(async move {
            let (cluster, pod) = (&container.cluster, container.pod.lock().clone());
            if let Err(error) = cluster
                .exit_container(&container.app, &pod, &container.plan.name, code)
                .await
            {
                trace::world(format!("container of {pod} does not exit: {error}"));
            }
        });
    }

    /// Deletes the pod of a container and creates another one.
    pub fn replace(&self, container: usize, plan: &Plan) {
        let Some(container) = self.containers.get(container) else {
            return;
        };
        self.process.enter(|| {
            let number = container.replaced.fetch_add(1, Ordering::Relaxed) + 1;
            let (old, new) = (
                container.pod.lock().clone(),
                format!("{}-r{number}", container.plan.pod),
            );
            let deleted = self.cluster.delete_pod(&container.app, &old, Some(2));
            let created = self.cluster.create_pod(&pod(plan, &container.plan, &new));
            match deleted.and(created).and(self.cluster.served(&container.app, &new)) {
                Ok(is_served) => {
                    let mut printed = container.printed.lock();
                    printed.remove_pod(&old);
                    printed.add_pod(&new, is_served);
                }
                Err(error) => trace::world(format!("pod {old} is not replaced: {error}")),
            }
            container.printed.lock().delete_pod(old, trace::elapsed());
            *container.pod.lock() = new;
        });
    }

    /// Rotates all logs so many times, one soon after the other.
    pub fn rotate(&self, times: u32) {
        for container in self.containers.iter().cloned() {
            self.process.spawn(async move {
                for _ in 0..times {
                    container.print(2, container.plan.bytes);
                    container.rotate();
                    tokio::time::sleep(ROTATION_PAUSE).await;
                }
            });
        }
    }

    /// Removes a container's log file, or truncates it.
    ///
    /// A file of which nothing was read can be removed or emptied without a trace: it is left alone.
    pub fn damage_log(&self, container: usize, is_removed: bool) {
        let Some(container) = self.containers.get(container) else {
            return;
        };
        let (pod, name) = (container.pod.lock().clone(), &container.plan.name);
        let disk = &self.process.host.disk;
        let file = current_file(disk.files(Path::new(LOG_DIR)), &format!("{}_{pod}_", container.app));
        if !file.is_some_and(|file| disk.is_read(&file)) {
            return trace::world(format!("log file of {pod} is unchanged: nothing of it was read"));
        }
        self.process.enter(|| {
            let changed = if is_removed {
                self.cluster.remove_log_file(&container.app, &pod, name)
            } else {
                self.cluster.truncate_log_file(&container.app, &pod, name)
            };
            if let Err(error) = changed {
                trace::world(format!("log file of {pod} is unchanged: {error}"));
            }
        });
    }
}

impl Printer {
    async fn run(self: Arc<Self>, duration: Duration) {
        loop {
            tokio::time::sleep(self.plan.every).await;
            if trace::elapsed() > duration {
                return;
            }
            self.print(self.plan.lines, self.plan.bytes);
        }
    }

    /// Rotates the log that the API serves when it has grown.
    async fn rotate_if_large(self: Arc<Self>, limit: u64) {
        loop {
            tokio::time::sleep(ROTATION_CHECK).await;
            if self.bytes.swap(0, Ordering::Relaxed) > limit {
                self.rotate();
            }
        }
    }

    /// Rotates the log, unless that has just happened. A container that does not run has nothing to
    /// rotate.
    fn rotate(&self) {
        let now = trace::elapsed();
        let mut rotated_at = self.rotated_at.lock();
        let is_young = now < self.first_printed.lock().1 + YOUNGEST_ROTATED;
        if is_young || rotated_at.is_some_and(|at| now < at + ROTATION_PAUSE) {
            return;
        }
        let (pod, name) = (self.pod.lock().clone(), &self.plan.name);
        let rotated = match self.source {
            Source::Api => self.cluster.rotate_log(&self.app, &pod, name),
            Source::Files => self.cluster.rotate_log_file(&self.app, &pod, name),
        };
        if rotated.is_ok() {
            *rotated_at = Some(now);
            self.is_log_empty.store(true, Ordering::Relaxed);
            let next = self.lines.load(Ordering::Relaxed);
            trace::record("node", format!("the log of {pod} is rotated before line {next}"));
        }
    }

    /// Prints lines, if the container runs.
    fn print(&self, lines: u32, bytes: u32) {
        let pod = self.pod.lock().clone();
        let first = self.lines.fetch_add(lines, Ordering::Relaxed);
        let text = |number: u32| {
            let head = format!("{pod} line {number} ");
            format!("{head:x<width$}", width = bytes as usize)
        };
        let is_err = |number: u32| self.plan.stderr_every > 0 && number.is_multiple_of(self.plan.stderr_every);
        // A print takes a moment: its lines have different times, unless the clock is at fault.
        let now = self.cluster.node_time();
        let is_plain = !self.has_clock_fault.load(Ordering::Relaxed);
        let time = |number: u32| is_plain.then(|| now + SignedDuration::from_micros(i64::from(number - first)));
        let wanted: Vec<_> = (first..first + lines)
            .map(|number| LogLine {
                text: text(number).into_bytes(),
                stderr: is_err(number),
                time: time(number),
            })
            .collect();
        let Ok(written) = self.cluster.write_log(&self.app, &pod, &self.plan.name, wanted) else {
            return;
        };
        self.bytes
            .fetch_add(u64::from(lines) * u64::from(bytes), Ordering::Relaxed);
        let instance = written.container_id.trim_start_matches("containerd://").to_owned();
        self.is_log_empty.store(false, Ordering::Relaxed);
        let mut first_printed = self.first_printed.lock();
        if first_printed.0 != instance {
            *first_printed = (instance.clone(), trace::elapsed());
        }
        drop(first_printed);
        let mut printed = self.printed.lock();
        for (line, number) in written.lines.iter().zip(first..) {
            let output = match (self.source, line.stderr) {
                (Source::Api, _) => Output::Both,
                (Source::Files, false) => Output::Out,
                (Source::Files, true) => Output::Err,
            };
            let unit = Unit {
                instance: instance.clone(),
                output,
            };
            printed.add(&unit, &self.app, &pod, text(number), (line.time, trace::elapsed()));
        }
    }
}

/// Returns the file to which the newest instance of a pod's container prints.
fn current_file(files: Vec<(PathBuf, u64)>, pod_dir: &str) -> Option<PathBuf> {
    let root = format!("{LOG_DIR}/{pod_dir}");
    let of_pod = files
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.to_string_lossy().starts_with(&root));
    let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".log")?.parse::<u32>().ok();
    let current = of_pod.filter_map(|path| Some((number(&path)?, path))).max();
    current.map(|(_, path)| path)
}

fn pod(plan: &Plan, container: &ContainerPlan, name: &str) -> PodPlan {
    PodPlan::silent(&plan.apps[container.app], name, &container.name).restarting(RestartPolicy::Always)
}
