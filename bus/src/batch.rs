//! A batch: what travels as one message on the bus.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    app::AppName,
    notice::TRIBUTARY,
    stream::StreamId,
    time::{PublishTime, Timestamp},
};

/// The version of batch this code writes, attribute `v`. [`MAX_LINE_BYTES`] is part of it: another cut would number lines differently.
pub const VERSION: &str = "2";

/// The longest line, timestamp and newline left out, in bytes. A longer one is cut into parts, each a line with a seq of its own.
///
/// 256 KiB: above what any printed line of a program needs, and four of them still fit one batch.
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// The most bytes of data in a batch: 1 MB at 50 ms a publish is 20 MB/s a stream. Leaves room below Pub/Sub's 10 MB a message.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// What all batches of one stream have in common.
///
/// Shared by reference: a batch costs no copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMetadata {
    /// The tenant.
    pub app: AppName,
    /// What stands in brackets in a printed line: the pod's name, `pod/container` where a pod has several.
    pub process: String,
    /// The container instance, as one collector read it.
    pub stream: StreamId,
    /// The node it ran on.
    pub node: String,
    /// `app`; `tributary` for notices; or the platform part that spoke.
    pub origin: String,
    /// Which of the two outputs, where known (`--source files`).
    pub fd: Option<Fd>,
    /// The drain that a notice is about.
    pub about: Option<String>,
}

impl StreamMetadata {
    /// Of what the platform itself says in an app's topic, from this node or replica.
    pub fn tributary(app: AppName, stream: StreamId, node: &str) -> Self {
        Self {
            app,
            process: TRIBUTARY.to_owned(),
            stream,
            node: node.to_owned(),
            origin: TRIBUTARY.to_owned(),
            fd: None,
            about: None,
        }
    }
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fd {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Which part of a cut line a one-line batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// More of the line follows under the next seq.
    More,
    /// The line ends here.
    Last,
}

/// Why lines are known not to come.
///
/// A closed set for us; a reason that a newer writer invented is kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The collector was away while the node dropped what it had not read (a rotation, a removed container).
    Away,
    /// The end of a container's output could no longer be read.
    Gone,
    /// The node rotated its file faster than the log API served it.
    Rotated,
    /// The collector's spool was full.
    Spool,
    /// The app printed faster than its limit.
    Limit,
    /// The bus refused the batch for good.
    Refused,
    /// One this version does not know.
    Other(String),
}

/// Lines known not to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many seqs, from the batch's seq on. 0: the count cannot be known, and no seq is taken.
    pub lines: u64,
    /// Why.
    pub reason: GapReason,
    /// Not before this time, where known.
    pub from: Option<Timestamp>,
    /// Not after this time, where known.
    pub to: Option<Timestamp>,
}

/// What a batch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Consecutive lines exactly as the log API prints them with `timestamps=true`, each ending in a newline.
    Lines {
        /// The lines.
        data: Bytes,
        /// How many.
        lines: u64,
        /// Set where this is one part of a cut line; then `lines` is 1.
        part: Option<Part>,
    },
    /// A known loss at this seq.
    Gap(Gap),
    /// The stream is complete: the batch's seq is its total.
    End,
    /// A reader's own mark in the topic, to find its place by; everyone else skips it.
    Marker(String),
}

/// Consecutive lines of one stream, or what is to be said about it: one message on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What all batches of the stream share.
    pub metadata: Arc<StreamMetadata>,
    /// The seq of the first line; of a loss, the first lost one; of an end, the total.
    pub seq: u64,
    /// The lines, or what is said instead.
    pub content: Content,
}

impl Batch {
    /// How many seqs it takes: lines, or lost lines.
    pub fn lines(&self) -> u64 {
        match &self.content {
            Content::Lines { lines, .. } => *lines,
            Content::Gap(loss) => loss.lines,
            Content::End | Content::Marker(_) => 0,
        }
    }

    /// The data, shared; empty where it has none.
    pub fn shared_data(&self) -> Bytes {
        match &self.content {
            Content::Lines { data, .. } => data.clone(),
            _ => Bytes::new(),
        }
    }

    /// The data, empty where it has none.
    pub fn data(&self) -> &[u8] {
        match &self.content {
            Content::Lines { data, .. } => data,
            _ => &[],
        }
    }
}

/// A batch as the bus handed it over.
#[derive(Debug)]
pub struct Delivery {
    /// The batch.
    pub batch: Batch,
    /// When the bus accepted it.
    pub published: PublishTime,
    /// To be settled where the reader is a durable subscription.
    pub ack: Option<crate::Ack>,
}
