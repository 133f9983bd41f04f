//! How far every stream of an app was delivered to the ring: the source of cursors.

use std::time::Duration;

use bus::{
    PublishTime, StreamProgress,
    cursor::{Cursor, StreamKey},
};
use system::collections::HashMap;

use crate::{frame::Frame, hub::delivered::Delivered, line::Run};

/// A cursor's time lies this far in the past, on the clock of the bus: longer than any delay of the
/// bus plus any reorder window, so that everything published before it was processed.
const CURSOR_AGE: Duration = Duration::from_secs(120);

/// The progress of every stream in a ring.
pub(crate) struct Positions {
    /// Nothing published before this was read.
    since: PublishTime,
    /// The bus delivers in order of publish times.
    in_order: bool,
    /// Publish time of the newest batch recorded.
    newest: PublishTime,
    /// Everything published before this is recorded; set where the bus delivers in order.
    settled: PublishTime,
    /// Since when the bus is not read: later batches may be missing.
    unread_since: Option<PublishTime>,
    streams: HashMap<StreamKey, StreamProgress>,
}

impl Positions {
    pub(crate) fn new(since: PublishTime, in_order: bool) -> Self {
        Self {
            since,
            in_order,
            newest: since,
            settled: since,
            unread_since: None,
            streams: HashMap::default(),
        }
    }

    /// Records the contents of a frame.
    pub(crate) fn insert(&mut self, frame: &Frame) {
        self.newest = self.newest.max(frame.newest().unwrap_or_default());
        for run in frame.runs() {
            match run {
                Run::Lines(lines) => {
                    let progress = self.streams.entry(lines.key).or_default();
                    progress.record_published(lines.published);
                    progress.deliver(lines.seqs());
                }
                Run::Notice(notice) => {
                    let Some(gap) = &notice.gap else { continue };
                    let progress = self.streams.entry(gap.key).or_default();
                    progress.record_published(gap.published);
                    if gap.open {
                        progress.report_gap(gap.seqs.clone());
                    } else {
                        progress.close_gap(gap.seqs.clone());
                    }
                }
            }
        }
    }

    /// Records that everything published before this is recorded.
    pub(crate) fn set_settled(&mut self, before: PublishTime) {
        self.settled = self.settled.max(before);
    }

    /// Records that the bus is not read since `lost`, or, with `None`, that it is read again.
    pub(crate) fn set_bus_lost(&mut self, lost: Option<PublishTime>) {
        self.unread_since = match (self.unread_since, lost) {
            (Some(first), Some(lost)) => Some(first.min(lost)),
            (_, lost) => lost,
        };
    }

    /// Returns whether the ring covers everything that a reader got elsewhere; before that, its
    /// cursors are not valid for the reader. `read_back`: what it got from the history that was
    /// published since the ring began. `resumed`: what it got from another replica, which may have
    /// been ahead; history from before the ring began is never recorded here.
    pub(crate) fn covers(&self, read_back: Option<&Delivered>, resumed: Option<&Delivered>) -> bool {
        let is_recorded = |key, next| self.streams.get(&key).is_some_and(|progress| progress.next() >= next);
        let mut from_history = read_back.into_iter().flat_map(|delivered| delivered.recent(self.since));
        let mut resumed = resumed.into_iter().flat_map(Delivered::streams);
        from_history.all(|(key, next)| is_recorded(key, next))
            && resumed.all(|(key, next)| {
                is_recorded(key, next) || read_back.is_some_and(|delivered| delivered.next_of(key) >= next)
            })
    }

    /// Returns the cursor after everything recorded. `now`: the time of the bus.
    pub(crate) fn cursor(&self, now: PublishTime) -> Cursor {
        let before = self.before(now);
        let (recent, listed) = (self.streams.iter(), self.listed_since(before));
        let recent = recent.filter(|(_, progress)| progress.last_published() >= listed);
        let streams = recent.map(|(key, progress)| (*key, StreamProgress::new(progress.next(), progress.gaps())));
        Cursor {
            before,
            streams: streams.collect(),
            coarse: false,
        }
    }

    /// Forgets the streams that no future cursor lists.
    pub(crate) fn forget(&mut self, now: PublishTime) {
        let listed = self.listed_since(self.before(now));
        self.streams.retain(|_, progress| progress.last_published() >= listed);
    }

    /// Returns since when a stream must have published to be listed in a cursor with this time. More
    /// streams are listed than necessary, so that a gap behind the cursor can be counted.
    fn listed_since(&self, before: PublishTime) -> PublishTime {
        before.min(self.newest.earlier_by(CURSOR_AGE)).max(self.since)
    }

    fn before(&self, now: PublishTime) -> PublishTime {
        let before = if self.in_order {
            // No clock is needed, and publish times may stand still while a clock goes on.
            self.settled.max(self.newest.earlier_by(CURSOR_AGE))
        } else {
            now.earlier_by(CURSOR_AGE)
        };
        self.unread_since
            .map_or(before, |since| since.min(before))
            .max(self.since)
    }
}
