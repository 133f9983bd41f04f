//! A batch: one message on the bus.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    ack::Ack,
    app::AppName,
    stream_id::StreamId,
    time::{PublishTime, Timestamp},
};

/// Version of the batch format that this code writes and reads: attribute `v`.
///
/// [`MAX_LINE_BYTES`] is part of the version: another limit would number lines differently.
pub const VERSION: &str = "2";

/// Maximum length of a line in bytes, without timestamp and newline. A longer line is split into
/// parts; each part is a line with its own sequence number.
///
/// 256 KiB exceeds every printed line seen in practice, and four such lines fit one batch.
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// Maximum data of a batch in bytes. At 50 ms per publish, 1 MiB allows 20 MB/s per stream; it
/// stays far below Pub/Sub's limit of 10 MB per message.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Process and origin of the messages that Tributary adds to an app's log.
pub const TRIBUTARY: &str = "tributary";

/// Attributes that all batches of one stream share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMetadata {
    /// The app.
    pub app: AppName,
    /// The process: the pod's name, or `pod/container` if the pod has several containers.
    pub process: String,
    /// The stream: one container instance as read by one collector.
    pub stream: StreamId,
    /// The node on which the container ran.
    pub node: String,
    /// The origin of the lines: `app`, or a part of the platform such as `tributary`.
    pub origin: String,
    /// The output of the container, if known (`--source files`).
    pub fd: Option<Fd>,
    /// Id of the drain that a platform message is about.
    pub about: Option<String>,
}

impl StreamMetadata {
    /// Metadata of platform messages that a collector or replica called `node` adds to an app's
    /// log.
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

/// Which part of a split line a one-line batch contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The line continues with the next sequence number.
    More,
    /// The line ends with this part.
    Last,
}

/// Why lines were lost before they reached the bus.
///
/// A reason of a newer writer is preserved as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The collector was down while the node deleted unread lines (log rotation, container
    /// removal).
    Away,
    /// The end of a container's output was deleted before it was read.
    Gone,
    /// The node rotated the log file before it was read.
    Rotated,
    /// The collector's spool was full.
    Spool,
    /// The app exceeded its rate limit.
    Limit,
    /// The bus rejected the batch.
    Refused,
    /// Nothing proves that lines are missing, and nothing proves that none are.
    Suspected,
    /// No lines are missing: the collector lost its checkpoint and reads lines again.
    MayRepeat,
    /// A reason that this version does not know.
    Other(String),
}

/// Lines that a publisher knows to be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Number of lost lines, starting at the batch's sequence number. 0: the number is unknown,
    /// and the gap takes no sequence number.
    pub lines: u64,
    /// Why the lines were lost.
    pub reason: GapReason,
    /// Earliest time of the lost lines, if known.
    pub from: Option<Timestamp>,
    /// Latest time of the lost lines, if known.
    pub to: Option<Timestamp>,
}

/// The facts of a platform message, for programs; the line of text is rendered from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformMessage {
    /// Error code, Heroku's where one fits: `L10`.
    pub code: String,
    /// Reason as a token: `limit`.
    pub reason: String,
}

/// Content of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Consecutive lines as the log API prints them with `timestamps=true`, each ending in a
    /// newline.
    Lines {
        /// The lines.
        data: Bytes,
        /// Number of lines.
        lines: u64,
        /// Set if this is one part of a split line; `lines` is then 1.
        part: Option<Part>,
    },
    /// A platform message: one line with a sequence number, and its facts.
    Message {
        /// The line, with timestamp and newline.
        data: Bytes,
        /// The facts.
        message: Arc<PlatformMessage>,
    },
    /// Lines that are lost, starting at the batch's sequence number.
    Gap(Gap),
    /// The end of the stream. The batch's sequence number is the number of lines in the stream.
    End,
    /// A reader's position marker. All other readers skip it.
    Marker(String),
}

/// Consecutive lines of one stream, or an event of the stream: one message on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Attributes that all batches of the stream share.
    pub metadata: Arc<StreamMetadata>,
    /// Sequence number of the first line; of a gap, the first lost line; of an end, the number of
    /// lines in the stream.
    pub seq: u64,
    /// The content.
    pub content: Content,
}

impl Batch {
    /// Returns the number of sequence numbers that the batch takes.
    pub fn lines(&self) -> u64 {
        match &self.content {
            Content::Lines { lines, .. } => *lines,
            Content::Message { .. } => 1,
            Content::Gap(gap) => gap.lines,
            Content::End | Content::Marker(_) => 0,
        }
    }

    /// Returns the data without copying; empty if the batch has none.
    pub fn shared_data(&self) -> Bytes {
        match &self.content {
            Content::Lines { data, .. } | Content::Message { data, .. } => data.clone(),
            _ => Bytes::new(),
        }
    }

    /// Returns the data; empty if the batch has none.
    pub fn data(&self) -> &[u8] {
        match &self.content {
            Content::Lines { data, .. } | Content::Message { data, .. } => data,
            _ => &[],
        }
    }

    /// Returns whether the data is within [`MAX_BATCH_BYTES`].
    pub fn fits(&self) -> bool {
        self.data().len() <= MAX_BATCH_BYTES
    }
}

/// A batch as delivered by the bus.
#[derive(Debug)]
pub struct Delivery {
    /// The batch.
    pub batch: Batch,
    /// When the bus accepted it.
    pub published: PublishTime,
    /// Set if the reader is a durable subscription.
    pub ack: Option<Ack>,
}
