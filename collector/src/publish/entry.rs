//! Entries of the outbox: what a stream publishes, in order.

use std::sync::Arc;

use bus::{Batch, StreamMetadata};

use crate::{anchor::ResumePoint, publish::checkpoint::StreamStart};

/// One entry of the outbox.
#[derive(Clone, Debug)]
pub enum OutboxEntry {
    /// Publish a batch; the resume point is at the end of its lines, if it has any.
    Batch(Batch, Option<ResumePoint>),
    /// Publish the end of the instance's last stream, which is not read again.
    Finish(Batch),
    /// A new stream of the instance starts and replaces its checkpoint.
    Start(Arc<StreamMetadata>, StreamStart),
}

impl OutboxEntry {
    /// Returns the bytes of the entry's lines.
    pub fn data(&self) -> &[u8] {
        match self {
            Self::Batch(batch, _) | Self::Finish(batch) => batch.data(),
            Self::Start(..) => &[],
        }
    }
}
