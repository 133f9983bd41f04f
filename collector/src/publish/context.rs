//! What goes to the bus, and what all streams share on the way.

use std::{sync::Arc, time::Duration};

use bus::{Batch, Bus, StreamMetadata};

use crate::{
    anchor::Mark, metrics::Metrics, publish::checkpoint::Checkpoints, publish::rate_limit::Limits,
    publish::spool::Spool,
};

/// One thing to be done, in its turn.
#[derive(Clone, Debug)]
pub enum Step {
    /// Publish; the mark is at the end of its lines, where it has any.
    Batch(Batch, Option<Mark>),
    /// Publish; the instance's last stream ends with it, and is not to be read again.
    Finish(Batch),
    /// A new stream of the instance begins: its record takes the old one's place.
    Begin(Arc<StreamMetadata>),
}

impl Step {
    /// Its lines' bytes.
    pub fn data(&self) -> &[u8] {
        match self {
            Self::Batch(batch, _) | Self::Finish(batch) => batch.data(),
            Self::Begin(_) => &[],
        }
    }
}

/// What all streams publish through.
#[derive(Clone)]
pub struct Way {
    pub bus: Arc<dyn Bus>,
    pub checkpoints: Checkpoints,
    pub spool: Arc<Spool>,
    pub metrics: Metrics,
    /// What an app may print. `None`: what it likes.
    pub limits: Option<Arc<Limits>>,
    /// See [`Config::publish_wait`](crate::Config::publish_wait).
    pub publish_wait: Duration,
}
