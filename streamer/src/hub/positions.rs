//! How far every stream has been shown: what a cursor is made of.

use std::{collections::HashMap, time::Duration};

use bus::{
    PublishTime,
    cursor::{Cursor, Position, StreamKey},
    reassembly::Ranges,
};

use crate::{frame::Frame, hub::delivered::Delivered, line::Run};

/// How far behind now a cursor's time lies: far above any way through the bus, and any hold, so that all from before has been dealt with.
const BEHIND: Duration = Duration::from_secs(120);

/// All that went into a ring, by stream.
pub(crate) struct Positions {
    /// Nothing from before this was ever looked at.
    since: PublishTime,
    /// The bus has not been heard since then: what it took later may not have been seen.
    heard: Option<PublishTime>,
    streams: HashMap<StreamKey, Dealt>,
}

#[derive(Default)]
struct Dealt {
    next: u64,
    holes: Ranges,
    last: PublishTime,
}

impl Positions {
    pub(crate) fn new(since: PublishTime) -> Self {
        Self {
            since,
            heard: None,
            streams: HashMap::new(),
        }
    }

    /// Notes what a frame shows.
    pub(crate) fn insert(&mut self, frame: &Frame) {
        for run in frame.runs() {
            match run {
                Run::Lines(lines) => {
                    let dealt = self.streams.entry(lines.key).or_default();
                    dealt.last = dealt.last.max(lines.published);
                    dealt.next = dealt.next.max(lines.seqs().end);
                    if lines.late {
                        dealt.holes.remove(lines.seqs());
                    }
                }
                Run::Notice(told) => {
                    let Some(gap) = &told.gap else { continue };
                    let dealt = self.streams.entry(gap.key).or_default();
                    dealt.last = dealt.last.max(gap.published);
                    dealt.next = dealt.next.max(gap.seqs.end);
                    if gap.open {
                        dealt.holes.insert(gap.seqs.clone());
                    }
                }
            }
        }
    }

    /// The bus is not heard any more (then since when), or is again.
    pub(crate) fn hear(&mut self, lost: Option<PublishTime>) {
        self.heard = match (self.heard, lost) {
            (Some(first), Some(lost)) => Some(first.min(lost)),
            (_, lost) => lost,
        };
    }

    /// Whether all was noted that a reader had from elsewhere: until then no cursor of this ring says where it is. `read_back`: of what the bus took since the ring
    /// began. `resumed`: from the replica it was at, which may have been ahead; what a read-back had from before the ring began is never noted.
    pub(crate) fn has(&self, read_back: Option<&Delivered>, resumed: Option<&Delivered>) -> bool {
        let noted = |key, next| self.streams.get(&key).is_some_and(|dealt| dealt.next >= next);
        let mut shown = read_back.into_iter().flat_map(|shown| shown.recent(self.since));
        let mut heard = resumed.into_iter().flat_map(Delivered::heard);
        shown.all(|(key, next)| noted(key, next))
            && heard.all(|(key, next)| noted(key, next) || read_back.is_some_and(|shown| shown.next_of(key) >= next))
    }

    /// The place behind all that was noted.
    pub(crate) fn cursor(&self, now: PublishTime) -> Cursor {
        let before = self.before(now);
        let recent = self.streams.iter().filter(|(_, dealt)| dealt.last >= before);
        let streams = recent.map(|(key, dealt)| {
            let position = Position {
                next: dealt.next,
                holes: dealt.holes.within(0..dealt.next).collect(),
            };
            (*key, position)
        });
        Cursor {
            before,
            streams: streams.collect(),
            coarse: false,
        }
    }

    /// Forgets the streams that no cursor will name.
    pub(crate) fn forget(&mut self, now: PublishTime) {
        let before = self.before(now);
        self.streams.retain(|_, dealt| dealt.last >= before);
    }

    fn before(&self, now: PublishTime) -> PublishTime {
        let behind = now.earlier_by(BEHIND);
        self.heard.map_or(behind, |heard| heard.min(behind)).max(self.since)
    }
}
