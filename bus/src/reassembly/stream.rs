//! One stream: what was delivered, what is held, where it ends.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{Event, Ranges, What, acks::Acks, slice};
use crate::{
    Ack,
    batch::{Batch, Content, Gap, Part, StreamMetadata},
    time::PublishTime,
};

/// One stream's state.
pub(super) struct Stream {
    metadata: Arc<StreamMetadata>,
    /// The frontier: everything below is delivered, or absent. `None` while it is not known where this reader joins.
    next: Option<u64>,
    /// Below the frontier and not delivered: declared gaps, and what lies before the joining.
    absent: Ranges,
    /// Lines that wait for something before them, by seq. The longest where several begin alike.
    held: BTreeMap<u64, Held>,
    /// Losses that wait for their place.
    losses: Vec<KnownLoss>,
    /// Losses of unknown count that were told, so that a repeat is not.
    told: Vec<(u64, Gap)>,
    end: Option<(u64, Arrival)>,
    ended: bool,
    held_bytes: usize,
    /// The arrival of the first thing that shows that something is missing. `None`: to be looked up.
    first_evidence: Option<Arrival>,
    /// Nothing counts as waiting since before this.
    waits_from: Duration,
    last_published: PublishTime,
    pub(super) acks: Acks,
}

/// When a batch came, on both clocks, and whether it was old by then.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) elapsed: Duration,
    pub(super) published: PublishTime,
    pub(super) backlog: bool,
}

struct Held {
    data: Bytes,
    lines: u64,
    part: Option<Part>,
    arrival: Arrival,
}

struct KnownLoss {
    seqs: Range<u64>,
    seq: u64,
    loss: Gap,
    arrival: Arrival,
}

impl Stream {
    /// `begins`: it was made while its reader read, so its first seq is 0.
    pub(super) fn new(metadata: Arc<StreamMetadata>, begins: bool) -> Self {
        Self {
            metadata,
            next: begins.then_some(0),
            absent: Ranges::default(),
            held: BTreeMap::new(),
            losses: Vec::new(),
            told: Vec::new(),
            end: None,
            ended: false,
            held_bytes: 0,
            first_evidence: None,
            waits_from: Duration::ZERO,
            last_published: PublishTime(0),
            acks: Acks::default(),
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn last_published(&self) -> PublishTime {
        self.last_published
    }

    /// Since when it waits, and whether for backlog. `None` where nothing is missing that is known of.
    pub(super) fn waits_since(&mut self) -> Option<(Duration, bool)> {
        if !self.is_blocked() {
            return None;
        }
        let held = self.held.values().map(|held| held.arrival);
        let lost = self.losses.iter().map(|known| known.arrival);
        let end = self.end.filter(|_| !self.ended).map(|(_, arrival)| arrival);
        let first = self
            .first_evidence
            .or_else(|| held.chain(lost).chain(end).min_by_key(|arrival| arrival.elapsed))?;
        self.first_evidence = Some(first);
        Some((first.elapsed.max(self.waits_from), first.backlog))
    }

    /// Counts the waiting from here.
    pub(super) fn restart_wait(&mut self, elapsed: Duration) {
        self.waits_from = elapsed;
    }

    /// Takes a batch.
    pub(super) fn take(&mut self, batch: Batch, ack: Option<Ack>, arrival: Arrival, events: &mut VecDeque<Event>) {
        self.last_published = self.last_published.max(arrival.published);
        let seq = batch.seq;
        match batch.content {
            Content::Lines { data, lines, part } => {
                self.acks.wait(seq..seq + lines, ack);
                self.take_lines(
                    seq,
                    Held {
                        data,
                        lines,
                        part,
                        arrival,
                    },
                    events,
                );
            }
            Content::Gap(loss) => self.take_loss(seq, loss, arrival, ack),
            Content::End => {
                self.end.get_or_insert((seq, arrival));
                // It carries nothing a reader could miss: state without it is only larger.
                ack.into_iter().for_each(Ack::accept);
            }
            Content::Marker(_) => {}
        }
        self.advance(events);
    }

    fn take_lines(&mut self, seq: u64, batch: Held, events: &mut VecDeque<Event>) {
        let end = seq + batch.lines;
        if let Some(next) = self.next {
            // Below the frontier only what is absent is new.
            let late: Vec<_> = self.absent.within(seq..end.min(next)).collect();
            for range in late {
                self.absent.remove(range.clone());
                let event = self.lines_event(seq, &batch, range, true);
                events.push_back(event);
            }
            if end <= next {
                return;
            }
        }
        if self.held.get(&seq).is_none_or(|held| held.lines < batch.lines) {
            self.held_bytes += batch.data.len();
            let shorter = self.held.insert(seq, batch);
            self.held_bytes -= shorter.map_or(0, |held| held.data.len());
        }
    }

    fn take_loss(&mut self, seq: u64, loss: Gap, arrival: Arrival, ack: Option<Ack>) {
        let seqs = seq..seq + loss.lines;
        let old_news = if loss.lines == 0 {
            let known = self.told.iter().any(|(at, told)| *at == seq && *told == loss);
            known || (self.next.is_some_and(|next| seq < next) && self.before_joining(seq))
        } else {
            self.next.is_some_and(|next| seqs.end <= next)
        };
        let waiting = self.losses.iter().any(|known| known.seq == seq && known.loss == loss);
        if old_news && !waiting {
            // Told before, or delivered, or declared: nothing is left to say.
            self.acks.wait_loss(seq, &loss, ack);
            self.acks.accept_loss(seq, &loss);
            return;
        }
        self.acks.wait_loss(seq, &loss, ack);
        if !waiting {
            self.losses.push(KnownLoss {
                seqs,
                seq,
                loss,
                arrival,
            });
            self.losses.sort_by_key(|known| known.seq);
        }
    }

    /// Whether `seq` lies before where this reader joined: nothing was promised there.
    fn before_joining(&self, seq: u64) -> bool {
        self.absent.covers(&(0..seq + 1))
    }

    /// Delivers all that nothing is missing before.
    fn advance(&mut self, events: &mut VecDeque<Event>) {
        while let Some(next) = self.next {
            if self.tell_unknown_loss(next, events)
                || self.deliver_held(next, events)
                || self.tell_known_loss(next, events)
            {
                continue;
            }
            if let Some((total, arrival)) = self.end
                && total <= next
                && !self.ended
            {
                self.ended = true;
                events.push_back(self.event(total, arrival.published, What::End));
            }
            return;
        }
    }

    fn deliver_held(&mut self, next: u64, events: &mut VecDeque<Event>) -> bool {
        let Some(entry) = self.held.first_entry().filter(|entry| *entry.key() <= next) else {
            return false;
        };
        let (seq, held) = entry.remove_entry();
        self.held_bytes -= held.data.len();
        let end = seq + held.lines;
        if end > next {
            events.push_back(self.lines_event(seq, &held, next..end, false));
            self.move_to(end);
        }
        true
    }

    fn tell_unknown_loss(&mut self, next: u64, events: &mut VecDeque<Event>) -> bool {
        let Some(at) = self
            .losses
            .iter()
            .position(|known| known.loss.lines == 0 && known.seq <= next)
        else {
            return false;
        };
        let known = self.losses.remove(at);
        self.told.push((known.seq, known.loss.clone()));
        events.push_back(self.event(
            known.seq,
            known.arrival.published,
            What::Gap {
                lines: 0,
                loss: Some(known.loss),
            },
        ));
        true
    }

    /// A known loss at the frontier: what of it has not arrived will not come.
    fn tell_known_loss(&mut self, next: u64, events: &mut VecDeque<Event>) -> bool {
        self.losses
            .retain(|known| known.loss.lines == 0 || known.seqs.end > next);
        let Some(known) = self
            .losses
            .iter()
            .find(|known| known.loss.lines > 0 && known.seqs.start <= next)
        else {
            return false;
        };
        let arrived = self.held.first_key_value().map_or(u64::MAX, |(seq, _)| *seq);
        let end = known.seqs.end.min(arrived);
        let what = What::Gap {
            lines: end - next,
            loss: Some(known.loss.clone()),
        };
        events.push_back(self.event(next, known.arrival.published, what));
        self.pass(next..end);
        true
    }

    /// Gives up what is missing before the first thing that is there, or settles where this reader joins.
    pub(super) fn declare_first(&mut self, events: &mut VecDeque<Event>) {
        if let Some(first) = self.first_known() {
            match self.next {
                None => {
                    self.pass(0..first);
                }
                Some(next) if next < first => {
                    let what = What::Gap {
                        lines: first - next,
                        loss: None,
                    };
                    events.push_back(self.event(next, self.last_published, what));
                    self.pass(next..first);
                }
                Some(_) => {}
            }
        }
        self.advance(events);
    }

    /// Gives up everything that is missing before what is there.
    pub(super) fn declare_all(&mut self, events: &mut VecDeque<Event>) {
        while self.is_blocked() {
            self.declare_first(events);
        }
    }

    /// Gives the held batch that is farthest ahead back to the bus. False where it carries no ack.
    pub(super) fn give_back_farthest(&mut self) -> bool {
        let Some((seq, held)) = self.held.last_key_value() else {
            return false;
        };
        let lines = *seq..seq + held.lines;
        if !self.acks.give_back(&lines) {
            return false;
        }
        let given_back = self.held.pop_last();
        self.held_bytes -= given_back.map_or(0, |(_, held)| held.data.len());
        true
    }

    /// Something is there, and where this reader joins is not settled.
    pub(super) fn is_joining(&self) -> bool {
        self.next.is_none() && self.first_known().is_some()
    }

    /// Something is there that cannot be delivered yet.
    fn is_blocked(&self) -> bool {
        self.is_joining() || !self.held.is_empty() || !self.losses.is_empty() || (self.end.is_some() && !self.ended)
    }

    /// The lowest seq that anything is known of.
    fn first_known(&self) -> Option<u64> {
        let held = self.held.first_key_value().map(|(seq, _)| *seq);
        let lost = self.losses.first().map(|known| known.seq);
        let end = self.end.filter(|_| !self.ended).map(|(total, _)| total);
        [held, lost, end].into_iter().flatten().min()
    }

    fn pass(&mut self, absent: Range<u64>) {
        self.move_to(absent.end);
        self.absent.insert(absent);
    }

    fn move_to(&mut self, next: u64) {
        self.next = Some(next);
        self.first_evidence = None;
    }

    fn lines_event(&self, seq: u64, batch: &Held, range: Range<u64>, late: bool) -> Event {
        let data = slice::lines(&batch.data, range.start - seq..range.end - seq, batch.lines);
        let what = What::Lines {
            data,
            lines: range.end - range.start,
            part: batch.part,
            late,
        };
        self.event(range.start, batch.arrival.published, what)
    }

    fn event(&self, seq: u64, published: PublishTime, what: What) -> Event {
        Event {
            metadata: Arc::clone(&self.metadata),
            seq,
            published,
            what,
        }
    }
}
