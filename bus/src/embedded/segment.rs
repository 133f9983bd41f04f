//! A file of consecutive records of one app.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::record::{HEADER, Header};
use crate::{Item, PublishTime};

/// Bytes between two entries of the index: what a seek reads in vain at most.
const INDEX_BYTES: u64 = 64 * 1024;

/// Bytes looked through at once for a record behind spoiled ones.
const SEARCH_BYTES: usize = 1 << 20;

/// A segment. Named by a key that none of its records lies below; the app's very first is named 0.
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    /// No record has a lower key.
    pub(super) first: u64,
    state: Mutex<State>,
    /// Built when a closed segment is first read.
    scanned: OnceLock<()>,
}

#[derive(Default)]
struct State {
    len: u64,
    last: u64,
    /// Some keys and where their records begin, the first among them.
    index: Vec<(u64, u64)>,
}

impl Segment {
    /// Makes an empty one. It lasts once its directory is synced.
    pub(super) fn create(dir: &Path, first: u64) -> io::Result<Self> {
        let path = dir.join(format!("{first:020}.seg"));
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            first,
            state: Mutex::default(),
            scanned: OnceLock::from(()),
        })
    }

    /// Opens one by its name; `None` where the name is none of ours.
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
            len: file.metadata()?.len(),
            ..State::default()
        };
        Ok(Some(Self {
            path,
            file,
            first,
            state: Mutex::new(state),
            scanned: OnceLock::new(),
        }))
    }

    /// Proves every record and cuts off what follows the last good one: a torn tail. For the segment that was being written.
    pub(super) fn recover(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let (end, len) = (self.scan(&mut state)?, state.len);
        if end < len {
            tracing::warn!(segment = %self.path.display(), bytes = len - end, "cut off a torn tail");
            self.file.set_len(end)?;
            self.file.sync_all()?;
            state.len = end;
        }
        let _ = self.scanned.set(());
        Ok(())
    }

    /// Walks the records into the index, past what the disk spoiled; returns where the last good one ends.
    fn scan(&self, state: &mut State) -> io::Result<u64> {
        let (mut at, mut good) = (0, 0);
        loop {
            if let Some(header) = self.header(at, state.len)? {
                state.note(header.key, at);
                at += header.record_len() as u64;
                good = at;
            } else if let Some(next) = self.find_record(at, state.len)? {
                tracing::error!(segment = %self.path.display(), from = at, to = next, "the disk spoiled what was stored");
                at = next;
            } else {
                return Ok(good);
            }
        }
    }

    /// The header of the record that begins here and is proved; `None` where none does.
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
        Ok(header.proves(&record).then_some(header))
    }

    /// Where the next record that can be proved begins, behind something that is none. Looks at every byte; only a spoiled disk leads here, or a torn tail, which is short.
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

    /// Appends records: for each its key, its head and its data. Not synced. On an error nothing of them is left, or the segment is of no more use.
    pub(super) fn append(&self, records: &[(u64, Vec<u8>, &[u8])]) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(records.len() * 2);
        for (_, head, data) in records {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(data));
        }
        if let Err(error) = write_all(&self.file, &mut slices) {
            // What came in part must not stand between good records.
            self.file.set_len(state.len)?;
            return Err(error);
        }
        for (key, head, data) in records {
            let at = state.len;
            state.note(*key, at);
            state.len += (head.len() + data.len()) as u64;
        }
        Ok(())
    }

    /// Makes what was appended last.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Bytes in the file.
    pub(super) fn len(&self) -> u64 {
        self.state.lock().len
    }

    /// The highest key, 0 where there is no record.
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

    /// Records from `from` to `to`, beyond which this segment has none, as many as lie in about `max_bytes`, at least one where there is one. What the disk spoiled is told as an [`Item::Break`].
    pub(super) fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<(u64, Item)>> {
        self.ensure_scanned()?;
        let (mut at, end) = {
            let state = self.state.lock();
            let place = state.index.partition_point(|(key, _)| *key <= from);
            let at = place
                .checked_sub(1)
                .and_then(|place| state.index.get(place))
                .map_or(0, |(_, at)| *at);
            (at, state.len)
        };
        let mut items = Vec::new();
        while at < end && items.is_empty() {
            let chunk = self.read_chunk(at, end, max_bytes)?;
            let mut rest = chunk.clone();
            while let Some(header) = Header::read(&rest).filter(|header| header.record_len() <= rest.len()) {
                if !header.proves(&rest) {
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
            let passed = (chunk.len() - rest.len()) as u64;
            at += passed;
            if passed == 0 {
                // Nothing whole begins here, however much is read: it is spoiled.
                let next = self.find_record(at + 1, end)?;
                let good = match next {
                    Some(next) => self.header(next, end)?.map_or(to, |header| header.key),
                    None => to.saturating_add(1),
                };
                if good > from {
                    items.push((
                        good - 1,
                        Item::Break {
                            from: PublishTime(from),
                            to: PublishTime(good),
                        },
                    ));
                }
                at = next.unwrap_or(end);
            }
        }
        Ok(items)
    }

    /// Bytes from a record's beginning on: the whole of it, and of others what fits.
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

    /// Deletes the file. Who reads it just now goes on to its end.
    pub(super) fn delete(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

impl State {
    fn note(&mut self, key: u64, at: u64) {
        self.last = key;
        if self.index.last().is_none_or(|(_, indexed)| at - indexed >= INDEX_BYTES) {
            self.index.push((key, at));
        }
    }
}

fn write_all(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    // An empty slice at the front would look like a full disk.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        // The system takes at most IOV_MAX, 1024, at once, and std cuts to that.
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
