//! Which container instances there are, and a task for each.

mod files;
mod tasks;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bus::{AppName, Bus, Fd};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use tokio::{
    sync::watch,
    task::{self, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{follow_slots::Follows, refusals::Refusals},
    config::{Config, Source},
    files::Watches,
    instance::{Instance, InstanceKey, Known},
    pods::{instances, last_seen::Recorded},
    publish::{checkpoint::Record, context::Way},
    retry::Backoff,
};

/// The first wait before a task that failed is begun again: what made it fail should not fill the log.
const AGAIN_FIRST: Duration = Duration::from_secs(1);

/// The longest: a container is never given up.
const AGAIN_MOST: Duration = Duration::from_secs(60);

/// Which container instances there are, and a task for each. Dropping it stops them all where they are.
///
/// *Bound*: the containers that the watched nodes hold.
pub struct Roster {
    config: Config,
    client: kube::Client,
    way: Way,
    shutdown: CancellationToken,
    follows: Follows,
    refusals: Refusals,
    /// Tasks that own an instance's stream, until its end (true) or ours.
    tasks: JoinSet<bool>,
    keys: HashMap<task::Id, InstanceKey>,
    /// Topics being made.
    topics: JoinSet<()>,
    instances: HashMap<InstanceKey, Owned>,
    pods: HashMap<String, ListedPod>,
    /// How many of the pods are an app's.
    apps: HashMap<AppName, usize>,
    recorded: Recorded,
    /// The node's directories that are read, with [`Source::Files`].
    watches: Option<Watches>,
    /// The uids of a list that is being received.
    listing: Option<HashSet<String>>,
    /// Checkpoints of before that no pod has claimed yet; `None` once that is settled.
    unclaimed: Option<HashMap<InstanceKey, Record>>,
}

struct ListedPod {
    pod: Pod,
    app: AppName,
    instances: Vec<InstanceKey>,
}

/// An instance that has a task.
struct Owned {
    known: watch::Sender<Known>,
    /// `None`: it is gone, and its stream is being ended.
    instance: Option<Arc<Instance>>,
    backoff: Backoff,
}

impl Owned {
    fn new(known: Known, instance: Option<Arc<Instance>>) -> Self {
        Self {
            known: watch::Sender::new(known),
            instance,
            backoff: Backoff::new(AGAIN_FIRST, AGAIN_MOST),
        }
    }
}

impl Roster {
    /// Knows the checkpoints, and no pod.
    pub fn new(config: Config, client: kube::Client, way: Way, shutdown: CancellationToken) -> Self {
        let unclaimed: HashMap<_, _> = way.checkpoints.all().into_iter().collect();
        let mut recorded = Recorded::default();
        // Standard error's goes with standard output's.
        for (key, record) in unclaimed.iter().filter(|(key, _)| key.fd() != Some(Fd::Err)) {
            recorded.note(key, record.restarts);
        }
        Self {
            watches: (config.source == Source::Files).then(Watches::new),
            unclaimed: Some(unclaimed),
            recorded,
            config,
            client,
            way,
            shutdown,
            follows: Follows::default(),
            refusals: Refusals::default(),
            tasks: JoinSet::new(),
            keys: HashMap::new(),
            topics: JoinSet::new(),
            apps: HashMap::new(),
            instances: HashMap::new(),
            pods: HashMap::new(),
            listing: None,
        }
    }

    /// Does what an event asks for.
    pub fn apply(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listing = Some(HashSet::new()),
            Event::InitApply(pod) => {
                if let (Some(listing), Some(uid)) = (&mut self.listing, &pod.metadata.uid) {
                    listing.insert(uid.clone());
                }
                self.show(&pod);
            }
            Event::InitDone => self.listed(),
            Event::Apply(pod) => self.show(&pod),
            Event::Delete(pod) => {
                if let Some(uid) = &pod.metadata.uid {
                    self.hide_pod(uid);
                }
            }
        }
    }

    /// Returns when a task has ended, having forgotten it; one that failed begins again from its checkpoint. Never while there is none.
    ///
    /// *Cancel safety*: nothing is lost when the call is dropped.
    pub async fn reap(&mut self) {
        tokio::select! {
            Some(ended) = self.tasks.join_next_with_id() => match ended {
                Ok((id, is_over)) => self.ended(id, is_over),
                Err(error) => self.failed(&error),
            },
            Some(_) = self.topics.join_next() => {}
            else => std::future::pending().await,
        }
    }

    /// Begins the task of every instance that is shown and has none: whatever ended it, a container is never forgotten.
    pub fn reconcile(&mut self) {
        let is_forgotten = |pod: &&ListedPod| pod.instances.iter().any(|key| !self.instances.contains_key(key));
        let forgotten: Vec<_> = self
            .pods
            .values()
            .filter(is_forgotten)
            .map(|pod| pod.pod.clone())
            .collect();
        for pod in forgotten {
            tracing::warn!(pod = pod.metadata.name, "a container has no task: begun again");
            self.show(&pod);
        }
    }

    /// Waits until what was read is published. The shutdown token must have been cancelled. Returns how many streams were not done by then.
    pub async fn finish(mut self, deadline: Duration) -> usize {
        let done = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(deadline, done).await;
        self.tasks.len()
    }

    fn show(&mut self, pod: &Pod) {
        let (Some(uid), Some(app)) = (pod.metadata.uid.clone(), instances::app(pod, &self.config.app_from)) else {
            return;
        };
        let mut instances = instances::instances(pod, &self.config.app_from);
        if self.watches.is_some() {
            // One task reads both outputs, under the first one's key.
            instances
                .iter_mut()
                .for_each(|instance| instance.key = instance.key.of(Fd::Out));
        }
        let keys: Vec<_> = instances.iter().map(|instance| instance.key.clone()).collect();
        self.count_in(&app);
        let mut own = pod.clone();
        // Most of an object, and of no use here.
        own.metadata.managed_fields = None;
        let listed = ListedPod {
            pod: own,
            app,
            instances: keys.clone(),
        };
        if let Some(before) = self.pods.insert(uid, listed) {
            self.count_out(&before.app);
            for key in before.instances.iter().filter(|key| !keys.contains(key)) {
                self.hide(key);
            }
        }
        // Oldest first: what is on record is then what came before.
        for instance in instances.into_iter().rev() {
            self.show_instance(instance);
        }
    }

    fn count_in(&mut self, app: &AppName) {
        if let Some(pods) = self.apps.get_mut(app) {
            *pods += 1;
            return;
        }
        self.apps.insert(app.clone(), 1);
        self.topics.spawn(make_topic(Arc::clone(&self.way.bus), app.clone()));
    }

    fn count_out(&mut self, app: &AppName) {
        if let Some(pods) = self.apps.get_mut(app) {
            *pods -= 1;
            if *pods == 0 {
                self.apps.remove(app);
            }
        }
    }

    fn show_instance(&mut self, instance: Instance) {
        match self.instances.get(&instance.key) {
            Some(owned) => {
                let now = instance.known;
                owned
                    .known
                    .send_if_modified(|known| std::mem::replace(known, now) != now);
            }
            None => self.begin(instance),
        }
    }

    fn hide_pod(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.count_out(&pod.app);
            pod.instances.iter().for_each(|key| self.hide(key));
        }
        for key in self.recorded.forget(uid) {
            self.forget(&key);
        }
    }

    /// Its task finishes what there is, and then is reaped.
    fn hide(&mut self, key: &InstanceKey) {
        if let Some(owned) = self.instances.get(key) {
            owned
                .known
                .send_if_modified(|known| std::mem::replace(&mut known.present, false));
        }
    }

    fn listed(&mut self) {
        let listing = self.listing.take().unwrap_or_default();
        let gone: Vec<_> = self
            .pods
            .keys()
            .filter(|uid| !listing.contains(*uid))
            .cloned()
            .collect();
        gone.iter().for_each(|uid| self.hide_pod(uid));
        self.recorded.retain(|uid| self.pods.contains_key(uid));
        let mut unclaimed = self.unclaimed.take().unwrap_or_default();
        self.drop_err(&mut unclaimed);
        for (key, record) in unclaimed {
            self.close(key, record);
        }
        self.config.status.set_listed();
    }
}

/// Makes an app's topic, so that readers find it before its first line.
async fn make_topic(bus: Arc<dyn Bus>, app: AppName) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    while let Err(error) = bus.create(&app).await {
        if !error.is_transient() {
            return tracing::error!(%app, %error, "topic not made");
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
