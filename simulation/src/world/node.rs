//! The node: its kubelet, its API server, and containers that print lines whose text occurs once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use kubesim::{
    Cluster, ContainerPlan as Container, FaultKind, LogFiles, LogLine, Output as Program, PodPlan, RestartPolicy, Role,
    Scenario,
};
use parking_lot::Mutex;

use super::hosts::Hosts;
use crate::{
    check::printed::{Output, Printed, Unit},
    machine::process::Process,
    plan::{ContainerPlan, Plan, Source},
    trace,
};

/// Where the kubelet writes log files.
pub const LOG_DIR: &str = "/var/log/pods";

/// The API as a client's transport.
pub type Service = kubesim::ApiService;

/// The node.
pub struct Node {
    cluster: Arc<Cluster>,
    process: Arc<Process>,
    containers: Vec<Arc<Printer>>,
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
            check: Duration::from_secs(5),
            // Summer time in Berlin; the fault `winter-time` ends it.
            utc_offset: Some(SignedDuration::from_hours(2)),
        };
        let scenario = Scenario {
            seed: plan.seed,
            rotate_bytes: usize::try_from(plan.rotate_bytes).unwrap_or(usize::MAX),
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
                })
            })
            .collect();
        for container in &containers {
            process.spawn(Arc::clone(container).run(plan.duration));
        }
        Ok(Self {
            cluster,
            process,
            containers,
        })
    }

    /// Returns the transport of API clients.
    pub fn service(&self) -> Service {
        self.cluster.service()
    }

    /// Causes a fault of the cluster.
    pub fn cause(&self, fault: FaultKind) {
        self.process.enter(|| self.cluster.cause(fault));
    }

    /// Ends the faults that last until somebody ends them.
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
        self.process.enter(|| container.print(50, 60));
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
            if let Err(error) = deleted.and(created) {
                trace::world(format!("pod {old} is not replaced: {error}"));
            }
            *container.pod.lock() = new;
        });
    }

    /// Rotates all logs so many times in a row.
    pub fn rotate(&self, times: u32) {
        self.process.enter(|| {
            for container in &self.containers {
                let pod = container.pod.lock().clone();
                for _ in 0..times {
                    container.print(2, container.plan.bytes);
                    let name = &container.plan.name;
                    // A container that does not run has nothing to rotate.
                    let _ = match container.source {
                        Source::Api => self.cluster.rotate_log(&container.app, &pod, name),
                        Source::Files => self.cluster.rotate_log_file(&container.app, &pod, name),
                    };
                }
            }
        });
    }

    /// Removes a container's log file, or truncates it.
    pub fn damage_log(&self, container: usize, is_removed: bool) {
        let Some(container) = self.containers.get(container) else {
            return;
        };
        let (pod, name) = (container.pod.lock().clone(), &container.plan.name);
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
        while trace::elapsed() < duration {
            tokio::time::sleep(self.plan.every).await;
            self.print(self.plan.lines, self.plan.bytes);
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
        let is_err = |number: u32| self.plan.stderr_every > 0 && number % self.plan.stderr_every == 0;
        let wanted: Vec<_> = (first..first + lines)
            .map(|number| LogLine {
                text: text(number).into_bytes(),
                stderr: is_err(number),
                time: None,
            })
            .collect();
        let Ok(written) = self.cluster.write_log(&self.app, &pod, &self.plan.name, wanted) else {
            return;
        };
        let instance = written.container_id.trim_start_matches("containerd://").to_owned();
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
            printed.add(&unit, &self.app, &pod, text(number), trace::elapsed());
        }
    }
}

fn pod(plan: &Plan, container: &ContainerPlan, name: &str) -> PodPlan {
    PodPlan {
        namespace: plan.apps[container.app].clone(),
        name: name.to_owned(),
        replicas: None,
        start_after: Duration::ZERO,
        delete_after: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        node: None,
        containers: vec![Container {
            name: container.name.clone(),
            role: Role::Main,
            output: Program::Silent,
            exit_code: 0,
            restart: RestartPolicy::Always,
            waiting: None,
        }],
    }
}
