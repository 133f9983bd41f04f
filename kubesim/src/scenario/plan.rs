//! The types of a scenario. Points in time count from the start of the cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;

use crate::access::User;

/// A scenario: pods, faults, users and settings of the cluster.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Seed of generated names and of program output. UIDs and container IDs are random: two runs
    /// are two clusters.
    pub seed: u64,
    /// Size in bytes at which the log served by the API rotates, checked at every write: the
    /// kubelet's `containerLogMaxSize`.
    pub rotate_bytes: usize,
    /// Delay before a container's second restart; doubles up to 30 times this value.
    pub restart_backoff: Duration,
    /// Pods, in file order.
    pub pods: Vec<PodPlan>,
    /// Faults, in file order.
    pub faults: Vec<Fault>,
    /// Rotation of the log files on disk.
    pub log_files: LogFiles,
    /// Users of the API, for `TokenReview`, `SubjectAccessReview` and authorization.
    pub users: Vec<User>,
    /// Whether the API requires a token and enforces permissions.
    pub authorize: bool,
}

/// Settings of log files on disk, as in a kubelet's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// Directory, as the kubelet's `podLogsDir`; `None`: no files are written. Not a scenario key.
    pub dir: Option<PathBuf>,
    /// Size in bytes at which a file is rotated: the kubelet's `containerLogMaxSize`.
    pub max_size: u64,
    /// Maximum number of files of a container instance, including the current one: the kubelet's
    /// `containerLogMaxFiles`.
    pub max_files: usize,
    /// Interval of the size check: the kubelet's `containerLogMonitorInterval`.
    pub check: Duration,
    /// Difference of the node's local time to UTC, which the names of rotated files contain;
    /// `None`: the time zone of the operating system.
    pub utc_offset: Option<SignedDuration>,
}

impl Default for LogFiles {
    /// The kubelet's defaults, without a directory.
    fn default() -> Self {
        Self {
            dir: None,
            max_size: 10 << 20,
            max_files: 5,
            check: Duration::from_secs(10),
            utc_offset: None,
        }
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 0,
            log_files: LogFiles::default(),
            rotate_bytes: ROTATE_BYTES,
            restart_backoff: RESTART_BACKOFF,
            pods: Vec::new(),
            faults: Vec::new(),
            users: Vec::new(),
            authorize: false,
        }
    }
}

/// One `[[pods]]` entry: a pod or its replicas.
#[derive(Debug, Clone)]
pub struct PodPlan {
    /// Namespace; created at the start of the cluster.
    pub namespace: String,
    /// Name of the pod, or name prefix of its replicas.
    pub name: String,
    /// `None`: one pod named `name`; otherwise this many pods named `name-<hash>-<5 characters>`.
    pub replicas: Option<u32>,
    /// When the pod is created.
    pub start_after: Duration,
    /// When the pod is deleted, with its grace period, if ever.
    pub delete_after: Option<Duration>,
    /// Labels; `app` defaults to `name`.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// `spec.nodeName`; `None` is the simulated node, an empty name leaves the pod unscheduled.
    pub node: Option<String>,
    /// Containers, at least one with [`Role::Main`].
    pub containers: Vec<ContainerPlan>,
}

/// One `[[pods.containers]]` entry.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    /// Name, unique in the pod.
    pub name: String,
    /// Role in the pod.
    pub role: Role,
    /// Output of the container.
    pub output: Output,
    /// Exit code after the last line.
    pub exit_code: i32,
    /// Restart policy.
    pub restart: RestartPolicy,
    /// If set, a main container never starts and waits with this reason (`ErrImagePull`,
    /// `ContainerCreating`, ...).
    pub waiting: Option<String>,
}

/// Role of a container in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// An entry of `spec.containers`.
    #[default]
    Main,
    /// An entry of `spec.initContainers`: runs to completion before the next container starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in the init sequence and keeps
    /// running.
    Sidecar,
    /// An entry of `spec.ephemeralContainers`, as `kubectl debug` adds it; never restarted.
    Ephemeral {
        /// Delay after the start of the main containers.
        after: Duration,
    },
}

/// Output of a container.
#[derive(Debug, Clone)]
pub enum Output {
    /// No generated output; a test writes the lines.
    Silent,
    /// Lines from a template.
    Lines(LinePlan),
    /// A built-in program and its rate in lines per second.
    Program(Program, f64),
}

/// Numbered lines from a template.
#[derive(Debug, Clone)]
pub struct LinePlan {
    /// Number of lines before the container exits; 0: endless.
    pub lines: u64,
    /// Lines per second; 0: as fast as possible.
    pub rate: f64,
    /// Size in bytes of each line's content (without timestamp and newline); lines are padded or
    /// cut.
    pub size: Option<usize>,
    /// Template with the placeholders `{seq}` (from 0 in each container instance), `{pod}`,
    /// `{namespace}` and `{container}`. A newline becomes a space.
    pub text: String,
    /// Every n-th line goes to standard error; `None`: no line.
    pub stderr_every: Option<u64>,
}

/// Built-in programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// A web application: request lines, JSON, colours, occasional stack traces.
    Web,
    /// A job worker: jobs, retries, JSON.
    Worker,
    /// Fails at start-up: prints a stack trace and exits with code 1.
    Crash,
}

/// Restart policy, as in Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum RestartPolicy {
    /// Restart after every exit.
    Always,
    /// Restart after an exit code other than 0.
    OnFailure,
    /// Never restart.
    Never,
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Time since the start of the cluster.
    pub at: Duration,
    /// Kind of the fault.
    pub kind: FaultKind,
}

/// Kinds of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Deletes a pod with its grace period, as `kubectl delete pod` does.
    DeletePod {
        /// Namespace of the pod.
        namespace: String,
        /// Pod name, or the `name` of a `[[pods]]` entry (then its first remaining replica).
        pod: String,
    },
    /// Ends every open follow and watch cleanly, as a restart of kubelet or API server does.
    EndStreams,
    /// Breaks off every open follow and watch without the last chunk.
    BreakStreams,
    /// Closes the API port and breaks its connections.
    ApiDown {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Stops the kubelet: follows end cleanly, log requests return 500, then 404 while it starts.
    KubeletDown {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Stops the container runtime: new log requests return 200 with an error text; open follows
    /// continue.
    RuntimeDown {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Rotates the log of every running container, unless it is empty.
    Rotate,
    /// Follows send nothing. Afterwards they finish their file and continue with the current one;
    /// files rotated in between are skipped.
    StallFollows {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Open follows miss rotations: they stay silent at the end of their file and end when the
    /// container exits.
    StrandFollows,
    /// Watches stay open and send nothing; afterwards they send everything that happened.
    MuteWatches {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Delays every piece of a log response by `delay`.
    SlowLogs {
        /// Duration of the fault.
        duration: Duration,
        /// Delay before each piece of up to 32 KiB.
        delay: Duration,
    },
    /// Every new request returns 429 with `Retry-After: 1`; open streams continue.
    ApiBusy {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Log requests return 403, as after the permission was revoked; open follows continue.
    LogsForbidden {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Ends watches and drops the watch history: a watch resumed from an earlier version gets 410.
    ExpireWatches,
    /// New requests get no response until the fault ends; open streams continue.
    StallRequests {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Every rotation leaves open follows at the end of the rotated file, as
    /// [`FaultKind::StrandFollows`] does.
    StrandOnRotation {
        /// Duration of the fault.
        duration: Duration,
    },
    /// The kubelet reports the status of pods late: lists and watches show it after `delay`, while
    /// log requests already reach the new container instance.
    StatusLag {
        /// Duration of the fault; what is not reported at its end is reported then.
        duration: Duration,
        /// Time from a change of the status until it is reported.
        delay: Duration,
    },
    /// Steps the node's clock. It affects log lines, which go back in time after a step back, the
    /// status of pods and the names of rotated log files.
    StepClock {
        /// Seconds to step; back if negative.
        by: SignedDuration,
    },
    /// The node's clock stands still: all lines have one timestamp.
    FreezeClock {
        /// Duration of the fault.
        duration: Duration,
    },
    /// Lines are written to the log some time after they were stamped, so that lines of standard
    /// output and standard error are out of order.
    DelayWrites {
        /// Duration of the fault.
        duration: Duration,
        /// Maximum delay, drawn for each line.
        delay: Duration,
    },
    /// Changes the node's time zone, as at the end of daylight saving time. The names of rotated
    /// log files contain the local time.
    SetUtcOffset {
        /// Difference to UTC.
        offset: SignedDuration,
    },
    /// Removes the current log files of a pod by hand. The runtime writes to the removed files until
    /// the kubelet's next check.
    RemoveLogFiles {
        /// Namespace of the pod.
        namespace: String,
        /// Pod, as in [`FaultKind::DeletePod`].
        pod: String,
    },
    /// Empties the current log files of a pod by hand.
    TruncateLogFiles {
        /// Namespace of the pod.
        namespace: String,
        /// Pod, as in [`FaultKind::DeletePod`].
        pod: String,
    },
}

impl PodPlan {
    /// Plans one pod with a single silent container that is never restarted.
    #[must_use]
    pub fn silent(namespace: &str, name: &str, container: &str) -> Self {
        let container = ContainerPlan {
            name: container.to_owned(),
            role: Role::Main,
            output: Output::Silent,
            exit_code: 0,
            restart: RestartPolicy::Never,
            waiting: None,
        };
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            replicas: None,
            start_after: Duration::ZERO,
            delete_after: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            node: None,
            containers: vec![container],
        }
    }

    /// Sets the restart policy of every container.
    #[must_use]
    pub fn restarting(mut self, policy: RestartPolicy) -> Self {
        for container in &mut self.containers {
            container.restart = policy;
        }
        self
    }
}

impl RestartPolicy {
    /// Returns whether a container that exited with `code` is restarted.
    pub(crate) fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }

    /// Returns the name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

/// The kubelet's default `containerLogMaxSize`.
const ROTATE_BYTES: usize = 10 << 20;

/// The kubelet's initial backoff.
const RESTART_BACKOFF: Duration = Duration::from_secs(10);
