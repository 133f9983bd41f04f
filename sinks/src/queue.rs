//! The lines of a drain in memory: unsent ones, and sent ones whose delivery is unconfirmed.

use std::{collections::VecDeque, sync::Arc};

use bus::{PublishTime, reassembly::Receipt};
use bytes::{Bytes, BytesMut};

use crate::{
    budget::MemoryBudget,
    render::{MessageFormat, StreamHeader},
    stats::DrainStats,
};

/// What a drain may buffer if the total limit is reached: one batch.
const MIN_BYTES: usize = bus::MAX_BATCH_BYTES;

/// The maximum of unsent bytes; the bus retains the rest.
const MAX_UNSENT_BYTES: usize = 2 * bus::MAX_BATCH_BYTES;

/// The maximum number of items, of which unconfirmed ones are unacknowledged deliveries of the bus.
const MAX_ITEMS: usize = 10_000;

/// The buffered lines of a drain, in sending order.
pub(crate) struct SendQueue {
    format: MessageFormat,
    items: VecDeque<QueueItem>,
    /// The number of items removed from the front since the connection began.
    removed: u64,
    position: Position,
    /// The position at the beginning of the last frame.
    frame_start: Position,
    /// The item before which rendering stops until the notice for that position is known.
    stop_at: Option<usize>,
    unsent_lines: u64,
    /// Bytes of the items that contain unsent lines.
    unsent_bytes: usize,
    bytes: usize,
    max_bytes: usize,
    budget: Arc<MemoryBudget>,
    stats: Arc<DrainStats>,
}

/// How far the queue is rendered.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    /// The number of items rendered completely.
    item: usize,
    /// The bytes and lines rendered of the next item.
    bytes: usize,
    lines: u64,
}

/// Lines that are confirmed together: those of a batch, or a notice.
pub(crate) struct QueueItem {
    pub(crate) data: Bytes,
    pub(crate) lines: u64,
    /// The number of lines that were rendered at least once.
    pub(crate) rendered_once: u64,
    pub(crate) header: Arc<StreamHeader>,
    /// Whether a line may contain a level.
    pub(crate) has_levels: bool,
    pub(crate) receipt: Option<Receipt>,
    pub(crate) published: PublishTime,
    /// Whether the lines are counted, which platform messages are not.
    pub(crate) is_counted: bool,
}

/// The numbers of what was rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) messages: usize,
    /// Lines without platform messages.
    pub(crate) lines: u64,
    /// Lines of these that were rendered before.
    pub(crate) repeated: u64,
}

impl Rendered {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.lines += other.lines;
        self.repeated += other.repeated;
    }
}

impl SendQueue {
    /// An empty queue for at most `max_bytes` bytes.
    pub(crate) fn new(
        format: MessageFormat,
        max_bytes: usize,
        budget: Arc<MemoryBudget>,
        stats: Arc<DrainStats>,
    ) -> Self {
        Self {
            format,
            items: VecDeque::new(),
            removed: 0,
            position: Position::default(),
            frame_start: Position::default(),
            stop_at: None,
            unsent_lines: 0,
            unsent_bytes: 0,
            bytes: 0,
            max_bytes,
            budget,
            stats,
        }
    }

    /// The format of its messages.
    pub(crate) fn format(&self) -> &MessageFormat {
        &self.format
    }

    /// Limits the size of a message; longer lines are sent in several.
    pub(crate) fn limit_message_bytes(&mut self, max: usize) {
        self.format.limit_message_bytes(max);
    }

    /// The length of the longest line that is not confirmed.
    pub(crate) fn longest_line(&self) -> usize {
        let lines = self
            .items
            .iter()
            .flat_map(|item| item.data.split(|byte| *byte == b'\n'));
        lines.map(<[u8]>::len).max().unwrap_or_default()
    }

    /// Whether more may be read from the bus.
    pub(crate) fn has_room(&self) -> bool {
        let max = if self.budget.is_exhausted() {
            MIN_BYTES
        } else {
            self.max_bytes
        };
        self.bytes < max && self.items.len() < MAX_ITEMS && self.unsent_bytes < MAX_UNSENT_BYTES
    }

    /// Whether there are lines to render.
    pub(crate) fn has_more(&self) -> bool {
        self.position.item < self.end()
    }

    /// Updates the lag in the drain's statistics.
    pub(crate) fn update_lag(&self) {
        let published = |item: &QueueItem| item.published;
        let unsent = self.items.get(self.position.item).map(published);
        self.stats
            .set_pending(self.unsent_lines, unsent, self.items.front().map(published));
    }

    fn count_unsent(&mut self) {
        let waiting = self.items.range(self.position.item.min(self.items.len())..);
        self.unsent_bytes = waiting.clone().map(|item| item.data.len()).sum();
        self.unsent_lines = waiting
            .map(|item| item.lines)
            .sum::<u64>()
            .saturating_sub(self.position.lines);
    }

    /// Appends lines.
    pub(crate) fn push(&mut self, item: QueueItem) {
        self.account(&item);
        self.items.push_back(item);
    }

    fn account(&mut self, item: &QueueItem) {
        self.unsent_lines += item.lines;
        self.unsent_bytes += item.data.len();
        self.bytes += item.data.len();
        self.budget.add(item.data.len());
    }

    /// Stops rendering at the current end until [`insert_at_stop`](Self::insert_at_stop).
    pub(crate) fn stop_here(&mut self) {
        self.stop_at.get_or_insert(self.items.len());
    }

    /// Whether lines follow the position where rendering stops.
    pub(crate) fn has_stopped_lines(&self) -> bool {
        self.stop_at.is_some_and(|at| at < self.items.len())
    }

    /// Inserts an item where rendering stops, and resumes rendering.
    pub(crate) fn insert_at_stop(&mut self, item: QueueItem) {
        if let Some(at) = self.stop_at.take() {
            self.account(&item);
            self.items.insert(at.min(self.items.len()), item);
        }
    }

    /// The end of what may be rendered.
    fn end(&self) -> usize {
        self.stop_at.map_or(self.items.len(), |at| at.min(self.items.len()))
    }

    /// Starts again with the unconfirmed lines, for a new connection.
    pub(crate) fn rewind(&mut self) {
        (self.position, self.removed) = (Position::default(), 0);
        self.count_unsent();
    }

    /// The number of items rendered completely since the connection began.
    pub(crate) fn rendered(&self) -> u64 {
        self.removed + self.position.item as u64
    }

    /// Renders lines in order until `out` contains about `bytes` bytes.
    pub(crate) fn render(&mut self, out: &mut BytesMut, bytes: usize) -> Rendered {
        let mut all = Rendered::default();
        while out.len() < bytes && self.has_more() {
            all.add(self.render_line(out, &mut |_| ()));
        }
        self.count_repeated(all)
    }

    fn reset_to(&mut self, position: Position) {
        self.position = position;
        self.count_unsent();
    }

    /// Returns the lines of the last frame, so that they are rendered into other frames.
    pub(crate) fn undo_frame(&mut self) {
        self.reset_to(self.frame_start);
    }

    /// Renders the next line into one or more messages, each in a separate buffer.
    pub(crate) fn render_messages(&mut self, messages: &mut Vec<Bytes>) -> Rendered {
        let mut out = BytesMut::new();
        let all = self.render_line(&mut out, &mut |out| messages.push(out.split().freeze()));
        self.count_repeated(all)
    }

    /// Renders a frame of at most `bytes` bytes and `messages` messages, but at least one line.
    pub(crate) fn render_frame(&mut self, out: &mut BytesMut, bytes: usize, messages: usize) -> Rendered {
        let (mut all, from) = (Rendered::default(), out.len());
        self.frame_start = self.position;
        while all.messages < messages && self.has_more() {
            let (before, position) = (out.len(), self.position);
            let rendered_once = self.items.get(position.item).map(|item| item.rendered_once);
            let one = self.render_line(out, &mut |_| ());
            let is_first = all.messages == 0;
            if !is_first && (out.len() - from > bytes || all.messages + one.messages > messages) {
                out.truncate(before);
                self.reset_to(position);
                // The line was rendered but not sent.
                if let (Some(item), Some(rendered_once)) = (self.items.get_mut(position.item), rendered_once) {
                    item.rendered_once = rendered_once;
                }
                break;
            }
            all.add(one);
        }
        self.count_repeated(all)
    }

    fn count_repeated(&self, rendered: Rendered) -> Rendered {
        self.stats.add_resent(rendered.repeated);
        rendered
    }

    fn render_line(&mut self, out: &mut BytesMut, done: &mut impl FnMut(&mut BytesMut)) -> Rendered {
        let position = &mut self.position;
        let Some(item) = self.items.get_mut(position.item) else {
            return Rendered::default();
        };
        let rest = &item.data[position.bytes..];
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let mut messages = 0;
        self.format
            .render_line(out, &item.header, item.has_levels, &rest[..end], |out| {
                messages += 1;
                done(out);
            });
        (position.bytes, position.lines) = (position.bytes + end + 1, position.lines + 1);
        let counted = u64::from(item.is_counted);
        self.unsent_lines = self.unsent_lines.saturating_sub(1);
        let mut repeated = 0;
        if position.lines > item.rendered_once {
            item.rendered_once = position.lines;
        } else {
            repeated = counted;
        }
        if position.bytes >= item.data.len() {
            self.unsent_bytes = self.unsent_bytes.saturating_sub(item.data.len());
            *position = Position {
                item: position.item + 1,
                ..Position::default()
            };
        }
        Rendered {
            messages,
            lines: counted,
            repeated,
        }
    }

    /// Removes the first items, counted since the connection began, whose lines are confirmed or
    /// lost. Returns the number of their lines without platform messages.
    pub(crate) fn confirm(&mut self, items: u64, mut acknowledge: impl FnMut(&Receipt)) -> u64 {
        let mut lines = 0;
        while self.removed < items
            && let Some(item) = self.items.pop_front()
        {
            self.removed += 1;
            self.position.item = self.position.item.saturating_sub(1);
            self.stop_at = self.stop_at.map(|at| at.saturating_sub(1));
            self.bytes -= item.data.len();
            self.budget.remove(item.data.len());
            if let Some(receipt) = &item.receipt {
                acknowledge(receipt);
            }
            if item.is_counted {
                lines += item.lines;
            }
        }
        self.update_lag();
        lines
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.budget.remove(self.bytes);
    }
}
