//! The node's log files: where they are, when they are rotated, and when they go.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::logs::cri_files::FileLog;
use crate::simulation::Sim;
use crate::store::pod::PodKey;

/// Opens the file of a new instance, which came after `number` others. `None` where there are to be no files.
pub(crate) fn open(sim: &Sim, key: &PodKey, uid: &str, container: &str, number: u32) -> Option<Arc<FileLog>> {
    let path = pod_dir(sim, key, uid)?.join(container).join(format!("{number}.log"));
    match FileLog::create(path) {
        Ok(log) => {
            let log = Arc::new(log);
            sim.written_files.lock().push(Arc::downgrade(&log));
            Some(log)
        }
        Err(error) => {
            tracing::error!(%error, namespace = key.0, pod = key.1, container, "no log file");
            None
        }
    }
}

/// Checks sizes, for ever.
pub(crate) async fn run(sim: Arc<Sim>) {
    if sim.log_files.dir.is_none() {
        return;
    }
    let mut ticks = interval(sim.log_files.check);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sim = Arc::clone(&sim);
        // Compressing takes its time.
        let checked = tokio::task::spawn_blocking(move || check(&sim)).await;
        if let Ok(Err(error)) = checked {
            tracing::error!(%error, "log file not rotated");
        }
    }
}

/// Removes a pod's directory in a later pass of the kubelet's.
pub(crate) fn remove_later(sim: &Arc<Sim>, key: &PodKey, uid: &str) {
    let Some(dir) = pod_dir(sim, key, uid) else { return };
    sim.tasks.spawn(sim.stop.clone().run_until_cancelled_owned(async move {
        sleep(POD_TO_DIRECTORY).await;
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "log directory not removed");
        }
    }));
}

fn check(sim: &Sim) -> io::Result<()> {
    let logs: Vec<_> = {
        let mut written = sim.written_files.lock();
        written.retain(|log| log.strong_count() > 0);
        written.iter().filter_map(Weak::upgrade).collect()
    };
    let is_full = |log: &Arc<FileLog>| log.size().is_some_and(|size| size >= sim.log_files.max_size);
    logs.into_iter()
        .filter(is_full)
        .try_for_each(|log| log.rotate(sim.log_files.max_files))
}

/// `<namespace>_<pod>_<uid>`; a static pod has the uid that its node gave it, not the one of its mirror.
fn pod_dir(sim: &Sim, key: &PodKey, uid: &str) -> Option<PathBuf> {
    let dir = sim.log_files.dir.as_ref()?;
    let mirror = sim.store.pod(key).filter(|pod| pod.uid == uid);
    let node_uid = mirror.and_then(|pod| pod.annotations.get(MIRROR_ANNOTATION).cloned());
    let (namespace, pod) = key;
    let uid = node_uid.as_deref().unwrap_or(uid);
    Some(dir.join(format!("{namespace}_{pod}_{uid}")))
}

/// *Source*: the kubelet's `ConfigMirrorAnnotationKey`; its value is the static pod's uid.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// From a pod's end until its directory goes: still there 9 s later on a real node.
const POD_TO_DIRECTORY: Duration = Duration::from_secs(12);
