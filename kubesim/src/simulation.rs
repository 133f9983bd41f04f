//! State that the API, the node and the fault injection share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use system::collections::HashMap;
use system::task::Spawner;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::User;
use crate::logs::container_log::{LogSettings, LogTotals};
use crate::logs::cri_files::CriLogFiles;
use crate::scenario::{LogFiles, Scenario};
use crate::store::objects::ObjectStore;
use crate::store::pod::PodKey;
use crate::store::pods::PodStore;
use crate::store::secrets::SecretStore;
use crate::time::NodeClock;

/// The simulation.
pub(crate) struct Simulation {
    pub(crate) seed: u64,
    /// Whether the API requires a token and enforces permissions.
    pub(crate) authorize: bool,
    pub(crate) log_files: LogFiles,
    /// Log files with a live container log; dead entries are dropped at each rotation check.
    pub(crate) open_log_files: Mutex<Vec<Weak<CriLogFiles>>>,
    pub(crate) log_settings: LogSettings,
    pub(crate) clock: NodeClock,
    /// Delay before a container's second restart.
    pub(crate) restart_backoff: Duration,
    pub(crate) pods: PodStore,
    pub(crate) secrets: SecretStore,
    pub(crate) objects: ObjectStore,
    pub(crate) state: ClusterState,
    pub(crate) interrupts: Interrupts,
    pub(crate) running_pods: Mutex<HashMap<PodKey, RunningPod>>,
    pub(crate) ledger: OutputLedger,
    pub(crate) next_ip: AtomicUsize,
    /// The machine that the cluster was started on; its tasks and files are there, whoever calls.
    pub(crate) machine: Spawner,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Controls of a running pod.
pub(crate) struct RunningPod {
    pub(crate) uid: String,
    /// Makes the kubelet stop the containers.
    pub(crate) terminate: CancellationToken,
    /// Per container: makes it exit now, with the code sent.
    pub(crate) exits: HashMap<String, mpsc::Sender<i32>>,
}

/// State of the node and the API server: active faults, users and limits.
pub(crate) struct ClusterState {
    pub(crate) kubelet: Mutex<KubeletState>,
    pub(crate) runtime_down: AtomicBool,
    /// Whether the API port is closed.
    pub(crate) api_down: watch::Sender<bool>,
    /// Number of open follows; see [`MAX_FOLLOWS`].
    pub(crate) follows: Arc<AtomicUsize>,
    /// Number of log requests so far.
    pub(crate) log_requests: AtomicU64,
    /// Whether follows send nothing.
    pub(crate) follows_stalled: watch::Sender<bool>,
    /// Whether watches send nothing.
    pub(crate) watches_muted: watch::Sender<bool>,
    /// Delay before each piece of a log response.
    pub(crate) log_delay: Mutex<Duration>,
    /// Users that reviews and authorization know.
    pub(crate) users: Mutex<Vec<User>>,
    /// Whether new requests get no response.
    pub(crate) requests_stalled: watch::Sender<bool>,
    /// Reason why requests are refused, if they are.
    pub(crate) refusal: Mutex<Option<Refusal>>,
}

/// Reason why the API refuses requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All requests: 429 with `Retry-After: 1`.
    Busy,
    /// Log requests: 403, as after the permission was revoked.
    Forbidden,
}

/// State of the kubelet's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KubeletState {
    Up,
    /// It listens but has not loaded its pods.
    Starting,
    Down,
}

/// Signals that end open responses; receivers act when the value changes.
pub(crate) struct Interrupts {
    pub(crate) follows: watch::Sender<Interrupt>,
    /// Makes open follows miss rotations from now on.
    pub(crate) strand: watch::Sender<()>,
    pub(crate) watches: watch::Sender<Interrupt>,
}

/// How an open response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Cleanly, with the last chunk.
    End,
    /// Aborted, without the last chunk.
    Break,
}

/// Totals of what each container instance wrote; kept after the pod is gone.
#[derive(Default)]
pub(crate) struct OutputLedger {
    instances: Mutex<HashMap<(PodKey, String), Vec<InstanceTotals>>>,
}

/// A container instance's ID and the totals of its log.
pub(crate) type InstanceTotals = (String, Arc<LogTotals>);

impl Simulation {
    /// Creates a simulation without pods.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let clock = NodeClock::new(scenario.log_files.utc_offset);
        Self {
            seed: scenario.seed,
            authorize: scenario.authorize,
            log_settings: LogSettings {
                rotate_bytes: scenario.rotate_bytes,
                clock: clock.clone(),
                strand_on_rotation: Arc::default(),
            },
            restart_backoff: scenario.restart_backoff,
            log_files: scenario.log_files.clone(),
            open_log_files: Mutex::default(),
            pods: PodStore::new(clock.clone()),
            clock,
            secrets: SecretStore::default(),
            objects: ObjectStore::default(),
            state: ClusterState {
                kubelet: Mutex::new(KubeletState::Up),
                runtime_down: AtomicBool::new(false),
                api_down: watch::Sender::new(false),
                follows: Arc::default(),
                log_requests: AtomicU64::new(0),
                follows_stalled: watch::Sender::new(false),
                watches_muted: watch::Sender::new(false),
                log_delay: Mutex::default(),
                requests_stalled: watch::Sender::new(false),
                users: Mutex::new(scenario.users.clone()),
                refusal: Mutex::default(),
            },
            interrupts: Interrupts {
                follows: watch::Sender::new(Interrupt::End),
                strand: watch::Sender::new(()),
                watches: watch::Sender::new(Interrupt::End),
            },
            running_pods: Mutex::default(),
            ledger: OutputLedger::default(),
            next_ip: AtomicUsize::new(2),
            machine: Spawner::current(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Starts a task that ends with the simulation.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let until_stop = self.stop.clone().run_until_cancelled_owned(future);
        self.machine.spawn_tracked(&self.tasks, until_stop);
    }

    /// Ends all open follows and watches.
    pub(crate) fn interrupt(&self, interrupt: Interrupt) {
        self.interrupts.follows.send_replace(interrupt);
        self.interrupts.watches.send_replace(interrupt);
    }

    /// Closes the API port and breaks its connections, or opens it again.
    pub(crate) fn set_api_down(&self, down: bool) {
        if down {
            self.interrupt(Interrupt::Break);
        }
        self.state.api_down.send_replace(down);
    }
}

impl ClusterState {
    /// Reserves one of the node's inotify instances for a follow; `None` if none is free.
    pub(crate) fn acquire_follow_slot(&self) -> Option<FollowSlot> {
        let slot = FollowSlot(Arc::clone(&self.follows));
        (self.follows.fetch_add(1, Ordering::AcqRel) < MAX_FOLLOWS).then_some(slot)
    }
}

/// Slot of one open follow, released on drop.
pub(crate) struct FollowSlot(Arc<AtomicUsize>);

impl Drop for FollowSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl OutputLedger {
    /// Adds the totals of a new instance.
    pub(crate) fn add(&self, pod: &PodKey, container: &str, id: &str, totals: Arc<LogTotals>) {
        let key = (pod.clone(), container.to_owned());
        self.instances
            .lock()
            .entry(key)
            .or_default()
            .push((id.to_owned(), totals));
    }

    /// Returns the totals of a container's instances, oldest first.
    pub(crate) fn instances(&self, pod: &PodKey, container: &str) -> Vec<InstanceTotals> {
        self.instances
            .lock()
            .get(&(pod.clone(), container.to_owned()))
            .cloned()
            .unwrap_or_default()
    }
}

/// Open follows that a node with `fs.inotify.max_user_instances` = 128 serves.
pub(crate) const MAX_FOLLOWS: usize = 112;

/// Name of the simulated node.
pub(crate) const NODE: &str = "node-1";
