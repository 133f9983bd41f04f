//! Pods and namespaces, with one resource version per change and a bounded history for watches.
//!
//! The node's view of a pod and that of the API server differ while the kubelet reports late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use system::clock::{Instant, steady};
use tokio::sync::watch;

use super::history::{Change, History, VersionTooOld};
use super::pod::{Pod, PodKey};
use crate::time::{self, NodeClock};

/// The stored pods and namespaces.
pub(crate) struct PodStore {
    clock: NodeClock,
    state: Mutex<State>,
    /// Changes with the pods of the API server and of the node.
    changed: watch::Sender<()>,
}

struct State {
    /// The pods of the API server.
    pods: BTreeMap<PodKey, Arc<Pod>>,
    /// The pods of the node; their versions are meaningless.
    node_pods: BTreeMap<PodKey, Arc<Pod>>,
    /// What the kubelet has not reported to the API server yet, oldest first.
    reports: VecDeque<Report>,
    /// How long the kubelet takes to report.
    report_delay: Duration,
    namespaces: BTreeMap<String, Namespace>,
    history: History<Pod>,
}

/// A namespace.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) created: Timestamp,
}

/// The pods at one resource version.
pub(crate) struct PodList {
    pub(crate) version: u64,
    pub(crate) pods: Vec<Arc<Pod>>,
}

/// A report of the kubelet to the API server.
struct Report {
    due: Instant,
    key: PodKey,
    uid: String,
    /// The pod with its new status; `None`: it is gone.
    pod: Option<Arc<Pod>>,
}

impl PodStore {
    /// Creates a store without pods.
    pub(crate) fn new(clock: NodeClock) -> Self {
        let state = State {
            pods: BTreeMap::new(),
            node_pods: BTreeMap::new(),
            reports: VecDeque::new(),
            report_delay: Duration::ZERO,
            namespaces: BTreeMap::new(),
            history: History::new(HISTORY_EVENTS),
        };
        Self {
            clock,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }
    }

    /// Returns a receiver that changes with the pods of the API server and of the node.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns a receiver of the newest version.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.state.lock().history.versions()
    }

    /// Stores a new pod and its namespace. Returns `false` if the name is taken.
    pub(crate) fn create(&self, pod: Pod) -> bool {
        let mut state = self.state.lock();
        if state.pods.contains_key(&pod.key()) {
            return false;
        }
        state.add_namespace(&pod.namespace);
        let pod = Arc::new(pod);
        state.node_pods.insert(pod.key(), Arc::clone(&pod));
        state.put(None, pod);
        self.changed.send_replace(());
        true
    }

    /// Creates a namespace unless it exists.
    pub(crate) fn create_namespace(&self, name: &str) {
        self.state.lock().add_namespace(name);
    }

    /// Updates a pod on the node and reports its status. Returns the result of `change`, or `None`
    /// if no pod has this name and UID.
    pub(crate) fn update<T>(&self, key: &PodKey, uid: &str, change: impl FnOnce(&mut Pod) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let before = state.node_pods.get(key).filter(|pod| pod.uid == uid)?;
        let mut pod = Pod::clone(before);
        let was_ready = pod.ready();
        let result = change(&mut pod);
        if pod.ready() != was_ready {
            pod.ready_changed = self.clock.now();
        }
        let pod = Arc::new(pod);
        state.node_pods.insert(key.clone(), Arc::clone(&pod));
        state.report(key, uid, Some(pod));
        self.changed.send_replace(());
        Some(result)
    }

    /// Updates a pod's object on the API server, which the node learns at once.
    pub(crate) fn update_object(&self, key: &PodKey, uid: &str, change: impl Fn(&mut Pod)) {
        let mut state = self.state.lock();
        let changed = |pods: &BTreeMap<PodKey, Arc<Pod>>| {
            let mut pod = pods.get(key).filter(|pod| pod.uid == uid).cloned()?;
            change(Arc::make_mut(&mut pod));
            Some(pod)
        };
        if let Some(pod) = changed(&state.node_pods) {
            state.node_pods.insert(key.clone(), pod);
        }
        if let Some(pod) = changed(&state.pods) {
            let before = state.pods.get(key).cloned();
            state.put(before, pod);
        }
        self.changed.send_replace(());
    }

    /// Removes a pod from the node, which reports that it is gone.
    pub(crate) fn remove(&self, key: &PodKey, uid: &str) {
        let mut state = self.state.lock();
        state.remove_on_node(key, uid);
        state.report(key, uid, None);
        self.changed.send_replace(());
    }

    /// Removes a pod from the API server and the node at once.
    pub(crate) fn remove_object(&self, key: &PodKey, uid: &str) {
        let mut state = self.state.lock();
        state.remove_on_node(key, uid);
        state.remove(key, uid);
        self.changed.send_replace(());
    }

    /// Sets how long the kubelet takes to report. At zero, what it has not reported yet is reported
    /// at once.
    pub(crate) fn set_report_delay(&self, delay: Duration) {
        let mut state = self.state.lock();
        state.report_delay = delay;
        while delay.is_zero()
            && let Some(report) = state.reports.pop_front()
        {
            state.apply(report);
        }
        self.changed.send_replace(());
    }

    /// Returns when the next report is due.
    pub(crate) fn next_report(&self) -> Option<Instant> {
        self.state.lock().reports.front().map(|report| report.due)
    }

    /// Applies the reports that are due.
    pub(crate) fn apply_reports(&self) {
        let (mut state, now) = (self.state.lock(), steady());
        while state.reports.front().is_some_and(|report| report.due <= now)
            && let Some(report) = state.reports.pop_front()
        {
            state.apply(report);
        }
        self.changed.send_replace(());
    }

    /// Drops the change history, as an API server restart does: watches from earlier versions get
    /// 410 and must list again.
    pub(crate) fn clear_history(&self) {
        self.state.lock().history.clear();
    }

    /// Returns a pod as the node knows it.
    pub(crate) fn get_on_node(&self, key: &PodKey) -> Option<Arc<Pod>> {
        self.state.lock().node_pods.get(key).cloned()
    }

    /// Returns the pods that the node knows, sorted by key.
    pub(crate) fn list_on_node(&self) -> Vec<Arc<Pod>> {
        self.state.lock().node_pods.values().cloned().collect()
    }

    /// Returns one pod.
    pub(crate) fn get(&self, key: &PodKey) -> Option<Arc<Pod>> {
        self.state.lock().pods.get(key).cloned()
    }

    /// Returns the current pods, sorted by key.
    pub(crate) fn list(&self) -> PodList {
        let state = self.state.lock();
        PodList {
            version: state.history.version(),
            pods: state.pods.values().cloned().collect(),
        }
    }

    /// Returns the names of a plan's pods that exist and are not being deleted: the pod of that
    /// name, or the replicas.
    pub(crate) fn pods_of_plan(&self, namespace: &str, name: &str) -> Vec<String> {
        let listing = self.list();
        let here = listing
            .pods
            .iter()
            .filter(|pod| pod.namespace == namespace && pod.deletion.is_none());
        let of_plan = here.filter(|pod| {
            let replica = pod
                .labels
                .get("pod-template-hash")
                .map(|hash| format!("{name}-{hash}-"));
            pod.name == name || replica.is_some_and(|prefix| pod.name.starts_with(&prefix))
        });
        of_plan.map(|pod| pod.name.clone()).collect()
    }

    /// Returns the pods at an earlier version by reverting the changes after it.
    pub(crate) fn list_at(&self, version: u64) -> Result<PodList, VersionTooOld> {
        let state = self.state.lock();
        let mut pods = state.pods.clone();
        for change in state.history.newest_first_since(version)? {
            match &change.before {
                Some(before) => pods.insert(before.key(), Arc::clone(before)),
                None => pods.remove(&change.object.key()),
            };
        }
        Ok(PodList {
            version,
            pods: pods.into_values().collect(),
        })
    }

    /// Returns up to `limit` changes after a version, oldest first.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change<Pod>>, VersionTooOld> {
        self.state.lock().history.changes(after, limit)
    }

    /// Returns the newest version and the namespaces, sorted by name.
    pub(crate) fn namespaces(&self) -> (u64, Vec<Namespace>) {
        let state = self.state.lock();
        (state.history.version(), state.namespaces.values().cloned().collect())
    }
}

impl State {
    /// Reports a change of the kubelet, now or later; a report never overtakes an earlier one.
    fn report(&mut self, key: &PodKey, uid: &str, pod: Option<Arc<Pod>>) {
        let report = Report {
            due: steady() + self.report_delay,
            key: key.clone(),
            uid: uid.to_owned(),
            pod,
        };
        if self.report_delay.is_zero() && self.reports.is_empty() {
            self.apply(report);
        } else {
            self.reports.push_back(report);
        }
    }

    fn apply(&mut self, report: Report) {
        let Report { key, uid, pod, .. } = report;
        let Some(reported) = pod else {
            self.remove(&key, &uid);
            return;
        };
        let before = self.pods.get(&key).filter(|pod| pod.uid == uid).cloned();
        if let Some(before) = before {
            let mut pod = Arc::clone(&before);
            Arc::make_mut(&mut pod).set_status(&reported);
            self.put(Some(before), pod);
        }
    }

    /// Stores a pod with the next version.
    fn put(&mut self, before: Option<Arc<Pod>>, mut pod: Arc<Pod>) {
        let version = self.history.next();
        Arc::make_mut(&mut pod).version = version;
        self.pods.insert(pod.key(), Arc::clone(&pod));
        self.history.publish(Change {
            version,
            before,
            object: pod,
            deleted: false,
        });
    }

    fn remove_on_node(&mut self, key: &PodKey, uid: &str) {
        if self.node_pods.get(key).is_some_and(|pod| pod.uid == uid) {
            self.node_pods.remove(key);
        }
    }

    fn remove(&mut self, key: &PodKey, uid: &str) {
        let Some(before) = self.pods.get(key).filter(|pod| pod.uid == uid).cloned() else {
            return;
        };
        self.pods.remove(key);
        let mut last = Pod::clone(&before);
        last.version = self.history.next();
        self.history.publish(Change {
            version: last.version,
            before: Some(before),
            object: Arc::new(last),
            deleted: true,
        });
    }

    fn add_namespace(&mut self, name: &str) {
        if !self.namespaces.contains_key(name) {
            let version = self.history.next();
            let namespace = Namespace {
                name: name.to_owned(),
                uid: crate::ids::uid(),
                version,
                created: time::now(),
            };
            self.namespaces.insert(name.to_owned(), namespace);
        }
    }
}

/// Number of changes from which a watch can resume. A pod takes about 1 KB, so a few MB at most.
const HISTORY_EVENTS: usize = 2_000;
