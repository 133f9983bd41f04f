//! Shares the limited numbers of follows and of connections among the containers.
//!
//! Each follow uses one inotify instance of the kubelet (128 per user by default, about 110 free)
//! and a file descriptor of this process. The kubelet's limit is learned from its refusal.
//! Containers without a slot are polled; a container that writes takes the slot of one that is
//! idle, because a short file is cheap to poll.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use system::{
    clock::{Instant, since, steady},
    collections::HashMap,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// A follow without output for this long can be revoked.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// A learned limit expires after this, because other processes may have freed inotify instances.
const LIMIT_TTL: Duration = Duration::from_secs(300);

/// The follow slots of all nodes. Clones share them.
#[derive(Clone, Debug)]
pub struct FollowSlots {
    nodes: Arc<Mutex<HashMap<String, Node>>>,
    max_follows: usize,
    /// Connections of requests that do not follow.
    snapshots: Arc<Semaphore>,
}

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
    /// Creates slots for at most `max_connections` connections at a time: a quarter of them for
    /// requests that do not follow, the rest for follows.
    pub fn new(max_connections: usize) -> Self {
        let snapshots = (max_connections / 4).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            nodes: Arc::default(),
            max_follows: (max_connections - max_connections / 4).max(1),
            snapshots: Arc::new(Semaphore::new(snapshots)),
        }
    }

    /// Acquires a slot on a node, or returns `None` if none is free and the log must be polled. For
    /// an active container the slot of an idle one is revoked.
    pub fn acquire(&self, node: &str, is_active: bool) -> Option<FollowSlot> {
        let mut nodes = self.nodes.lock();
        let here = nodes.entry(node.to_owned()).or_default();
        if here.limit.is_some_and(|(_, at)| since(at) > LIMIT_TTL) {
            here.limit = None;
        }
        if here.limit.is_some_and(|(limit, _)| here.open.len() >= limit) {
            here.revoke_idle(is_active)?;
        } else if nodes.values().map(|node| node.open.len()).sum::<usize>() >= self.max_follows {
            let used = nodes.values_mut().filter(|node| !node.open.is_empty());
            used.min_by_key(|node| node.idle_since())?.revoke_idle(is_active)?;
        }
        let here = nodes.entry(node.to_owned()).or_default();
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

    /// Waits for a connection of a request that does not follow.
    ///
    /// *Cancel safety*: safe to drop and call again.
    pub async fn snapshot(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.snapshots).acquire_owned().await.ok()
    }
}

impl Node {
    /// Returns when the follow that is idle for the longest time was last active.
    fn idle_since(&self) -> Option<Instant> {
        self.open.values().map(|open| open.record_activity).min()
    }

    /// Revokes the follow that is idle for the longest time, for a container that `is_active`.
    fn revoke_idle(&mut self, is_active: bool) -> Option<()> {
        let idle = self.open.iter().min_by_key(|(_, open)| open.record_activity);
        let idle = idle.filter(|(_, open)| is_active && since(open.record_activity) > IDLE_AFTER);
        let id = idle.map(|(id, _)| *id)?;
        self.open.remove(&id)?.revoke.cancel();
        Some(())
    }
}

impl FollowSlot {
    /// Marks the container as active.
    pub fn record_activity(&self) {
        if let Some(open) = self
            .all
            .nodes
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
        if let Some(node) = all.nodes.lock().get_mut(&node) {
            node.limit = Some((node.open.len(), steady()));
        }
    }
}

impl Drop for FollowSlot {
    fn drop(&mut self) {
        let mut nodes = self.all.nodes.lock();
        if let Some(node) = nodes.get_mut(&self.node) {
            node.open.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_of_connections_holds_over_all_nodes() {
        let slots = FollowSlots::new(4);
        let first = slots.acquire("a", false).unwrap();
        let others = [slots.acquire("b", true).unwrap(), slots.acquire("c", true).unwrap()];
        assert!(
            slots.acquire("d", true).is_none(),
            "three follows are open, and none is idle"
        );
        tokio::time::advance(IDLE_AFTER * 2).await;
        others.iter().for_each(FollowSlot::record_activity);
        let _active = slots.acquire("d", true).unwrap();
        first.revoked().await;
        let snapshot = slots.snapshot().await;
        assert!(tokio::time::timeout(IDLE_AFTER, slots.snapshot()).await.is_err());
        drop(snapshot);
        assert!(slots.snapshot().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_only_an_active_container_takes_the_slot_of_an_idle_one() {
        let slots = FollowSlots::new(100);
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
