//! Log files of the node: location, rotation and removal.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::logs::cri_files::CriLogFiles;
use crate::scenario::LogFiles;
use crate::simulation::Simulation;
use crate::store::pod::PodKey;

/// Creates the file of instance `number`, counted from 0. Returns `None` if the node writes no log
/// files or the file cannot be created.
pub(crate) fn create_file(
    sim: &Simulation,
    key: &PodKey,
    uid: &str,
    container: &str,
    number: u32,
) -> Option<Arc<CriLogFiles>> {
    let path = pod_dir(sim, key, uid)?.join(container).join(format!("{number}.log"));
    match CriLogFiles::create(path, sim.clock.clone()) {
        Ok(log) => {
            let log = Arc::new(log);
            sim.open_log_files.lock().push(Arc::downgrade(&log));
            Some(log)
        }
        Err(error) => {
            tracing::error!(%error, namespace = key.0, pod = key.1, container, "log file create failed");
            None
        }
    }
}

/// Rotates full log files periodically; never returns if the node writes log files.
pub(crate) async fn run_checks(sim: Arc<Simulation>) {
    if sim.log_files.dir.is_none() {
        return;
    }
    let mut ticks = interval(sim.log_files.check);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sim = Arc::clone(&sim);
        // Compression blocks.
        let result = system::task::blocking(move || rotate_full(&sim)).await;
        if let Ok(Err(error)) = result {
            tracing::error!(%error, "log rotation failed");
        }
    }
}

/// Removes a pod's log directory later, as the kubelet's cleanup does.
pub(crate) fn schedule_removal(sim: &Arc<Simulation>, key: &PodKey, uid: &str) {
    let Some(dir) = pod_dir(sim, key, uid) else { return };
    sim.spawn(async move {
        sleep(DIRECTORY_REMOVAL_DELAY).await;
        if let Err(error) = system::files::remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "log directory remove failed");
        }
    });
}

fn rotate_full(sim: &Simulation) -> io::Result<()> {
    let logs: Vec<_> = {
        let mut written = sim.open_log_files.lock();
        written.retain(|log| log.strong_count() > 0);
        written.iter().filter_map(Weak::upgrade).collect()
    };
    let LogFiles {
        max_size, max_files, ..
    } = sim.log_files;
    logs.into_iter()
        .try_for_each(|log| log.rotate_if_full(max_size, max_files))
}

/// Returns `<namespace>_<pod>_<uid>`. The directory of a static pod has the UID from the node, not
/// the UID of its mirror pod.
fn pod_dir(sim: &Simulation, key: &PodKey, uid: &str) -> Option<PathBuf> {
    let dir = sim.log_files.dir.as_ref()?;
    let mirror = sim.pods.get_on_node(key).filter(|pod| pod.uid == uid);
    let node_uid = mirror.and_then(|pod| pod.annotations.get(MIRROR_ANNOTATION).cloned());
    let (namespace, pod) = key;
    let uid = node_uid.as_deref().unwrap_or(uid);
    Some(dir.join(format!("{namespace}_{pod}_{uid}")))
}

/// *Source*: the kubelet's `ConfigMirrorAnnotationKey`; its value is the static pod's UID.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Time from a pod's removal until its directory is removed; a real node takes more than 9 s.
const DIRECTORY_REMOVAL_DELAY: Duration = Duration::from_secs(12);
