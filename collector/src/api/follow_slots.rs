//! Shares a node's limited number of follows among its containers.
//!
//! Each follow uses one inotify instance of the kubelet (128 per user by default, about 110 free).
//! The limit is learned from the kubelet's refusal. Containers without a slot are polled; a
//! container that writes takes the slot of one that is idle, because a short file is cheap to poll.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use system::{
    clock::{Instant, since, steady},
    collections::HashMap,
};
use tokio_util::sync::CancellationToken;

/// A follow without output for this long can be revoked.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// A learned limit expires after this, because other processes may have freed inotify instances.
const LIMIT_TTL: Duration = Duration::from_secs(300);

/// The follow slots of all nodes. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct FollowSlots(Arc<Mutex<HashMap<String, Node>>>);

#[derive(Debug, Default)]
struct Node {
    next: u64,
    open: BTreeMap<u64, OpenFollow>,
    /// The number of open follows when the node refused another, and when.
    limit: Option<(usize, Instant)>,
}

#[derive(Debug)]
struct OpenFollow {
    record_activity: Instant,
    revoke: CancellationToken,
}

/// One follow. Released on drop.
#[derive(Debug)]
pub struct FollowSlot {
    node: String,
    id: u64,
    revoke: CancellationToken,
    all: FollowSlots,
}

impl FollowSlots {
    /// Acquires a slot on a node, or returns `None` if none is free and the log must be polled. For
    /// an active container the slot of an idle one is revoked.
    pub fn acquire(&self, node: &str, is_active: bool) -> Option<FollowSlot> {
        let mut nodes = self.0.lock();
        let here = nodes.entry(node.to_owned()).or_default();
        if here.limit.is_some_and(|(_, at)| since(at) > LIMIT_TTL) {
            here.limit = None;
        }
        if here.limit.is_some_and(|(limit, _)| here.open.len() >= limit) {
            let idle = here.open.iter().min_by_key(|(_, open)| open.record_activity);
            let idle = idle.filter(|(_, open)| is_active && since(open.record_activity) > IDLE_AFTER);
            let id = idle.map(|(id, _)| *id)?;
            here.open.remove(&id)?.revoke.cancel();
        }
        let (id, revoke) = (here.next, CancellationToken::new());
        here.next += 1;
        let open = OpenFollow {
            record_activity: steady(),
            revoke: revoke.clone(),
        };
        here.open.insert(id, open);
        Some(FollowSlot {
            node: node.to_owned(),
            id,
            revoke,
            all: self.clone(),
        })
    }
}

impl FollowSlot {
    /// Marks the container as active.
    pub fn record_activity(&self) {
        if let Some(open) = self
            .all
            .0
            .lock()
            .get_mut(&self.node)
            .and_then(|node| node.open.get_mut(&self.id))
        {
            open.record_activity = steady();
        }
    }

    /// Returns when another container takes the slot.
    pub async fn revoked(&self) {
        self.revoke.cancelled().await;
    }

    /// Records that the node refused this follow: its limit is the number that is open now.
    pub fn report_limit(self) {
        let all = self.all.clone();
        let node = self.node.clone();
        drop(self);
        if let Some(node) = all.0.lock().get_mut(&node) {
            node.limit = Some((node.open.len(), steady()));
        }
    }
}

impl Drop for FollowSlot {
    fn drop(&mut self) {
        let mut nodes = self.all.0.lock();
        if let Some(node) = nodes.get_mut(&self.node) {
            node.open.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_only_an_active_container_takes_the_slot_of_an_idle_one() {
        let slots = FollowSlots::default();
        let first = slots.acquire("node", false).unwrap();
        let second = slots.acquire("node", false).unwrap();
        slots.acquire("node", false).unwrap().report_limit();
        assert!(slots.acquire("node", true).is_none(), "no container is idle yet");
        tokio::time::advance(IDLE_AFTER * 2).await;
        second.record_activity();
        assert!(slots.acquire("node", false).is_none());
        let third = slots.acquire("node", true).unwrap();
        first.revoked().await;
        drop(first);
        assert!(slots.acquire("node", true).is_none(), "no other container is idle");
        assert!(slots.acquire("other", false).is_some());
        drop(third);
        assert!(slots.acquire("node", false).is_some(), "a slot was released");
        tokio::time::advance(LIMIT_TTL * 2).await;
        let more: Vec<_> = (0..5).map(|_| slots.acquire("node", false)).collect();
        assert!(more.iter().all(Option::is_some), "the learned limit has expired");
    }
}
