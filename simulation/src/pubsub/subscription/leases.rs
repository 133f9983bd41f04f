//! Leases: deliveries to streams, and what becomes of them.

use std::{sync::Arc, time::Duration};

use system::clock::Instant;

use super::{Subscription, Unacked};
use crate::pubsub::{dice::Dice, state::Stored};

/// The client library sends acknowledgements this often.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Limits of a stream, and what it holds.
pub(in crate::pubsub) struct StreamState {
    pub(in crate::pubsub) max_messages: usize,
    pub(in crate::pubsub) max_bytes: usize,
    pub(in crate::pubsub) max_lease: Duration,
    messages: usize,
    bytes: usize,
}

/// One delivery of a message.
pub(in crate::pubsub) struct Delivered {
    pub(in crate::pubsub) message: Arc<Stored>,
    /// The number of this delivery.
    pub(in crate::pubsub) delivery: u32,
}

impl StreamState {
    pub(in crate::pubsub) fn new(max_messages: usize, max_bytes: usize, max_lease: Duration) -> Self {
        Self {
            max_messages,
            max_bytes,
            max_lease,
            messages: 0,
            bytes: 0,
        }
    }

    /// Makes room for another message.
    pub(super) fn release(&mut self, bytes: usize) {
        self.messages -= 1;
        self.bytes -= bytes;
    }

    fn has_room(&self) -> bool {
        self.messages < self.max_messages && self.bytes < self.max_bytes
    }
}

impl Subscription {
    pub(in crate::pubsub) fn open_stream(&mut self, stream: u64, state: StreamState, now: Instant) {
        self.last_used = now;
        self.streams.insert(stream, state);
    }

    /// Ends a stream: its messages are due again, or when their leases end if the nacks are lost.
    pub(in crate::pubsub) fn close_stream(&mut self, stream: u64, are_nacks_lost: bool, now: Instant) {
        self.last_used = now;
        self.streams.remove(&stream);
        if are_nacks_lost {
            self.restore_unflushed(stream, now);
        }
        for id in self.ids(|held| held.stream == Some(stream)) {
            if are_nacks_lost {
                self.shorten_lease(id, now);
            } else {
                self.redeliver(id, now);
            }
        }
        self.wake();
    }

    /// Leases due messages to a stream.
    pub(in crate::pubsub) fn take(&mut self, stream: u64, max: usize, now: Instant, dice: &mut Dice) -> Vec<Delivered> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((at, id)) = self.schedule.first().copied()
            && at <= now
        {
            let Some(first) = self.messages.get(&id) else {
                self.schedule.remove(&(at, id));
                continue;
            };
            if first.ends.is_some_and(|ends| ends <= now) {
                self.remove(id);
            } else if first.stream.is_some() {
                self.redeliver(id, now);
            } else if self.streams.get(&stream).is_some_and(StreamState::has_room) {
                taken.extend(self.deliver(stream, id, now, dice));
            } else {
                break;
            }
        }
        taken
    }

    /// Returns when a stream should take messages again, unless something changes before.
    pub(in crate::pubsub) fn next_due(&self, stream: u64) -> Option<Instant> {
        let (at, id) = *self.schedule.first()?;
        let has_room = self.streams.get(&stream).is_some_and(StreamState::has_room);
        // A lease that ends makes room.
        let is_leased = self.messages.get(&id).is_some_and(|first| first.stream.is_some());
        (has_room || is_leased).then_some(at)
    }

    fn deliver(&mut self, stream: u64, id: u64, now: Instant, dice: &mut Dice) -> Option<Delivered> {
        let state = self.streams.get_mut(&stream)?;
        let unacked = self.messages.get_mut(&id)?;
        unacked.deliveries += 1;
        let delivered = Delivered {
            message: Arc::clone(&unacked.message),
            delivery: unacked.deliveries,
        };
        let next = if dice.chance(dice.faults.duplicate) {
            // Due again at once, so that the acknowledgement of this delivery may be too late.
            now + dice.up_to(dice.faults.duplicate_delay)
        } else {
            state.messages += 1;
            state.bytes += unacked.message.data.len();
            unacked.stream = Some(stream);
            let is_extended = !dice.chance(dice.faults.lost_lease);
            now + if is_extended {
                state.max_lease
            } else {
                self.settings.ack_deadline
            }
        };
        self.reschedule(id, next);
        Some(delivered)
    }

    /// Acknowledges a delivery. That of one whose lease has ended is effective or not.
    pub(in crate::pubsub) fn ack(&mut self, id: u64, delivery: u32, now: Instant, dice: &mut Dice) {
        let Some(unacked) = self.messages.get(&id) else { return };
        let is_leased = unacked.deliveries == delivery && unacked.stream.is_some();
        if dice.chance(dice.faults.lost_ack) {
            if is_leased {
                self.shorten_lease(id, now);
            }
        } else if is_leased {
            self.release_acked(id, now);
        } else if dice.chance(0.5) {
            self.remove(id);
        }
        self.wake();
    }

    /// Removes an acknowledged message, and remembers it until the acknowledgement is sent.
    fn release_acked(&mut self, id: u64, now: Instant) {
        while self
            .unflushed
            .front()
            .is_some_and(|(acked, _)| now - *acked > FLUSH_INTERVAL)
        {
            self.unflushed.pop_front();
        }
        let stream = self.messages.get(&id).and_then(|acked| acked.stream);
        if let Some(acked) = self.remove(id) {
            self.unflushed.push_back((now, Unacked { stream, ..acked }));
        }
    }

    /// Loses the acknowledgements that a stream has not sent.
    fn restore_unflushed(&mut self, stream: u64, now: Instant) {
        for (acked, lost) in std::mem::take(&mut self.unflushed) {
            let is_unflushed = lost.stream == Some(stream) && now - acked <= FLUSH_INTERVAL;
            let is_needed = lost.ends.is_none() && !self.messages.contains_key(&lost.message.id);
            if is_unflushed && is_needed {
                self.schedule.insert((lost.at, lost.message.id));
                self.messages.insert(lost.message.id, lost);
            }
        }
    }

    /// Loses an acknowledgement.
    pub(in crate::pubsub) fn lose_ack(&mut self, id: u64, delivery: u32, now: Instant) {
        if self.is_current(id, delivery) {
            self.shorten_lease(id, now);
        }
    }

    /// Makes a delivered message due again.
    pub(in crate::pubsub) fn nack(&mut self, id: u64, delivery: u32, now: Instant) {
        if self.is_current(id, delivery) {
            self.redeliver(id, now);
            self.wake();
        }
    }

    fn is_current(&self, id: u64, delivery: u32) -> bool {
        let unacked = self.messages.get(&id);
        unacked.is_some_and(|unacked| unacked.deliveries == delivery && unacked.stream.is_some())
    }

    /// Ends the leases that a pause outlasted.
    pub(in crate::pubsub) fn end_leases_after_pause(&mut self, since: Instant, now: Instant) {
        if now - since <= self.settings.ack_deadline {
            return;
        }
        for id in self.ids(|leased| leased.stream.is_some()) {
            self.redeliver(id, now);
        }
    }
}
