//! Segments: files of consecutive records of one app.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use system::files::{self, File, OpenOptions};

use super::record::{self, HEADER, Header};
use crate::{PublishTime, ReaderItem};

/// Distance between two entries of the index, the maximum that a seek reads in vain.
const INDEX_BYTES: u64 = 64 * 1024;

/// Bytes per read when searching for a record after corrupt data.
const SEARCH_BYTES: usize = 1 << 20;

/// A segment. Its name is a lower bound of its keys; an app's first segment is named 0.
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    /// Lower bound of the keys.
    pub(super) first: u64,
    state: Mutex<State>,
    /// Set when the index is built, for a closed segment at the first read.
    scanned: OnceLock<()>,
    /// Set when a sync failed: nothing is appended any more.
    abandoned: AtomicBool,
}

#[derive(Default)]
struct State {
    len: u64,
    /// The length at the last successful sync.
    synced_len: u64,
    last: u64,
    /// The first and some further keys, with the offsets of their records.
    index: Vec<(u64, u64)>,
}

impl Segment {
    /// Creates an empty segment, which is durable once its directory is synced. A file that an
    /// attempt without that sync left behind is replaced.
    pub(super) fn create(dir: &Path, first: u64) -> io::Result<Self> {
        let path = dir.join(format!("{first:020}.seg"));
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        file.set_len(0)?;
        Ok(Self {
            path,
            file,
            first,
            state: Mutex::default(),
            scanned: OnceLock::from(()),
            abandoned: AtomicBool::new(false),
        })
    }

    /// Opens a segment; `None` if the file name is not that of a segment.
    pub(super) fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".seg"));
        let Some(first) = name.and_then(|name| name.parse().ok()) else {
            return Ok(None);
        };
        let file = OpenOptions::new().read(true).append(true).open(&path)?;
        let state = State {
            len: file.metadata()?.len,
            ..State::default()
        };
        Ok(Some(Self {
            path,
            file,
            first,
            state: Mutex::new(state),
            scanned: OnceLock::new(),
            abandoned: AtomicBool::new(false),
        }))
    }

    /// Verifies every record of the newest segment, truncates a torn tail after the last valid
    /// one, and makes the rest durable: readers get records that were written and not synced.
    pub(super) fn recover(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let (end, len) = (self.scan(&mut state)?, state.len);
        if end < len {
            tracing::warn!(segment = %self.path.display(), bytes = len - end, "torn tail truncated");
            self.file.set_len(end)?;
            state.len = end;
        }
        self.file.sync()?;
        state.synced_len = state.len;
        let _ = self.scanned.set(());
        Ok(())
    }

    /// Builds the index, skipping corrupt data; returns the end of the last valid record.
    fn scan(&self, state: &mut State) -> io::Result<u64> {
        let (mut at, mut valid_end) = (0, 0);
        loop {
            if let Some(header) = self.header(at, state.len)? {
                state.record(header.key, at);
                at += header.record_len() as u64;
                valid_end = at;
            } else if let Some(next) = self.find_record(at, state.len)? {
                tracing::error!(segment = %self.path.display(), from = at, to = next, "corrupt records skipped");
                at = next;
            } else {
                return Ok(valid_end);
            }
        }
    }

    /// Returns the header of the valid record at this offset, if there is one.
    fn header(&self, at: u64, end: u64) -> io::Result<Option<Header>> {
        if at + HEADER as u64 > end {
            return Ok(None);
        }
        let mut head = [0; HEADER];
        self.file.read_exact_at(&mut head, at)?;
        let header = Header::read(&head).filter(|header| header.key >= self.first);
        let Some(header) = header.filter(|header| at + header.record_len() as u64 <= end) else {
            return Ok(None);
        };
        let mut record = vec![0; header.record_len()];
        self.file.read_exact_at(&mut record, at)?;
        Ok(header.matches(&record).then_some(header))
    }

    /// Returns the offset of the next valid record. It tries every byte, which happens only after
    /// corrupt data and in torn tails, which are short.
    fn find_record(&self, from: u64, end: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at + HEADER as u64 <= end {
            let window = usize::try_from(end - at).unwrap_or(usize::MAX).min(SEARCH_BYTES);
            let mut bytes = vec![0; window];
            self.file.read_exact_at(&mut bytes, at)?;
            for start in 0..=window - HEADER {
                let here = at + start as u64;
                if Header::read(&bytes[start..]).is_some() && self.header(here, end)?.is_some() {
                    return Ok(Some(here));
                }
            }
            at += (window - HEADER + 1) as u64;
        }
        Ok(None)
    }

    /// Appends records, each as key, head and data, without a sync. A failed write is truncated.
    pub(super) fn append(&self, records: &[(u64, Vec<u8>, &[u8])]) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(records.len() * 2);
        for (_, head, data) in records {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(data));
        }
        if let Err(error) = self.file.append(&mut slices) {
            // A partial write must not remain between valid records.
            if self.file.set_len(state.len).is_err() {
                self.abandoned.store(true, Ordering::Relaxed);
            }
            return Err(error);
        }
        for (key, head, data) in records {
            let at = state.len;
            state.record(*key, at);
            state.len += (head.len() + data.len()) as u64;
        }
        Ok(())
    }

    /// Appends a record that stands for lost ones with keys up to `to`, durably.
    pub(super) fn append_lost(&self, to: u64) -> io::Result<()> {
        let from = self.last()?.max(self.first.saturating_sub(1)) + 1;
        if from > to {
            return Ok(());
        }
        tracing::error!(segment = %self.path.display(), from, to, "accepted batches lost, gap recorded");
        self.append(&[(to, record::encode_lost(from, to), &[])])?;
        self.sync()
    }

    /// Makes the appended records durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()?;
        let mut state = self.state.lock();
        state.synced_len = state.len;
        Ok(())
    }

    /// Gives up the records that a failed sync left in doubt: whether they are on disk cannot be
    /// known, also not by another sync. Later records go to another segment.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        let synced = state.synced_len;
        state.len = synced;
        state.index.retain(|(_, at)| *at < synced);
        if let Err(error) = self.file.set_len(synced) {
            // After a restart readers get them once more.
            tracing::warn!(segment = %self.path.display(), %error, "unsynced records remain");
        }
    }

    /// Returns whether records can be appended.
    pub(super) fn is_open(&self) -> bool {
        !self.abandoned.load(Ordering::Relaxed)
    }

    /// Returns the size of the file.
    pub(super) fn len(&self) -> u64 {
        self.state.lock().len
    }

    /// Returns the highest key; 0 without records.
    pub(super) fn last(&self) -> io::Result<u64> {
        self.ensure_scanned()?;
        Ok(self.state.lock().last)
    }

    fn ensure_scanned(&self) -> io::Result<()> {
        if self.scanned.get().is_none() {
            let mut state = self.state.lock();
            state.index.clear();
            self.scan(&mut state)?;
            let _ = self.scanned.set(());
        }
        Ok(())
    }

    /// Returns records from key `from` to `to`, the segment's last key, of about `max_bytes`: at
    /// least one if there is one. Corrupt data is returned as [`ReaderItem::Interrupted`].
    pub(super) fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<(u64, ReaderItem)>> {
        self.ensure_scanned()?;
        let (mut at, end) = {
            let state = self.state.lock();
            let entry = state.index.partition_point(|(key, _)| *key <= from);
            let at = entry
                .checked_sub(1)
                .and_then(|entry| state.index.get(entry))
                .map_or(0, |(_, at)| *at);
            (at, state.len)
        };
        let mut items = Vec::new();
        while at < end && items.is_empty() {
            let chunk = self.read_chunk(at, end, max_bytes)?;
            let mut rest = chunk.clone();
            while let Some(header) = Header::read(&rest).filter(|header| header.record_len() <= rest.len()) {
                if !header.matches(&rest) {
                    break;
                }
                if header.key > to {
                    return Ok(items);
                }
                let record = rest.split_to(header.record_len());
                if header.key >= from {
                    items.push((header.key, header.decode(&record)));
                }
            }
            let read = (chunk.len() - rest.len()) as u64;
            at += read;
            if read == 0 {
                // No valid record starts here.
                let next = self.find_record(at + 1, end)?;
                let resume = match next {
                    Some(next) => self.header(next, end)?.map_or(to, |header| header.key),
                    None => to.saturating_add(1),
                };
                if resume > from {
                    items.push((
                        resume - 1,
                        ReaderItem::Interrupted {
                            from: PublishTime(from),
                            to: PublishTime(resume),
                        },
                    ));
                }
                at = next.unwrap_or(end);
            }
        }
        Ok(items)
    }

    /// Reads the record at this offset, and following ones up to `max_bytes`.
    fn read_chunk(&self, at: u64, end: u64, max_bytes: usize) -> io::Result<Bytes> {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let mut head = [0; HEADER];
        if left < HEADER {
            return Ok(Bytes::new());
        }
        self.file.read_exact_at(&mut head, at)?;
        let record = Header::read(&head).map_or(HEADER, |header| header.record_len());
        let mut chunk = BytesMut::zeroed(record.max(max_bytes).min(left));
        self.file.read_exact_at(&mut chunk, at)?;
        Ok(chunk.freeze())
    }

    /// Deletes the file. Concurrent readers can still read it to its end.
    pub(super) fn delete(&self) -> io::Result<()> {
        files::remove_file(&self.path)
    }
}

impl State {
    fn record(&mut self, key: u64, at: u64) {
        self.last = key;
        if self.index.last().is_none_or(|(_, indexed)| at - indexed >= INDEX_BYTES) {
            self.index.push((key, at));
        }
    }
}
