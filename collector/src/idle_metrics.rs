//! How long ago each running container was last heard: a few numbers for all of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};
use tokio::time::Instant;

/// How many containers have been silent for longer: a minute, ten, an hour.
const OVER_SECONDS: [u64; 3] = [60, 600, 3600];

/// When each running container was last heard. Clones share it.
///
/// *Shown*: the longest silence, and how many silences are longer than some; a label a container would have no bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Containers>);

#[derive(Debug, Default)]
struct Containers {
    next: AtomicU64,
    last: Mutex<HashMap<u64, Arc<Mutex<Instant>>>>,
}

/// One container's ear. Dropped, it counts no more.
#[derive(Debug)]
pub(crate) struct Ear {
    id: u64,
    last: Arc<Mutex<Instant>>,
    all: Heard,
}

impl Heard {
    /// Begins to listen to one more container.
    pub(crate) fn listen(&self) -> Ear {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let last = Arc::new(Mutex::new(Instant::now()));
        self.0.last.lock().insert(id, Arc::clone(&last));
        Ear {
            id,
            last,
            all: self.clone(),
        }
    }

    /// Seconds since each was heard.
    fn silences(&self) -> Vec<f64> {
        let last = self.0.last.lock();
        last.values().map(|last| last.lock().elapsed().as_secs_f64()).collect()
    }
}

impl Ear {
    /// Something came.
    pub(crate) fn heard(&self) {
        *self.last.lock() = Instant::now();
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.all.0.last.lock().remove(&self.id);
    }
}

impl Collector for Heard {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let silences = self.silences();
        let longest = ConstGauge::new(silences.iter().copied().fold(0.0, f64::max));
        let help = "Since the last byte of the running container that has been silent for longest";
        let encoded =
            encoder.encode_descriptor("longest_silence", help, Some(&Unit::Seconds), longest.metric_type())?;
        longest.encode(encoded)?;
        for over in OVER_SECONDS {
            let count = silences.iter().filter(|silence| **silence > over as f64).count();
            let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            let help = "Running containers that have been silent for longer than the name says, in seconds";
            let name = format!("silent_over_{over}");
            count.encode(encoder.encode_descriptor(&name, help, None, count.metric_type())?)?;
        }
        Ok(())
    }
}
