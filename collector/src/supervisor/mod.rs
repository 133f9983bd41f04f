//! Tracks container instances and runs a task for each; depends on every other module of the crate
//! but the entry point.

mod files;
mod tasks;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus::{AppName, Bus, Fd, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use system::{
    clock::Instant,
    collections::{HashMap, HashSet},
    task::spawn_in,
};
use tokio::{
    sync::watch,
    task::{self, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{follow_slots::FollowSlots, identity::Predecessor, refusals::RefusalLog},
    config::{Config, Source},
    files::DirWatcher,
    instance::{ContainerState, Instance, InstanceKey},
    pods::{instances, last_seen::LastSeen},
    publish::{checkpoint::Checkpoint, context::PublishContext},
    retry::Backoff,
    stream::log_end::LogEnd,
};

/// Delay before a failed task is restarted, so that a persistent failure does not flood the log.
const RESTART_FIRST: Duration = Duration::from_secs(1);

/// Longest delay; a container is never given up.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Tracks container instances and runs a task for each. Dropping it aborts all tasks.
///
/// *Bound*: the containers of the watched nodes.
pub struct Supervisor {
    config: Config,
    client: kube::Client,
    context: PublishContext,
    shutdown: CancellationToken,
    slots: FollowSlots,
    refusals: RefusalLog,
    /// Tasks that own an instance's stream; the result is false if the collector shut down first.
    tasks: JoinSet<bool>,
    keys: HashMap<task::Id, InstanceKey>,
    /// Instances whose task starts later, because their spool could not be read.
    delayed: JoinSet<(InstanceKey, Checkpoint)>,
    /// Topics being created.
    topics: JoinSet<()>,
    instances: HashMap<InstanceKey, TrackedInstance>,
    pods: HashMap<String, ListedPod>,
    /// The number of pods of each app.
    apps: HashMap<AppName, usize>,
    last_seen: LastSeen,
    /// The watched directories, with [`Source::Files`].
    dir_watcher: Option<DirWatcher>,
    /// The uids of a list that is being received.
    listing: Option<HashSet<String>>,
    /// Pods of this node were listed before, by this collector or the one before it.
    has_listed: bool,
    /// The current event may be from an absence of the API.
    is_late: bool,
    /// Checkpoints from before the start that no pod has claimed; `None` after the first list.
    unclaimed: Option<BTreeMap<InstanceKey, Checkpoint>>,
}

struct ListedPod {
    pod: Pod,
    /// `None`: the pod is excluded.
    app: Option<AppName>,
    instances: Vec<InstanceKey>,
}

/// An instance that has a task.
struct TrackedInstance {
    state: watch::Sender<ContainerState>,
    /// `None`: the instance is gone and its stream is being ended.
    instance: Option<Arc<Instance>>,
    /// The container's instance before, if it has a checkpoint.
    predecessor: Option<Predecessor>,
    /// How its log ends, for the task of the next instance.
    log_end: LogEnd,
    /// Lines from before the first one that is read may be missing.
    suspects_start: bool,
    /// When it started, if its start was waited for.
    started_at: Option<Timestamp>,
    /// It had no checkpoint: its log was never read.
    is_unread: bool,
    /// When it was first seen, if its start was.
    seen_at: Option<Instant>,
    /// Its pod is gone, and later instances of the container may have run that were never seen.
    lacks_later: bool,
    /// It stands for such instances: there is nothing to read.
    is_unseen: bool,
    backoff: Backoff,
}

impl TrackedInstance {
    fn new(state: ContainerState, instance: Option<Arc<Instance>>) -> Self {
        Self {
            state: watch::Sender::new(state),
            instance,
            predecessor: None,
            log_end: LogEnd::default(),
            suspects_start: false,
            started_at: None,
            is_unread: false,
            seen_at: None,
            lacks_later: false,
            is_unseen: false,
            backoff: Backoff::new(RESTART_FIRST, RESTART_MAX),
        }
    }
}

impl Supervisor {
    /// Creates a supervisor without pods.
    pub fn new(config: Config, client: kube::Client, context: PublishContext, shutdown: CancellationToken) -> Self {
        let unclaimed: BTreeMap<_, _> = context.checkpoints.all().into_iter().collect();
        let mut last_seen = LastSeen::default();
        // The checkpoint of standard error belongs to that of standard output.
        for (key, checkpoint) in unclaimed.iter().filter(|(key, _)| key.fd() != Some(Fd::Err)) {
            last_seen.insert(key, checkpoint.restarts);
        }
        Self {
            dir_watcher: (config.source == Source::Files).then(DirWatcher::new),
            has_listed: !unclaimed.is_empty(),
            is_late: false,
            unclaimed: Some(unclaimed),
            last_seen,
            slots: FollowSlots::new(config.max_connections),
            config,
            client,
            context,
            shutdown,
            refusals: RefusalLog::default(),
            tasks: JoinSet::new(),
            keys: HashMap::default(),
            delayed: JoinSet::new(),
            topics: JoinSet::new(),
            apps: HashMap::default(),
            instances: HashMap::default(),
            pods: HashMap::default(),
            listing: None,
        }
    }

    /// Applies a watch event. `is_late`: it may be from an absence of the API.
    pub fn apply(&mut self, event: Event<Pod>, is_late: bool) {
        self.is_late = is_late;
        match event {
            Event::Init => self.listing = Some(HashSet::default()),
            Event::InitApply(pod) => {
                if let (Some(listing), Some(uid)) = (&mut self.listing, &pod.metadata.uid) {
                    listing.insert(uid.clone());
                }
                self.apply_pod(&pod);
            }
            Event::InitDone => self.finish_listing(),
            Event::Apply(pod) => self.apply_pod(&pod),
            Event::Delete(pod) => {
                if let Some(uid) = &pod.metadata.uid {
                    self.doubt_last_instances(uid, is_late);
                    self.remove_pod(uid);
                }
            }
        }
    }

    /// Returns the number of pods.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Returns after a task has ended; a failed one is restarted from its checkpoint. Never returns
    /// while there is no task.
    ///
    /// *Cancel safety*: no result is lost.
    pub async fn reap(&mut self) {
        tokio::select! {
            Some(task_ended) = self.tasks.join_next_with_id() => match task_ended {
                Ok((id, is_over)) => self.task_ended(id, is_over),
                Err(error) => self.task_failed(&error),
            },
            Some(Ok((key, checkpoint))) = self.delayed.join_next() => self.spawn_task(key, checkpoint, Duration::ZERO),
            Some(_) = self.topics.join_next() => {}
            else => std::future::pending().await,
        }
    }

    /// Starts a task for every listed instance without one. A safeguard: no container is forgotten,
    /// whatever ended its task.
    pub fn reconcile(&mut self) {
        self.context.checkpoints.retry();
        let has_no_task = |pod: &&ListedPod| pod.instances.iter().any(|key| !self.instances.contains_key(key));
        let without_task: Vec<_> = self
            .pods
            .values()
            .filter(has_no_task)
            .map(|pod| pod.pod.clone())
            .collect();
        for pod in without_task {
            tracing::warn!(pod = pod.metadata.name, "task missing, restarting it");
            self.apply_pod(&pod);
        }
    }

    /// Waits until everything read is published. The shutdown token must be cancelled. Returns the
    /// number of streams that missed the deadline.
    pub async fn finish(mut self, deadline: Duration) -> usize {
        let done = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(deadline, done).await;
        self.context.checkpoints.retry();
        self.tasks.len()
    }

    fn apply_pod(&mut self, pod: &Pod) {
        let (Some(uid), Some(app)) = (pod.metadata.uid.clone(), instances::app_of(pod, &self.config.app_from)) else {
            return;
        };
        let is_excluded = instances::is_excluded(pod);
        let mut instances = instances::instances(pod, &self.config.app_from);
        if self.dir_watcher.is_some() {
            // One task reads both outputs, under the key of the first.
            instances
                .iter_mut()
                .for_each(|instance| instance.key = instance.key.with_fd(Fd::Out));
        }
        let is_awaited = self.pods.contains_key(&uid) || self.config.collects_all_pods();
        let mut keys: Vec<_> = instances.iter().map(|instance| instance.key.clone()).collect();
        if let Some(older) = self.pods.get(&uid) {
            let is_unnamed =
                |key: &&InstanceKey| !keys.contains(key) && !instances::names_instance(pod, key.container_name());
            let unnamed: Vec<_> = older.instances.iter().filter(is_unnamed).cloned().collect();
            keys.extend(unnamed);
        }
        let app = Some(app).filter(|_| !is_excluded);
        if let Some(app) = &app {
            self.count_pod(app);
        }
        let mut trimmed = pod.clone();
        // The largest part of a pod object, and not needed.
        trimmed.metadata.managed_fields = None;
        let listed = ListedPod {
            pod: trimmed,
            app,
            instances: keys.clone(),
        };
        if let Some(older) = self.pods.insert(uid, listed) {
            self.uncount_pod(older.app.as_ref());
            for key in older.instances.iter().filter(|key| !keys.contains(key)) {
                self.mark_absent(key);
            }
        }
        // Oldest first, so that the last instance seen precedes the next one.
        for instance in instances.into_iter().rev() {
            self.apply_instance(instance, is_awaited);
        }
    }

    fn count_pod(&mut self, app: &AppName) {
        if let Some(pods) = self.apps.get_mut(app) {
            *pods += 1;
            return;
        }
        self.apps.insert(app.clone(), 1);
        let create = create_topic(Arc::clone(&self.context.bus), app.clone());
        spawn_in(&mut self.topics, create);
    }

    fn uncount_pod(&mut self, app: Option<&AppName>) {
        if let Some(app) = app
            && let Some(pods) = self.apps.get_mut(app)
        {
            *pods -= 1;
            if *pods == 0 {
                self.apps.remove(app);
            }
        }
    }

    /// `is_awaited`: its pod is collected since the pod exists.
    fn apply_instance(&mut self, instance: Instance, is_awaited: bool) {
        match self.instances.get(&instance.key) {
            Some(tracked) => {
                let now = instance.state;
                tracked
                    .state
                    .send_if_modified(|state| std::mem::replace(state, now) != now);
            }
            None => self.start_instance(instance, is_awaited),
        }
    }

    fn remove_pod(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.uncount_pod(pod.app.as_ref());
            pod.instances.iter().for_each(|key| self.mark_absent(key));
        }
        for key in self.last_seen.remove(uid) {
            self.delete_checkpoint(&key);
        }
    }

    /// The task finishes its stream and ends.
    fn mark_absent(&mut self, key: &InstanceKey) {
        if let Some(tracked) = self.instances.get(key) {
            tracked
                .state
                .send_if_modified(|state| std::mem::replace(&mut state.present, false));
        }
    }

    fn finish_listing(&mut self) {
        let listing = self.listing.take().unwrap_or_default();
        let gone: Vec<_> = self
            .pods
            .keys()
            .filter(|uid| !listing.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.doubt_last_instances(&uid, true);
            self.remove_pod(&uid);
        }
        let mut unclaimed = self.unclaimed.take().unwrap_or_default();
        self.drop_stderr_checkpoints(&mut unclaimed);
        let is_last = |key: &&InstanceKey| self.last_seen.is_newest(key) && !self.pods.contains_key(&key.pod_uid);
        let last: HashSet<InstanceKey> = unclaimed.keys().filter(is_last).cloned().collect();
        self.last_seen.retain(|uid| self.pods.contains_key(uid));
        for (key, checkpoint) in unclaimed {
            let is_last = last.contains(&key);
            self.end_orphan(key, checkpoint, is_last);
        }
        self.context.checkpoints.end_doubt();
        self.has_listed = true;
        self.config.progress.set_listed();
    }
}

/// Creates an app's topic before its first line, so that readers find it.
async fn create_topic(bus: Arc<dyn Bus>, app: AppName) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    while let Err(error) = bus.create(&app).await {
        if !error.is_transient() {
            return tracing::error!(%app, %error, "topic creation failed");
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
