//! One app's topic: its segments, and the newest batches in memory.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{record, segment::Segment};
use crate::{AppName, Batch, Item, PublishTime, batch::Delivery};

/// A segment this large is closed: the grain of retention.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Bytes of the newest batches that are kept in memory for readers that are there.
const RECENT_BYTES: usize = 1 << 20;

/// What the files of durable subscriptions are called.
const SUBSCRIPTION_EXTENSION: &str = "sub";

/// One app's topic. Keys are the times the bus took its batches, in microseconds, each higher than the one before.
pub(super) struct Log {
    pub(super) app: AppName,
    dir: PathBuf,
    segments: RwLock<VecDeque<Arc<Segment>>>,
    recent: Mutex<Recent>,
    /// The key of the newest batch that is synced, 0 before the first.
    pub(super) newest: watch::Sender<u64>,
    /// Set when the app was removed: readers end.
    pub(super) removed: CancellationToken,
}

/// The newest synced batches without a hole, so that a live reader meets neither disk nor decoder.
#[derive(Default)]
struct Recent {
    /// All batches with a higher key are here.
    since: u64,
    batches: VecDeque<(u64, Batch)>,
    bytes: usize,
}

impl Log {
    /// Makes an app's topic, for good when this returns.
    pub(super) fn create(apps: &Path, app: &AppName) -> io::Result<Self> {
        let dir = apps.join(app.as_str());
        fs::create_dir_all(&dir)?;
        let first = Segment::create(&dir, 0)?;
        sync_dir(&dir)?;
        sync_dir(apps)?;
        Ok(Self::new(app.clone(), dir, [Arc::new(first)].into(), 0))
    }

    /// Opens an app's topic as it was left; a torn tail is cut off.
    pub(super) fn open(dir: PathBuf, app: AppName) -> io::Result<Self> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&dir)? {
            segments.extend(Segment::open(entry?.path())?.map(Arc::new));
        }
        segments.sort_by_key(|segment| segment.first);
        if segments.is_empty() {
            // The process died between making the directory and the first segment.
            segments.push(Arc::new(Segment::create(&dir, 0)?));
        }
        let mut newest = 0;
        if let Some(open) = segments.last() {
            open.recover()?;
            newest = open.last()?.max(open.first.saturating_sub(1));
        }
        Ok(Self::new(app, dir, segments.into(), newest))
    }

    fn new(app: AppName, dir: PathBuf, segments: VecDeque<Arc<Segment>>, newest: u64) -> Self {
        Self {
            app,
            dir,
            segments: RwLock::new(segments),
            recent: Mutex::new(Recent {
                since: newest,
                ..Recent::default()
            }),
            newest: watch::Sender::new(newest),
            removed: CancellationToken::new(),
        }
    }

    /// Writes batches with these keys, without a sync; returns what is to be synced. For the committer alone.
    pub(super) fn append(&self, batches: &[(u64, &Batch)]) -> io::Result<Arc<Segment>> {
        let segment = self.open_segment(batches.first().map_or(0, |(key, _)| *key))?;
        let records: Vec<_> = batches
            .iter()
            .map(|(key, batch)| (*key, record::encode_head(*key, batch), batch.data()))
            .collect();
        segment.append(&records)?;
        Ok(segment)
    }

    fn open_segment(&self, next: u64) -> io::Result<Arc<Segment>> {
        let mut segments = self.segments.write();
        match segments.back() {
            Some(segment) if segment.len() < SEGMENT_BYTES => Ok(Arc::clone(segment)),
            _ => {
                let segment = Arc::new(Segment::create(&self.dir, next)?);
                sync_dir(&self.dir)?;
                segments.push_back(Arc::clone(&segment));
                Ok(segment)
            }
        }
    }

    /// Shows synced batches to the readers.
    pub(super) fn reveal(&self, batches: Vec<(u64, Batch)>) {
        let Some(newest) = batches.last().map(|(key, _)| *key) else {
            return;
        };
        let mut recent = self.recent.lock();
        if self.newest.receiver_count() == 0 {
            *recent = Recent {
                since: newest,
                ..Recent::default()
            };
        } else {
            recent.extend(batches);
        }
        drop(recent);
        self.newest.send_replace(newest);
    }

    /// Keys below are gone. 0 where nothing ever went.
    pub(super) fn floor(&self) -> u64 {
        self.segments.read().front().map_or(0, |segment| segment.first)
    }

    /// Whether the batches from this key on are all in memory.
    pub(super) fn is_recent(&self, from: u64) -> bool {
        from > self.recent.lock().since
    }

    /// Batches from `from` to `to`, oldest first: some, where there are any. Blocks where they are not recent.
    pub(super) fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<(u64, Item)>> {
        if let Some(found) = self.recent.lock().read(from, to) {
            return Ok(found);
        }
        let segments: Vec<(Arc<Segment>, u64)> = {
            let segments = self.segments.read();
            let holds = segments
                .partition_point(|segment| segment.first <= from)
                .saturating_sub(1);
            let ends = segments
                .iter()
                .skip(holds + 1)
                .map(|next| to.min(next.first - 1))
                .chain([to]);
            segments.iter().skip(holds).cloned().zip(ends).collect()
        };
        for (segment, end) in segments {
            let found = segment.read(from, end, max_bytes)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.read().iter().map(|segment| segment.len()).sum()
    }

    /// Deletes the oldest segment; returns how many bytes went. The newest one, where it is the only one, gives way to an empty one, so that the floor lasts.
    pub(super) fn evict_oldest(&self) -> io::Result<u64> {
        let mut segments = self.segments.write();
        if segments.len() == 1 {
            let next = *self.newest.borrow() + 1;
            segments.push_back(Arc::new(Segment::create(&self.dir, next)?));
            sync_dir(&self.dir)?;
        }
        let Some(oldest) = segments.pop_front() else {
            return Ok(0);
        };
        oldest.delete()?;
        Ok(oldest.len())
    }

    /// Whether all of the oldest segment was taken before `key`, and there is something in it.
    pub(super) fn oldest_ends_before(&self, key: u64) -> bool {
        let segments = self.segments.read();
        match (segments.front(), segments.get(1)) {
            (Some(_), Some(second)) => second.first <= key,
            (Some(only), None) => only.len() > 0 && *self.newest.borrow() < key,
            _ => false,
        }
    }

    /// Deletes all of it. Readers end.
    pub(super) fn delete(&self) -> io::Result<()> {
        self.removed.cancel();
        fs::remove_dir_all(&self.dir)
    }

    /// The file that keeps the place of a subscription.
    pub(super) fn subscription_path(&self, name: &str) -> PathBuf {
        let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{hex}.{SUBSCRIPTION_EXTENSION}"))
    }

    /// Whether there is such a file.
    pub(super) fn has_subscriptions(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == SUBSCRIPTION_EXTENSION)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes files that were just made here last.
    pub(super) fn sync_dir(&self) -> io::Result<()> {
        sync_dir(&self.dir)
    }
}

impl Recent {
    fn extend(&mut self, batches: Vec<(u64, Batch)>) {
        self.bytes += batches.iter().map(|(_, batch)| batch.data().len()).sum::<usize>();
        self.batches.extend(batches);
        while self.bytes > RECENT_BYTES && self.batches.len() > 1 {
            let Some((key, gone)) = self.batches.pop_front() else {
                break;
            };
            self.since = key;
            self.bytes -= gone.data().len();
        }
    }

    fn read(&self, from: u64, to: u64) -> Option<Vec<(u64, Item)>> {
        if from <= self.since {
            return None;
        }
        let start = self.batches.partition_point(|(key, _)| *key < from);
        let within = self.batches.iter().skip(start).take_while(|(key, _)| *key <= to);
        let deliver = |(key, batch): &(u64, Batch)| {
            let delivery = Delivery {
                batch: batch.clone(),
                published: PublishTime(*key),
                ack: None,
            };
            (*key, Item::Delivery(delivery))
        };
        Some(within.map(deliver).collect())
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
