//! The newest known instance of each container, to detect instances that were never seen.

use system::collections::HashMap;

use crate::instance::InstanceKey;

/// The newest instance with a checkpoint, by container.
///
/// Its checkpoint is kept, ended or not, until a newer instance has one or the pod is gone.
/// Instances before the first one with a checkpoint are not reported as a gap.
///
/// *Bound*: the containers of existing pods.
#[derive(Debug, Default)]
pub struct LastSeen {
    /// By pod uid and container.
    pods: HashMap<String, HashMap<String, Newest>>,
}

#[derive(Debug)]
struct Newest {
    container_id: String,
    /// `None`: the checkpoint has no restart count.
    restarts: Option<u32>,
}

impl LastSeen {
    /// Records that an instance has a checkpoint. Returns the instance whose checkpoint is obsolete
    /// now.
    pub fn insert(&mut self, key: &InstanceKey, restarts: Option<u32>) -> Option<InstanceKey> {
        let containers = self.pods.entry(key.pod_uid.clone()).or_default();
        let current = containers.get(&key.container);
        if current.is_some_and(|current| current.restarts > restarts) {
            return Some(key.clone());
        }
        let newest = Newest {
            container_id: key.container_id.clone(),
            restarts,
        };
        let older = containers.insert(key.container.clone(), newest)?;
        (older.container_id != key.container_id).then(|| InstanceKey {
            container_id: older.container_id,
            ..key.clone()
        })
    }

    /// Returns the newest instance and its restart count if that is lower than `restarts`.
    pub fn older(&self, key: &InstanceKey, restarts: u32) -> Option<(InstanceKey, u32)> {
        let newest = self.pods.get(&key.pod_uid)?.get(&key.container)?;
        let older = newest.restarts.filter(|older| *older < restarts)?;
        let key = InstanceKey {
            container_id: newest.container_id.clone(),
            ..key.clone()
        };
        Some((key, older))
    }

    /// Returns whether the instance is the newest of its container.
    pub fn is_newest(&self, key: &InstanceKey) -> bool {
        let newest = self.pods.get(&key.pod_uid).and_then(|pod| pod.get(&key.container));
        newest.is_some_and(|newest| newest.container_id == key.container_id)
    }

    /// Removes a pod. Returns the newest instances of its containers.
    pub fn remove(&mut self, pod_uid: &str) -> Vec<InstanceKey> {
        let containers = self.pods.remove(pod_uid).into_iter().flatten();
        let keys = containers.map(|(container, newest)| InstanceKey {
            pod_uid: pod_uid.to_owned(),
            container,
            container_id: newest.container_id,
        });
        keys.collect()
    }

    /// Removes the pods for which the predicate is false.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.pods.retain(|uid, _| is_there(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(container_id: &str) -> InstanceKey {
        InstanceKey {
            pod_uid: "pod".to_owned(),
            container: "c".to_owned(),
            container_id: container_id.to_owned(),
        }
    }

    #[test]
    fn the_newest_instance_is_kept_until_a_newer_one_or_the_end_of_the_pod() {
        let mut recorded = LastSeen::default();
        assert_eq!(recorded.older(&key("a"), 5), None, "no checkpoint yet");
        assert_eq!(recorded.insert(&key("a"), Some(1)), None);
        assert_eq!(recorded.insert(&key("a"), Some(1)), None);
        assert_eq!(recorded.older(&key("d"), 4), Some((key("a"), 1)));
        assert_eq!(recorded.insert(&key("b"), Some(2)), Some(key("a")));
        assert_eq!(
            recorded.insert(&key("a"), Some(1)),
            Some(key("a")),
            "older than the newest"
        );
        assert!(recorded.is_newest(&key("b")) && !recorded.is_newest(&key("a")));
        assert_eq!(recorded.remove("pod"), [key("b")]);
        assert!(!recorded.is_newest(&key("b")));
    }
}
