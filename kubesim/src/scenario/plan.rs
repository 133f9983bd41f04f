//! What the simulated cluster plays: pods, what their containers write, and what goes wrong when.
//!
//! A scenario is a TOML file or a value built in code. Times count from the start of the cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::User;

/// A whole scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Decides the generated names and the content of the logs. Uids, container ids and times are never seeded:
    /// two runs are two clusters.
    pub seed: u64,
    /// At this size a container's log file is rotated away: the kubelet's `containerLogMaxSize`, looked at with each write.
    pub rotate_bytes: usize,
    /// How long the kubelet waits before a container's second restart; doubled each time up to thirty times as long.
    pub restart_backoff: Duration,
    /// The pods, in the order of the file.
    pub pods: Vec<PodPlan>,
    /// What goes wrong, in the order of the file.
    pub faults: Vec<Fault>,
    /// How the node keeps its containers' log files.
    pub log_files: LogFiles,
    /// Whom the API knows: of whom `TokenReview` and `SubjectAccessReview` tell.
    pub users: Vec<User>,
    /// Whether the API lets in only those, with their token, and to what they may do. Otherwise it asks nobody.
    pub authorize: bool,
}

/// How the node keeps its containers' log files, as a kubelet does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// Where: the kubelet's `podLogsDir`. Absent: there are no files, only what the log API serves. Not in the scenario file.
    pub dir: Option<PathBuf>,
    /// A file of this many bytes is rotated at the next check: the kubelet's `containerLogMaxSize`.
    pub max_size: u64,
    /// The most files of a container instance, the current one included: the kubelet's `containerLogMaxFiles`.
    pub max_files: usize,
    /// How often sizes are checked: the kubelet's `containerLogMonitorInterval`.
    pub check: Duration,
}

impl Default for LogFiles {
    /// As the kubelet does unless told otherwise, and no files.
    fn default() -> Self {
        Self {
            dir: None,
            max_size: 10 << 20,
            max_files: 5,
            check: Duration::from_secs(10),
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

/// One `[[pods]]` entry: a pod, or the replicas of one.
#[derive(Debug, Clone)]
pub struct PodPlan {
    /// Namespace; it exists from the start of the cluster, or from the pod's creation.
    pub namespace: String,
    /// The pod's name, or what its replicas' names begin with.
    pub name: String,
    /// Absent: one pod called exactly `name`. Present: this many pods called `name-<hash>-<5 characters>`.
    pub replicas: Option<u32>,
    /// When the pod is created.
    pub start_after: Duration,
    /// When the pod is deleted (with its grace period), if ever.
    pub delete_after: Option<Duration>,
    /// The pod's labels; `app` is `name` unless it is given here.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The node the pod is bound to; absent: the simulated node. Empty: the pod is never scheduled.
    pub node: Option<String>,
    /// At least one.
    pub containers: Vec<ContainerPlan>,
}

/// One `[[pods.containers]]` entry.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    /// Name, unique in the pod.
    pub name: String,
    /// What part it has in its pod.
    pub role: Role,
    /// What it writes.
    pub output: Output,
    /// The code it exits with after its last line.
    pub exit_code: i32,
    /// Whether the kubelet starts it again.
    pub restart: RestartPolicy,
    /// Present: the container never starts and waits with this reason (`ErrImagePull`, `ContainerCreating`, ...).
    pub waiting: Option<String>,
}

/// What part a container has in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It is one of those that the pod is for.
    #[default]
    Main,
    /// It runs to its end before the next of its kind, and all of them before the main ones (`spec.initContainers`).
    Init,
    /// It is started among the init containers and runs beside the main ones (an init container with `restartPolicy: Always`).
    Sidecar,
    /// It comes into the running pod, as `kubectl debug` has it (`spec.ephemeralContainers`), and is never started again.
    Ephemeral {
        /// How long after the main ones.
        after: Duration,
    },
}

/// What a container writes.
#[derive(Debug, Clone)]
pub enum Output {
    /// Nothing on its own: a test writes its lines.
    Silent,
    /// Lines from a template.
    Lines(LinePlan),
    /// A built-in program with realistic output, at about this many lines a second.
    Program(Program, f64),
}

/// Numbered lines from a template.
#[derive(Debug, Clone)]
pub struct LinePlan {
    /// How many lines before the container exits; 0 = it never exits.
    pub lines: u64,
    /// Lines a second; 0 = as fast as it goes.
    pub rate: f64,
    /// Bytes of each line's content (without timestamp and newline): padded or cut to it.
    pub size: Option<usize>,
    /// Template: `{seq}` (from 0 in each container instance), `{pod}`, `{namespace}`, `{container}`. A
    /// newline in it becomes a space.
    pub text: String,
    /// Every so many lines, one goes to standard error: the last of them. Absent: none.
    pub stderr_every: Option<u64>,
}

/// The built-in programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// A web application: request lines, JSON, colours, now and then a stack trace.
    Web,
    /// A job worker: jobs started and done, retries, JSON.
    Worker,
    /// Starts, fails, prints a stack trace and exits with code 1.
    Crash,
}

/// Kubernetes' restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum RestartPolicy {
    /// Started again whatever its exit code.
    Always,
    /// Started again unless it exited with 0.
    OnFailure,
    /// Never started again.
    Never,
}

/// Something that goes wrong at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When, from the start of the cluster.
    pub at: Duration,
    /// What.
    pub kind: FaultKind,
}

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The pod is deleted with its grace period, as `kubectl delete pod` does.
    DeletePod {
        /// Its namespace.
        namespace: String,
        /// Its name, or the `name` of a `[[pods]]` entry: then its first replica that still is there.
        pod: String,
    },
    /// Every open follow and watch ends cleanly, as when the kubelet or the API server restarts.
    EndStreams,
    /// Every open follow and watch breaks off without the last chunk.
    BreakStreams,
    /// The API's port is closed and its connections are broken for this long.
    ApiDown {
        /// How long.
        duration: Duration,
    },
    /// The kubelet is away for this long: follows end cleanly, then log requests are 500, then shortly 404.
    KubeletDown {
        /// How long.
        duration: Duration,
    },
    /// The container runtime is away for this long: new log requests are 200 with an error text; open follows go on.
    RuntimeDown {
        /// How long.
        duration: Duration,
    },
    /// Every running container's log file is rotated away, unless it is empty.
    Rotate,
    /// Follows deliver nothing for this long; files rotated away meanwhile they skip, save the one they were in.
    StallFollows {
        /// How long.
        duration: Duration,
    },
    /// Follows that are open now do not notice a rotation: they stay silent at the end of their file, and end there when the container exits.
    StrandFollows,
    /// Watches say nothing for this long, and stay open; then all that happened meanwhile.
    MuteWatches {
        /// How long.
        duration: Duration,
    },
    /// Every piece of a log takes `delay` more for this long.
    SlowLogs {
        /// How long.
        duration: Duration,
        /// Before each piece, of 32 KiB or a line.
        delay: Duration,
    },
    /// Every request is 429 for this long, to be tried again after a second; what is open goes on.
    ApiBusy {
        /// How long.
        duration: Duration,
    },
    /// Log requests are 403 for this long: the right was taken away; open follows go on.
    LogsForbidden {
        /// How long.
        duration: Duration,
    },
    /// Watches end, and who goes on from where they were gets 410: the API server has forgotten.
    ExpireWatches,
}

impl Scenario {
    /// Reads a scenario file. Times are `"2s"`, `"1m30s"`, `"250ms"` or a number of seconds.
    ///
    /// ```
    /// let scenario = kubesim::Scenario::from_toml(r#"
    ///     seed = 7                     # decides names and content; default 0
    ///     rotate_bytes = 1048576       # a log file's size; default 10 MiB
    ///     restart_backoff = "10s"      # before the second restart; the default
    ///
    ///     [log_files]                  # how the node keeps log files, where it is given a directory for them
    ///     max_size = 10485760          # bytes; these are the defaults
    ///     max_files = 5
    ///     check = "10s"
    ///
    ///     [[pods]]
    ///     namespace = "shop"
    ///     name = "web"
    ///     replicas = 3                 # absent: one pod, called exactly `name`
    ///     start_after = "2s"           # default 0
    ///     delete_after = "1m"          # default never
    ///     labels = { tier = "front" }
    ///     annotations = { note = "any text" }
    ///     node = "node-1"              # the default; "" = never scheduled
    ///
    ///     [[pods.containers]]
    ///     name = "web"
    ///     lines = 1000                 # then it exits; 0 or absent = endless
    ///     rate = 50                    # lines a second, default 1; 0 = full speed
    ///     size = 100                   # bytes of content, padded or cut
    ///     text = "line {seq}"          # the default; also {pod}, {namespace}, {container}
    ///     stderr_every = 10            # every tenth line goes to standard error; default none
    ///     exit_code = 0
    ///     restart = "Never"            # Always (default if endless), OnFailure, Never (default otherwise)
    ///
    ///     [[pods.containers]]
    ///     name = "sidecar"
    ///     profile = "worker"           # instead of lines, size and text: web, worker, crash, silent
    ///
    ///     [[pods.containers]]
    ///     name = "stuck"
    ///     waiting = "ErrImagePull"     # never starts
    ///
    ///     [[pods.containers]]
    ///     name = "migrate"
    ///     role = "init"                # main (default), init, sidecar, ephemeral
    ///     lines = 10
    ///
    ///     [[pods.containers]]
    ///     name = "debugger"
    ///     role = "ephemeral"
    ///     after = "5s"                 # after the main ones; default 0
    ///     lines = 10
    ///
    ///     [[faults]]
    ///     at = "30s"
    ///     kind = "delete-pod"          # with namespace and pod (or the name of its entry)
    ///     namespace = "shop"
    ///     pod = "web"
    ///
    ///     [[faults]]
    ///     at = "40s"
    ///     kind = "api-down"            # one that lasts: see FaultKind for all, written-like-this
    ///     for = "5s"
    /// "#)?;
    /// assert_eq!(scenario.pods[0].containers.len(), 5);
    /// # Ok::<_, kubesim::ScenarioError>(())
    /// ```
    ///
    /// *Errors*: the first mistake, with its line and column: not TOML, an unknown key, a value out of range.
    pub fn from_toml(text: &str) -> Result<Self, super::file::ScenarioError> {
        super::file::read(text)
    }

    /// Returns the scenario of the demo: a web application and a worker, three pods each, and one pod that crashes.
    #[must_use]
    pub fn demo() -> Self {
        Self::from_toml(DEMO).expect("the embedded scenario is valid: a test reads it")
    }
}

impl PodPlan {
    /// Makes the plan of one pod whose single container writes nothing on its own and is never restarted.
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

    /// Returns this plan with that restart policy in every container.
    #[must_use]
    pub fn restarting(mut self, policy: RestartPolicy) -> Self {
        for container in &mut self.containers {
            container.restart = policy;
        }
        self
    }
}

impl RestartPolicy {
    /// Says whether a container that exited with `code` is started again.
    pub(crate) fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }

    /// Returns the name the API uses.
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

/// The kubelet's.
const RESTART_BACKOFF: Duration = Duration::from_secs(10);

const DEMO: &str = include_str!("../../scenarios/demo.toml");
