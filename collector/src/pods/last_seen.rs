//! The newest instance on record of each container: where the next one to be shown is not the next one to be started, some were never seen.

use std::collections::HashMap;

use crate::instance::InstanceKey;

/// The newest instance on record of each container.
///
/// Its record stays, ended or not, until a newer one is on record or the pod is gone. Of a container without any record nothing was promised: what came
/// before its first instance on record is not told.
///
/// *Bound*: the containers of the pods that are there.
#[derive(Debug, Default)]
pub struct LastSeen {
    /// By pod uid and container.
    pods: HashMap<String, HashMap<String, Newest>>,
}

#[derive(Debug)]
struct Newest {
    container_id: String,
    /// `None`: an older version recorded it.
    restarts: Option<u32>,
}

impl LastSeen {
    /// Notes that there is a record of an instance. Returns whose record has had its day by that: the older one's.
    pub fn insert(&mut self, key: &InstanceKey, restarts: Option<u32>) -> Option<InstanceKey> {
        let containers = self.pods.entry(key.pod_uid.clone()).or_default();
        let known = containers.get(&key.container);
        if known.is_some_and(|known| known.restarts > restarts) {
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

    /// The newest on record, and its restart count, where that is below the given one.
    pub fn older(&self, key: &InstanceKey, restarts: u32) -> Option<(InstanceKey, u32)> {
        let newest = self.pods.get(&key.pod_uid)?.get(&key.container)?;
        let older = newest.restarts.filter(|older| *older < restarts)?;
        let key = InstanceKey {
            container_id: newest.container_id.clone(),
            ..key.clone()
        };
        Some((key, older))
    }

    /// Whether it is the newest on record of its container.
    pub fn is_newest(&self, key: &InstanceKey) -> bool {
        let newest = self.pods.get(&key.pod_uid).and_then(|pod| pod.get(&key.container));
        newest.is_some_and(|newest| newest.container_id == key.container_id)
    }

    /// Forgets a pod. Returns the instances that were the newest.
    pub fn remove(&mut self, pod_uid: &str) -> Vec<InstanceKey> {
        let containers = self.pods.remove(pod_uid).into_iter().flatten();
        let keys = containers.map(|(container, newest)| InstanceKey {
            pod_uid: pod_uid.to_owned(),
            container,
            container_id: newest.container_id,
        });
        keys.collect()
    }

    /// Forgets the pods of which this is not true.
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
    fn the_newest_record_of_a_container_stays_until_a_newer_one_or_the_pod_s_end() {
        let mut recorded = LastSeen::default();
        assert_eq!(recorded.older(&key("a"), 5), None, "nothing was promised");
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
