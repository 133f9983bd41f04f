//! What reassembly returns.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    batch::{Gap, Part, PlatformMessage, StreamMetadata},
    stream_id::StreamId,
    time::PublishTime,
};

/// One event of a stream. Events of a stream are in order, except for late lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The stream's metadata.
    pub metadata: Arc<StreamMetadata>,
    /// First sequence number of the event.
    pub seq: u64,
    /// Publish time of the batch that led to the event.
    pub published: PublishTime,
    /// The event.
    pub kind: EventKind,
}

/// Kinds of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Lines.
    Lines {
        /// The lines, each ending in a newline.
        data: Bytes,
        /// Number of lines.
        lines: u64,
        /// Set if this is one part of a split line.
        part: Option<Part>,
        /// The lines arrived after their gap was reported.
        late: bool,
        /// Set if this is a platform message; `lines` is then 1.
        message: Option<Arc<PlatformMessage>>,
    },
    /// Lines that the reader will not get, unless they arrive late.
    Gap {
        /// Number of lines; 0 if it is unknown.
        lines: u64,
        /// The publisher's record of the gap; `None` if the bus did not deliver the lines.
        gap: Option<Gap>,
    },
    /// The stream is complete.
    End,
}

/// Identifies the deliveries of an event for
/// [`Reassembly::acknowledge`](super::Reassembly::acknowledge).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub(super) stream: StreamId,
    pub(super) covers: Covers,
}

/// What a receipt covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Covers {
    Lines(Range<u64>),
    Gap(u64, Gap),
    Nothing,
}

impl Event {
    /// Returns the size of its lines in bytes.
    pub fn data_len(&self) -> usize {
        if let EventKind::Lines { data, .. } = &self.kind {
            data.len()
        } else {
            0
        }
    }

    /// Returns the receipt to acknowledge the event with once it is processed.
    pub fn receipt(&self) -> Receipt {
        let covers = match &self.kind {
            EventKind::Lines { lines, .. } => Covers::Lines(self.seq..self.seq + lines),
            EventKind::Gap { gap: Some(gap), .. } => Covers::Gap(self.seq, gap.clone()),
            EventKind::Gap { gap: None, .. } | EventKind::End => Covers::Nothing,
        };
        Receipt {
            stream: self.metadata.stream.clone(),
            covers,
        }
    }
}
