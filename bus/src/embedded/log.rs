//! One app's topic: its segments, and its newest batches in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use system::{files, task};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{manifest, newest::Newest, record, segment::Segment};
use crate::{AppName, Batch, PublishTime, ReaderItem, batch::Delivery};

/// Size from which on a segment is closed; retention deletes whole segments.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Maximum bytes of the newest batches in memory, for live readers.
const RECENT_BYTES: usize = 1 << 20;

/// File extension of the offsets of durable subscriptions.
const SUBSCRIPTION_EXTENSION: &str = "sub";

/// One app's topic. The key of a batch is its publish time in microseconds; keys strictly increase.
pub(super) struct Log {
    pub(super) app: AppName,
    dir: PathBuf,
    segments: RwLock<VecDeque<Arc<Segment>>>,
    recent: Mutex<Recent>,
    /// Key of the newest synced batch; 0 before the first.
    pub(super) newest: watch::Sender<u64>,
    stored_newest: Newest,
    /// The highest key that was written, also in vain.
    written: AtomicU64,
    /// Cancelled when the app is removed.
    pub(super) removed: CancellationToken,
}

/// The newest synced batches, contiguous, so that live readers need neither disk nor decoder.
#[derive(Default)]
struct Recent {
    /// All batches with a higher key are in memory.
    since: u64,
    batches: VecDeque<(u64, Batch)>,
    bytes: usize,
}

impl Log {
    /// Creates an app's topic, which is durable when this returns.
    pub(super) async fn create(apps: &Path, app: &AppName) -> io::Result<Self> {
        let dir = apps.join(app.as_str());
        task::io(|| files::create_dir_all(&dir)).await?;
        let first = task::io(|| Segment::create(&dir, 0)).await?;
        task::io(|| files::sync_dir(&dir)).await?;
        task::io(|| files::sync_dir(apps)).await?;
        let (stored_newest, _) = Newest::open(&dir);
        Ok(Self::new(
            app.clone(),
            dir,
            [Arc::new(first)].into(),
            (0, stored_newest),
        ))
    }

    /// Opens an app's topic and truncates a torn tail.
    pub(super) fn open(dir: PathBuf, app: AppName) -> io::Result<Self> {
        let mut segments = Vec::new();
        for entry in files::list(&dir)? {
            segments.extend(Segment::open(dir.join(entry.name))?.map(Arc::new));
        }
        segments.sort_by_key(|segment| segment.first);
        if segments.is_empty() {
            // The process crashed between the creation of the directory and of the first segment.
            segments.push(Arc::new(Segment::create(&dir, 0)?));
        }
        let is_incomplete = mark_lost_segments(&dir, &segments)?;
        let (stored_newest, stored) = Newest::open(&dir);
        let mut newest = 0;
        if let Some(open) = segments.last() {
            open.recover()?;
            newest = open.last()?.max(open.first.saturating_sub(1));
            if let Some(stored) = stored.filter(|stored| *stored > newest) {
                open.append_lost(stored)?;
                newest = stored;
            }
        }
        let log = Self::new(app, dir, segments.into(), (newest, stored_newest));
        if is_incomplete {
            log.write_manifest(0)?;
        }
        Ok(log)
    }

    fn new(
        app: AppName,
        dir: PathBuf,
        segments: VecDeque<Arc<Segment>>,
        (newest, stored_newest): (u64, Newest),
    ) -> Self {
        Self {
            app,
            stored_newest,
            dir,
            segments: RwLock::new(segments),
            recent: Mutex::new(Recent {
                since: newest,
                ..Recent::default()
            }),
            newest: watch::Sender::new(newest),
            written: AtomicU64::new(newest),
            removed: CancellationToken::new(),
        }
    }

    /// Writes batches with these keys; returns the segment to sync. Only the committer calls it.
    pub(super) async fn append(&self, batches: &[(u64, &Batch)]) -> io::Result<Arc<Segment>> {
        let next = batches.first().map_or(0, |(key, _)| *key);
        let last = batches.last().map_or(0, |(key, _)| *key);
        self.written.fetch_max(last, Ordering::Relaxed);
        let segment = match self.open_segment() {
            Some(segment) => segment,
            None => self.add_segment(next).await?,
        };
        let records: Vec<_> = batches
            .iter()
            .map(|(key, batch)| (*key, record::encode_head(*key, batch), batch.data()))
            .collect();
        task::io(|| segment.append(&records)).await?;
        Ok(segment)
    }

    /// Gives up what was written to a segment since its last sync. Only the committer calls it.
    pub(super) fn abandon(&self, segment: &Arc<Segment>) {
        segment.abandon();
        let mut segments = self.segments.write();
        let is_newest = segments.back().is_some_and(|newest| Arc::ptr_eq(newest, segment));
        // While a disk refuses every sync, each attempt leaves an empty segment.
        if is_newest && segment.len() == 0 && segments.len() > 1 {
            segments.pop_back();
            if let Err(error) = segment.delete() {
                tracing::debug!(app = %self.app, %error, "an empty segment remains");
            }
        }
    }

    /// Returns a lower bound of the next key: keys that were written in vain are not used again.
    pub(super) fn last_key(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Returns the newest segment unless it is full or a sync of it failed.
    fn open_segment(&self) -> Option<Arc<Segment>> {
        let newest = self.segments.read().back().cloned();
        newest.filter(|segment| segment.is_open() && segment.len() < SEGMENT_BYTES)
    }

    async fn add_segment(&self, first: u64) -> io::Result<Arc<Segment>> {
        let segment = Arc::new(task::io(|| Segment::create(&self.dir, first)).await?);
        task::io(|| files::sync_dir(&self.dir)).await?;
        self.segments.write().push_back(Arc::clone(&segment));
        if let Err(error) = task::io(|| self.write_manifest(0)).await {
            // A list without the newest closed segment detects less.
            tracing::debug!(app = %self.app, %error, "list of segments not written");
        }
        Ok(segment)
    }

    /// Lists the closed segments, without those of the lowest `evicted` ones.
    fn write_manifest(&self, evicted: usize) -> io::Result<()> {
        let closed: BTreeMap<_, _> = {
            let segments = self.segments.read();
            let closed = segments.len().saturating_sub(1);
            let listed = segments.iter().take(closed).skip(evicted);
            listed.map(|segment| (segment.first, segment.len())).collect()
        };
        manifest::write_segments(&self.dir, &closed)
    }

    /// Publishes synced batches to the readers.
    pub(super) fn publish(&self, batches: Vec<(u64, Batch)>) {
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
        self.stored_newest.store(newest);
        self.newest.send_replace(newest);
    }

    /// Returns the lowest key that can be stored; 0 if nothing was ever evicted.
    pub(super) fn floor(&self) -> u64 {
        self.segments.read().front().map_or(0, |segment| segment.first)
    }

    /// Returns whether all batches from this key on are in memory.
    pub(super) fn is_recent(&self, from: u64) -> bool {
        from > self.recent.lock().since
    }

    /// Returns batches from key `from` to `to`, oldest first: not necessarily all, but at least one
    /// if there is one. Blocks if they are not in memory.
    pub(super) fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<(u64, ReaderItem)>> {
        if let Some(found) = self.recent.lock().read(from, to) {
            return Ok(found);
        }
        let segments: Vec<(Arc<Segment>, u64)> = {
            let segments = self.segments.read();
            let containing = segments
                .partition_point(|segment| segment.first <= from)
                .saturating_sub(1);
            let ends = segments
                .iter()
                .skip(containing + 1)
                .map(|next| to.min(next.first - 1))
                .chain([to]);
            segments.iter().skip(containing).cloned().zip(ends).collect()
        };
        for (segment, end) in segments {
            let found = segment.read(from, end, max_bytes)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Returns the bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.read().iter().map(|segment| segment.len()).sum()
    }

    /// Deletes the oldest segment and returns its size. If it is the only one, an empty segment
    /// replaces it, which preserves the floor. Only the committer calls it.
    pub(super) async fn evict_oldest(&self) -> io::Result<u64> {
        if self.segments.read().len() == 1 {
            let next = *self.newest.borrow() + 1;
            self.add_segment(next).await?;
        }
        // Before the segment is deleted, which would be missing otherwise.
        task::io(|| self.write_manifest(1)).await?;
        let Some(oldest) = self.segments.write().pop_front() else {
            return Ok(0);
        };
        task::io(|| oldest.delete()).await?;
        // Otherwise a crash of the machine can bring back this segment and not a later one.
        task::io(|| files::sync_dir(&self.dir)).await?;
        Ok(oldest.len())
    }

    /// Returns whether the oldest segment is not empty and all its keys are below `key`.
    pub(super) fn oldest_ends_before(&self, key: u64) -> bool {
        let segments = self.segments.read();
        match (segments.front(), segments.get(1)) {
            (Some(_), Some(second)) => second.first <= key,
            (Some(only), None) => only.len() > 0 && *self.newest.borrow() < key,
            _ => false,
        }
    }

    /// Deletes the topic and ends its readers.
    pub(super) fn delete(&self) -> io::Result<()> {
        self.removed.cancel();
        files::remove_dir_all(&self.dir)?;
        match self.dir.parent() {
            Some(apps) => files::sync_dir(apps),
            None => Ok(()),
        }
    }

    /// Returns the path of a subscription's offset file.
    pub(super) fn subscription_path(&self, name: &str) -> PathBuf {
        let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{hex}.{SUBSCRIPTION_EXTENSION}"))
    }

    /// Returns whether a subscription exists, even if its file is missing.
    pub(super) fn knows_subscription(&self, path: &Path) -> bool {
        file_name(path).is_some_and(|name| manifest::read_subscriptions(&self.dir).contains(&name))
    }

    /// Records that a subscription exists, or that it does not.
    pub(super) fn list_subscription(&self, path: &Path, exists: bool) -> io::Result<()> {
        let Some(name) = file_name(path) else { return Ok(()) };
        let mut names = manifest::read_subscriptions(&self.dir);
        let is_changed = if exists {
            names.insert(name)
        } else {
            names.remove(&name)
        };
        if is_changed {
            manifest::write_subscriptions(&self.dir, &names)?;
        }
        Ok(())
    }

    /// Returns whether the app has a durable subscription.
    pub(super) fn has_subscriptions(&self) -> io::Result<bool> {
        let is_subscription = |name: &str| {
            let extension = Path::new(name).extension();
            extension.is_some_and(|extension| extension == SUBSCRIPTION_EXTENSION)
        };
        Ok(files::list(&self.dir)?.iter().any(|entry| is_subscription(&entry.name)))
    }

    /// Syncs the directory, which makes newly created files durable.
    pub(super) fn sync_dir(&self) -> io::Result<()> {
        files::sync_dir(&self.dir)
    }
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Records in the segments that remain what closed ones have lost. Returns whether it was anything.
fn mark_lost_segments(dir: &Path, segments: &[Arc<Segment>]) -> io::Result<bool> {
    let mut is_incomplete = false;
    for (first, len) in manifest::read_segments(dir) {
        let after = segments.partition_point(|segment| segment.first <= first);
        let (Some(last_before), Some(next)) = (after.checked_sub(1).map(|at| &segments[at]), segments.get(after))
        else {
            // The oldest ones: readers skip them as evicted. Or the newest: see `Newest`.
            continue;
        };
        if last_before.first < first || last_before.len() < len {
            last_before.append_lost(next.first - 1)?;
            is_incomplete = true;
        }
    }
    Ok(is_incomplete)
}

impl Recent {
    fn extend(&mut self, batches: Vec<(u64, Batch)>) {
        self.bytes += batches.iter().map(|(_, batch)| batch.data().len()).sum::<usize>();
        self.batches.extend(batches);
        while self.bytes > RECENT_BYTES && self.batches.len() > 1 {
            let Some((key, evicted)) = self.batches.pop_front() else {
                break;
            };
            self.since = key;
            self.bytes -= evicted.data().len();
        }
    }

    fn read(&self, from: u64, to: u64) -> Option<Vec<(u64, ReaderItem)>> {
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
            (*key, ReaderItem::Delivery(delivery))
        };
        Some(within.map(deliver).collect())
    }
}
