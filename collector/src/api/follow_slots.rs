//! Who is followed where a node has not enough follows for all: each takes one of its inotify instances (128 by default, about 110 of them free).
//!
//! How many there are is learned from the kubelet's refusal. Those without one are polled; one that has been silent gives its own up to one that is not, so
//! that the quiet ones are polled, whose files are short to read.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A follow that has been silent for so long gives way.
const QUIET: Duration = Duration::from_secs(10);

/// What a node refused is asked for again after this: other programs on it may have let go.
const FORGET: Duration = Duration::from_secs(300);

/// The follows of all nodes. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Follows(Arc<Mutex<HashMap<String, Node>>>);

#[derive(Debug, Default)]
struct Node {
    next: u64,
    open: HashMap<u64, Open>,
    /// So many were open when one more was refused, then.
    limit: Option<(usize, Instant)>,
}

#[derive(Debug)]
struct Open {
    heard: Instant,
    leave: CancellationToken,
}

/// One follow. Given back when dropped.
#[derive(Debug)]
pub struct Seat {
    node: String,
    id: u64,
    leave: CancellationToken,
    all: Follows,
}

impl Follows {
    /// A follow on this node; `None`: there is none left, poll. Where `loud`, one that is silent gives way.
    pub fn seat(&self, node: &str, loud: bool) -> Option<Seat> {
        let mut nodes = self.0.lock();
        let here = nodes.entry(node.to_owned()).or_default();
        if here.limit.is_some_and(|(_, at)| at.elapsed() > FORGET) {
            here.limit = None;
        }
        if here.limit.is_some_and(|(limit, _)| here.open.len() >= limit) {
            let silent = here.open.iter().min_by_key(|(_, open)| open.heard);
            let silent = silent.filter(|(_, open)| loud && open.heard.elapsed() > QUIET);
            let id = silent.map(|(id, _)| *id)?;
            here.open.remove(&id)?.leave.cancel();
        }
        let (id, leave) = (here.next, CancellationToken::new());
        here.next += 1;
        let open = Open {
            heard: Instant::now(),
            leave: leave.clone(),
        };
        here.open.insert(id, open);
        Some(Seat {
            node: node.to_owned(),
            id,
            leave,
            all: self.clone(),
        })
    }
}

impl Seat {
    /// Something came.
    pub fn heard(&self) {
        if let Some(open) = self
            .all
            .0
            .lock()
            .get_mut(&self.node)
            .and_then(|node| node.open.get_mut(&self.id))
        {
            open.heard = Instant::now();
        }
    }

    /// Returns once another needs it more.
    pub async fn wanted(&self) {
        self.leave.cancelled().await;
    }

    /// The node had no follow for it: no more than are open now.
    pub fn refused(self) {
        let all = self.all.clone();
        let node = self.node.clone();
        drop(self);
        if let Some(node) = all.0.lock().get_mut(&node) {
            node.limit = Some((node.open.len(), Instant::now()));
        }
    }
}

impl Drop for Seat {
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
    async fn past_what_the_node_serves_only_a_loud_one_takes_the_place_of_one_that_is_silent() {
        let follows = Follows::default();
        let first = follows.seat("node", false).unwrap();
        let second = follows.seat("node", false).unwrap();
        follows.seat("node", false).unwrap().refused();
        assert!(follows.seat("node", true).is_none(), "nobody is silent yet");
        tokio::time::advance(QUIET * 2).await;
        second.heard();
        assert!(follows.seat("node", false).is_none());
        let third = follows.seat("node", true).unwrap();
        first.wanted().await;
        drop(first);
        assert!(follows.seat("node", true).is_none(), "nobody else is silent");
        assert!(follows.seat("other", false).is_some());
        drop(third);
        assert!(follows.seat("node", false).is_some(), "one was given back");
        tokio::time::advance(FORGET * 2).await;
        let more: Vec<_> = (0..5).map(|_| follows.seat("node", false)).collect();
        assert!(more.iter().all(Option::is_some), "asked for again");
    }
}
