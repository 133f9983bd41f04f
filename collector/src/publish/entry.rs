//! What a stream hands to the bus, in order.

use std::sync::Arc;

use bus::{Batch, StreamMetadata};

use crate::anchor::ResumePoint;

/// One thing to be done, in its turn.
#[derive(Clone, Debug)]
pub enum OutboxEntry {
    /// Publish; the mark is at the end of its lines, where it has any.
    Batch(Batch, Option<ResumePoint>),
    /// Publish; the instance's last stream ends with it, and is not to be read again.
    Finish(Batch),
    /// A new stream of the instance begins: its record takes the old one's place.
    Start(Arc<StreamMetadata>),
}

impl OutboxEntry {
    /// Its lines' bytes.
    pub fn data(&self) -> &[u8] {
        match self {
            Self::Batch(batch, _) | Self::Finish(batch) => batch.data(),
            Self::Start(_) => &[],
        }
    }
}
