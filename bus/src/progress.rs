//! How much of a stream a reader has processed.

use std::ops::Range;

use crate::{batch::Gap, ranges::Ranges, time::PublishTime};

/// How much of a stream a reader has processed: delivered, or reported as a gap.
///
/// *Shape*: the next sequence number `next`. Every sequence number below it is in one of three
/// states: delivered (the default), reported as a gap, or skipped, because the reader joined the
/// stream after it. Lines of the last two states may still arrive late.
///
/// *Invariants*: `unreported ⊆ undelivered ⊆ 0..next`. `next` and `last_published` never decrease.
///
/// *Cost*: delivering in order moves `next` and touches nothing else; memory is proportional to
/// the number of gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamProgress {
    next: u64,
    /// Below `next` and not delivered.
    undelivered: Ranges,
    /// Of these, the skipped ones: not reported as a gap either.
    unreported: Ranges,
    /// Reported gaps of unknown size, with the publisher's record where the reader has it.
    unknown_gaps: Vec<(u64, Option<Gap>)>,
    last_published: PublishTime,
}

impl StreamProgress {
    /// Creates the progress of a reader that has processed everything below `next` but `gaps`,
    /// which it has reported.
    pub fn new(next: u64, gaps: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut progress = Self {
            next,
            ..Self::default()
        };
        for gap in gaps {
            progress.undelivered.insert(gap.start.min(next)..gap.end.min(next));
        }
        progress
    }

    /// Creates the progress of a reader that joins the stream at `seq`.
    pub fn joining_at(seq: u64) -> Self {
        let mut progress = Self::default();
        progress.skip_to(seq);
        progress
    }

    /// Returns the next sequence number: nothing at or above it has been processed.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns the publish time of the newest batch seen; 0 before the first.
    pub fn last_published(&self) -> PublishTime {
        self.last_published
    }

    /// Records the publish time of a batch of the stream.
    pub fn record_published(&mut self, published: PublishTime) {
        self.last_published = self.last_published.max(published);
    }

    /// Marks everything up to `seq` as skipped, as far as it has not been processed.
    pub fn skip_to(&mut self, seq: u64) {
        if self.next < seq {
            self.undelivered.insert(self.next..seq);
            self.unreported.insert(self.next..seq);
            self.next = seq;
        }
    }

    /// Marks lines as delivered. Sequence numbers between `next` and their start are skipped.
    pub fn deliver(&mut self, seqs: Range<u64>) {
        self.skip_to(seqs.start);
        if seqs.start < self.next && !self.undelivered.is_empty() {
            self.undelivered.remove(seqs.clone());
            self.unreported.remove(seqs.clone());
        }
        self.next = self.next.max(seqs.end);
    }

    /// Marks lines as reported as a gap. Sequence numbers between `next` and their start are
    /// skipped; delivered ones stay delivered.
    pub fn report_gap(&mut self, seqs: Range<u64>) {
        self.skip_to(seqs.start);
        self.unreported.remove(seqs.clone());
        self.undelivered
            .insert(self.next.max(seqs.start)..seqs.end.max(self.next));
        self.next = self.next.max(seqs.end);
    }

    /// Marks lines as reported as a gap that cannot be filled: they do not count as
    /// [gaps](Self::gaps) afterwards.
    pub fn close_gap(&mut self, seqs: Range<u64>) {
        self.deliver(seqs);
    }

    /// Marks a gap of unknown size in front of `seq` as reported.
    pub fn report_unknown_gap(&mut self, seq: u64, gap: Option<Gap>) {
        self.unknown_gaps.push((seq, gap));
    }

    /// Returns the parts of `seqs` below [`next`](Self::next) that were skipped, in order.
    pub fn skipped_in(&self, seqs: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        self.unreported.within(seqs)
    }

    /// Returns the sequence numbers below [`next`](Self::next) that were reported as a gap and may
    /// still arrive, in order.
    pub fn gaps(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let undelivered = self.undelivered.within(0..self.next);
        undelivered.flat_map(|seqs| self.unreported.missing_from(seqs))
    }

    /// Returns the parts of `seqs` below [`next`](Self::next) that were not delivered, in order.
    pub fn undelivered_in(&self, seqs: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        self.undelivered.within(seqs)
    }

    /// Returns the parts of `seqs` that were not delivered, in order, including those at or above
    /// [`next`](Self::next).
    pub fn remaining_of(&self, seqs: Range<u64>) -> Vec<Range<u64>> {
        self.and_new(self.undelivered.within(seqs.clone()).collect(), seqs)
    }

    /// Returns the parts of `seqs` that were neither delivered nor reported as a gap, in order,
    /// including those at or above [`next`](Self::next).
    pub fn unprocessed_of(&self, seqs: Range<u64>) -> Vec<Range<u64>> {
        self.and_new(self.unreported.within(seqs.clone()).collect(), seqs)
    }

    /// Adds the part of `seqs` at or above [`next`](Self::next) to parts below it.
    fn and_new(&self, mut parts: Vec<Range<u64>>, seqs: Range<u64>) -> Vec<Range<u64>> {
        let new = seqs.start.max(self.next)..seqs.end;
        if !new.is_empty() {
            match parts.last_mut().filter(|last| last.end == new.start) {
                Some(last) => last.end = new.end,
                None => parts.push(new),
            }
        }
        parts
    }

    /// Returns whether none of `seqs` was delivered, and all of them lie below
    /// [`next`](Self::next).
    pub fn is_undelivered(&self, seqs: &Range<u64>) -> bool {
        self.undelivered.covers(seqs)
    }

    /// Returns whether a gap of unknown size in front of `seq` was reported.
    pub fn has_unknown_gap(&self, seq: u64) -> bool {
        self.unknown_gaps.iter().any(|(at, _)| *at == seq)
    }

    /// Returns whether this gap of unknown size in front of `seq` was reported.
    pub fn has_reported(&self, seq: u64, gap: &Gap) -> bool {
        let mut reported = self.unknown_gaps.iter();
        reported.any(|(at, reported_gap)| *at == seq && reported_gap.as_ref() == Some(gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_between_two_deliveries_are_skipped_until_reported() {
        let mut progress = StreamProgress::default();
        progress.deliver(5..10);
        assert_eq!(progress.next(), 10);
        assert_eq!(progress.unprocessed_of(0..12), [0..5, 10..12]);
        assert_eq!(progress.gaps().count(), 0, "skipped lines are no gap");
        assert_eq!(progress.remaining_of(3..12), [3..5, 10..12]);
        progress.report_gap(10..15);
        progress.deliver(15..20);
        assert_eq!(progress.gaps().collect::<Vec<_>>(), std::slice::from_ref(&(10..15)));
        assert!(progress.unprocessed_of(5..20).is_empty());
        progress.deliver(12..13);
        assert_eq!(progress.gaps().collect::<Vec<_>>(), [10..12, 13..15]);
        progress.report_gap(0..5);
        assert!(progress.unprocessed_of(0..20).is_empty());
        progress.close_gap(20..30);
        assert_eq!((progress.next(), progress.is_undelivered(&(20..30))), (30, false));
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum State {
        Delivered,
        Reported,
        Skipped,
    }

    proptest! {
        #[test]
        fn every_sequence_number_below_next_is_in_one_state(changes in proptest::collection::vec((any::<bool>(), 0u64..40, 0u64..8), 0..30), from in 0u64..45, len in 0u64..20) {
            let (mut progress, mut model) = (StreamProgress::default(), Vec::<State>::new());
            for (deliver, start, len) in changes {
                let seqs = start..start + len;
                model.resize(model.len().max(start as usize), State::Skipped);
                for seq in seqs.clone() {
                    let at = seq as usize;
                    let state = if deliver { State::Delivered } else { State::Reported };
                    if at == model.len() {
                        model.push(state);
                    } else if model[at] != State::Delivered {
                        model[at] = state;
                    }
                }
                if deliver { progress.deliver(seqs) } else { progress.report_gap(seqs) }
            }
            prop_assert_eq!(progress.next(), model.len() as u64);
            let in_state = |state| model.iter().enumerate().filter(move |(_, other)| **other == state).map(|(seq, _)| seq as u64);
            prop_assert!(progress.gaps().flatten().eq(in_state(State::Reported)));
            let window = from..from + len;
            let open = |seq: &u64| model.get(*seq as usize).is_none_or(|state| *state != State::Delivered);
            prop_assert!(progress.remaining_of(window.clone()).into_iter().flatten().eq(window.clone().filter(open)));
            let unknown = |seq: &u64| model.get(*seq as usize).is_none_or(|state| *state == State::Skipped);
            prop_assert!(progress.unprocessed_of(window.clone()).into_iter().flatten().eq(window.clone().filter(unknown)));
            let skipped = in_state(State::Skipped).filter(|seq| window.contains(seq));
            prop_assert!(progress.skipped_in(window.clone()).flatten().eq(skipped));
        }
    }
}
