//! A reader without acknowledgement: stored batches, then new ones.

use std::{collections::VecDeque, sync::Arc};

use futures::stream::{self, StreamExt};
use system::task;
use tokio::sync::watch;

use super::log::Log;
use crate::{BusError, PublishTime, Reader, ReaderItem, Start};

/// Bytes per read from disk, which takes one switch to a blocking thread; also about the maximum
/// that a reader buffers.
const READ_BYTES: usize = 2 << 20;

struct Follower {
    log: Arc<Log>,
    newest: watch::Receiver<u64>,
    /// The key to read next.
    next: u64,
    /// Read and not yet delivered.
    buffer: VecDeque<ReaderItem>,
    /// The newest key when the reader was opened; `None` once it is passed.
    catching_up: Option<u64>,
}

/// Reads a topic from `start` on. The reader ends when the app is removed.
pub(super) fn follow(log: Arc<Log>, start: Start) -> Reader {
    let newest = log.newest.subscribe();
    let end = *newest.borrow();
    let floor = log.floor();
    let wanted = match start {
        Start::Now => end + 1,
        Start::At(time) => time.0,
        Start::Oldest => 0,
    };
    // Without evictions and older batches, the reader sees the topic from its first batch on.
    let is_complete = floor == 0 && (start == Start::Oldest || end == 0);
    let since = if is_complete { 0 } else { wanted.max(floor) };
    let follower = Follower {
        log,
        newest,
        next: wanted.max(floor),
        buffer: VecDeque::new(),
        catching_up: Some(end),
    };
    let items = stream::unfold(follower, |mut follower| async {
        let item = follower.next().await?;
        Some((item, follower))
    });
    Reader::new(items.boxed(), PublishTime(since), true)
}

impl Follower {
    async fn next(&mut self) -> Option<Result<ReaderItem, BusError>> {
        loop {
            if let Some(item) = self.buffer.pop_front() {
                return Some(Ok(item));
            }
            match self.catching_up {
                Some(end) if self.next > end => {
                    self.catching_up = None;
                    return Some(Ok(ReaderItem::CaughtUp));
                }
                _ => {}
            }
            if self.log.removed.is_cancelled() {
                return None;
            }
            if let Some(interrupted) = self.skip_evicted() {
                return Some(Ok(interrupted));
            }
            let newest = *self.newest.borrow_and_update();
            if self.next > newest {
                tokio::select! {
                    biased;
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

    /// Skips batches that retention has evicted; returns the item that reports it.
    fn skip_evicted(&mut self) -> Option<ReaderItem> {
        let floor = self.log.floor();
        if self.next >= floor {
            return None;
        }
        let from = PublishTime(std::mem::replace(&mut self.next, floor));
        Some(ReaderItem::Interrupted {
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
            task::blocking(read).await.map_err(|_| BusError::Closed)??
        };
        if self.log.floor() > from {
            // Retention overtook the read, which may have skipped batches: they are reported first.
            return Ok(());
        }
        self.next = found.last().map_or(newest, |(key, _)| *key) + 1;
        self.buffer = found.into_iter().map(|(_, item)| item).collect();
        Ok(())
    }
}
