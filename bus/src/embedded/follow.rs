//! A reader that settles nothing: what is kept, then what comes.

use std::{collections::VecDeque, sync::Arc};

use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::log::Log;
use crate::{BusError, Item, PublishTime, Reader, Start};

/// Bytes read at once, and so about the most a reader holds: a reader that catches up hops to a blocking thread once for this many.
const READ_BYTES: usize = 2 << 20;

struct Following {
    log: Arc<Log>,
    newest: watch::Receiver<u64>,
    /// The key to read next.
    next: u64,
    /// Read and not yet handed over.
    read: VecDeque<Item>,
    /// The newest key when the reader was made; `None` once it is passed.
    catching_up: Option<u64>,
}

/// Reads a topic from `start` on. Ends when the app is removed.
pub(super) fn follow(log: Arc<Log>, start: Start) -> Reader {
    let newest = log.newest.subscribe();
    let end = *newest.borrow();
    let floor = log.floor();
    let wanted = match start {
        Start::Now => end + 1,
        Start::At(time) => time.0,
        Start::Oldest => 0,
    };
    // Nothing before what was asked for, and nothing ever taken: this reader sees the topic from its first batch on.
    let whole = floor == 0 && (start == Start::Oldest || end == 0);
    let since = if whole { 0 } else { wanted.max(floor) };
    let following = Following {
        log,
        newest,
        next: wanted.max(floor),
        read: VecDeque::new(),
        catching_up: Some(end),
    };
    let items = stream::unfold(following, |mut following| async {
        let item = following.next().await?;
        Some((item, following))
    });
    Reader::new(items.boxed(), PublishTime(since), true)
}

impl Following {
    async fn next(&mut self) -> Option<Result<Item, BusError>> {
        loop {
            if let Some(item) = self.read.pop_front() {
                return Some(Ok(item));
            }
            match self.catching_up {
                Some(end) if self.next > end => {
                    self.catching_up = None;
                    return Some(Ok(Item::CaughtUp));
                }
                _ => {}
            }
            if self.log.removed.is_cancelled() {
                return None;
            }
            if let Some(passed) = self.passed_by_retention() {
                return Some(Ok(passed));
            }
            let newest = *self.newest.borrow_and_update();
            if self.next > newest {
                tokio::select! {
                    changed = self.newest.changed() => changed.ok()?,
                    () = self.log.removed.cancelled() => return None,
                }
                continue;
            }
            if let Err(error) = self.read(newest).await {
                return Some(Err(error));
            }
        }
    }

    /// A reader slower than retention misses what was taken from under it, and is told.
    fn passed_by_retention(&mut self) -> Option<Item> {
        let floor = self.log.floor();
        if self.next >= floor {
            return None;
        }
        let from = PublishTime(std::mem::replace(&mut self.next, floor));
        Some(Item::Break {
            from,
            to: PublishTime(floor),
        })
    }

    async fn read(&mut self, newest: u64) -> Result<(), BusError> {
        let (log, from) = (Arc::clone(&self.log), self.next);
        let found = if log.is_recent(from) {
            log.read(from, newest, READ_BYTES)?
        } else {
            let read = move || log.read(from, newest, READ_BYTES);
            tokio::task::spawn_blocking(read)
                .await
                .map_err(|_| BusError::Closed)??
        };
        // An empty answer: retention took it between the look at the floor and the read.
        self.next = found.last().map_or(newest, |(key, _)| *key) + 1;
        self.read = found.into_iter().map(|(_, item)| item).collect();
        Ok(())
    }
}
