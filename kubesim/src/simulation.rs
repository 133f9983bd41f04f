//! The whole simulation: what the API, the kubelet and the faults share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::User;
use crate::logs::container_log::Counts;
use crate::logs::cri_files::FileLog;
use crate::scenario::{LogFiles, Scenario};
use crate::store::objects::Declared;
use crate::store::pod::PodKey;
use crate::store::pods::Store;
use crate::store::secrets::Secrets;

/// Shared state.
pub(crate) struct Sim {
    pub(crate) seed: u64,
    /// Whether the API asks who one is.
    pub(crate) authorize: bool,
    pub(crate) log_files: LogFiles,
    /// The files that are written, until their containers' logs are forgotten.
    pub(crate) written_files: Mutex<Vec<Weak<FileLog>>>,
    /// At this size a log's file is rotated away.
    pub(crate) rotate_bytes: usize,
    /// Before a container's second restart.
    pub(crate) restart_backoff: Duration,
    pub(crate) store: Store,
    pub(crate) secrets: Secrets,
    pub(crate) declared: Declared,
    pub(crate) condition: Condition,
    pub(crate) interrupts: Interrupts,
    pub(crate) running: Mutex<HashMap<PodKey, Handle>>,
    pub(crate) ledger: Ledger,
    pub(crate) next_ip: AtomicUsize,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// How a pod that runs is told to change.
pub(crate) struct Handle {
    pub(crate) uid: String,
    /// The kubelet stops the containers.
    pub(crate) terminate: CancellationToken,
    /// By container: exit with this code now.
    pub(crate) exits: HashMap<String, mpsc::Sender<i32>>,
}

/// How the node and the API server are.
pub(crate) struct Condition {
    pub(crate) kubelet: Mutex<Kubelet>,
    pub(crate) runtime_down: AtomicBool,
    /// The API's port is closed.
    pub(crate) api_down: watch::Sender<bool>,
    /// Open follows; see [`MAX_FOLLOWS`].
    pub(crate) follows: Arc<AtomicUsize>,
    /// Follows deliver nothing.
    pub(crate) follows_stalled: watch::Sender<bool>,
    /// Watches say nothing.
    pub(crate) watches_muted: watch::Sender<bool>,
    /// How long each piece of a log takes.
    pub(crate) log_delay: Mutex<Duration>,
    /// Whom the API knows.
    pub(crate) users: Mutex<Vec<User>>,
    /// What every request is refused with.
    pub(crate) refusal: Mutex<Option<Refusal>>,
}

/// Why the API refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 429, to be tried again after a second.
    Busy,
    /// 403 for logs: the right was taken away.
    Forbidden,
}

/// What the kubelet's own port answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kubelet {
    Up,
    /// It listens, but knows no pods yet.
    Starting,
    Down,
}

/// Ends open responses. A change of the value is the order.
pub(crate) struct Interrupts {
    pub(crate) follows: watch::Sender<Interrupt>,
    /// Open follows go no further than the end of their file.
    pub(crate) strandings: watch::Sender<()>,
    pub(crate) watches: watch::Sender<Interrupt>,
}

/// How a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// With the last chunk.
    End,
    /// Without it.
    Break,
}

/// What each container instance wrote; outlives the pods.
#[derive(Default)]
pub(crate) struct Ledger {
    instances: Mutex<HashMap<(PodKey, String), Vec<Account>>>,
}

/// A container instance's id and what it wrote.
pub(crate) type Account = (String, Arc<Counts>);

impl Sim {
    /// Makes an empty simulation.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            seed: scenario.seed,
            authorize: scenario.authorize,
            rotate_bytes: scenario.rotate_bytes,
            restart_backoff: scenario.restart_backoff,
            log_files: scenario.log_files.clone(),
            written_files: Mutex::default(),
            store: Store::default(),
            secrets: Secrets::default(),
            declared: Declared::default(),
            condition: Condition {
                kubelet: Mutex::new(Kubelet::Up),
                runtime_down: AtomicBool::new(false),
                api_down: watch::Sender::new(false),
                follows: Arc::default(),
                follows_stalled: watch::Sender::new(false),
                watches_muted: watch::Sender::new(false),
                log_delay: Mutex::default(),
                users: Mutex::new(scenario.users.clone()),
                refusal: Mutex::default(),
            },
            interrupts: Interrupts {
                follows: watch::Sender::new(Interrupt::End),
                strandings: watch::Sender::new(()),
                watches: watch::Sender::new(Interrupt::End),
            },
            running: Mutex::default(),
            ledger: Ledger::default(),
            next_ip: AtomicUsize::new(2),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Ends all open follows and watches.
    pub(crate) fn interrupt(&self, how: Interrupt) {
        self.interrupts.follows.send_replace(how);
        self.interrupts.watches.send_replace(how);
    }

    /// Closes the API's port and breaks its connections, or opens it again.
    pub(crate) fn set_down(&self, down: bool) {
        if down {
            self.interrupt(Interrupt::Break);
        }
        self.condition.api_down.send_replace(down);
    }
}

impl Condition {
    /// Takes one of the node's inotify instances for a follow; `None` when all are taken.
    pub(crate) fn take_follow(&self) -> Option<FollowSlot> {
        let slot = FollowSlot(Arc::clone(&self.follows));
        (self.follows.fetch_add(1, Ordering::AcqRel) < MAX_FOLLOWS).then_some(slot)
    }
}

/// One open follow; given back when dropped.
pub(crate) struct FollowSlot(Arc<AtomicUsize>);

impl Drop for FollowSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Ledger {
    /// Opens the account of a new instance.
    pub(crate) fn open(&self, pod: &PodKey, container: &str, id: &str, counts: Arc<Counts>) {
        let key = (pod.clone(), container.to_owned());
        self.instances
            .lock()
            .entry(key)
            .or_default()
            .push((id.to_owned(), counts));
    }

    /// Returns the accounts of a container's instances, oldest first.
    pub(crate) fn instances(&self, pod: &PodKey, container: &str) -> Vec<Account> {
        self.instances
            .lock()
            .get(&(pod.clone(), container.to_owned()))
            .cloned()
            .unwrap_or_default()
    }
}

/// The follows that a node with `fs.inotify.max_user_instances` = 128 serves at once.
pub(crate) const MAX_FOLLOWS: usize = 112;

/// The simulated node's name.
pub(crate) const NODE: &str = "node-1";
