//! One stream's entries on disk, oldest first, in a directory of segments.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    path::{Path, PathBuf},
};

use bus::{Epoch, StreamId, StreamMetadata};
use bytes::Bytes;
use system::files::{self, File, OpenOptions};

use super::{compact::compact, format};
use crate::{
    anchor::ResumePoint,
    publish::{checkpoint::Checkpoint, entry::OutboxEntry},
};

/// One stream's entries on disk, oldest first.
///
/// *Bound*: the spool's, see [`evict_oldest`](Self::evict_oldest). Memory: the list of segments.
#[derive(Default)]
pub struct Segments {
    dir: PathBuf,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    next_number: u64,
    /// The last segment while it is written.
    writer: Option<File>,
    /// The first segment while it is read.
    reader: Option<File>,
    /// Offset of the oldest unconfirmed entry in the first segment.
    read_offset: u64,
    /// Length of that entry while it is in flight.
    in_flight_len: Option<u64>,
    /// Where the data on disk ends.
    end: SpoolEnd,
}

struct Segment {
    number: u64,
    bytes: u64,
    /// It holds no lines that could be evicted.
    is_compact: bool,
}

/// Where the spooled entries end.
#[derive(Clone, Debug, Default)]
pub struct SpoolEnd {
    /// The stream of the newest entry.
    pub stream: Option<StreamId>,
    /// The end of the stream's newest line on disk, after which reading resumes.
    pub read: Option<ResumePoint>,
    /// The end of the stream is on disk, too.
    pub finished: bool,
    /// The sequence number after the newest entry.
    pub next_seq: u64,
}

impl SpoolEnd {
    fn extend(&mut self, entry: &OutboxEntry) {
        match entry {
            OutboxEntry::Batch(batch, end) => {
                self.set_stream(&batch.metadata.stream);
                self.read = end.or(self.read);
                self.next_seq = batch.seq + batch.lines();
            }
            OutboxEntry::Finish(batch) => {
                self.set_stream(&batch.metadata.stream);
                self.finished = true;
                self.next_seq = batch.seq;
            }
            OutboxEntry::Start(metadata, start) => {
                self.set_stream(&metadata.stream);
                self.read = start.after.map(|after| ResumePoint { seq_end: 0, ..after });
            }
        }
    }

    /// Returns whether no line of the stream is missing between the end and an entry.
    fn continues_with(&self, entry: &OutboxEntry) -> bool {
        match entry {
            OutboxEntry::Batch(batch, _) | OutboxEntry::Finish(batch) => {
                self.stream.as_ref() == Some(&batch.metadata.stream) && batch.seq == self.next_seq
            }
            OutboxEntry::Start(..) => false,
        }
    }

    fn set_stream(&mut self, stream: &StreamId) {
        if self.stream.as_ref() != Some(stream) {
            *self = Self {
                stream: Some(stream.clone()),
                ..Self::default()
            };
        }
    }
}

impl Segments {
    /// Opens a directory and reads it up to the first incomplete entry; the rest is truncated and
    /// read again from the node. If the next segment continues after the truncated one, the entry
    /// was written there instead, and reading goes on. Entries that the checkpoint confirms are
    /// skipped. Blocks while reading all data.
    pub fn open(dir: &Path, segment_bytes: u64, checkpoint: &Checkpoint) -> io::Result<Self> {
        let mut segments = Self::empty(dir, segment_bytes);
        let numbers = numbers(dir)?;
        segments.next_number = numbers.last().map_or(0, |end| end + 1);
        let mut is_truncated = false;
        let mut confirmed = true;
        // Until an entry is read, the data ends where the checkpoint does.
        let mut end = SpoolEnd {
            stream: checkpoint.metadata().map(|metadata| metadata.stream),
            next_seq: checkpoint.accepted.map_or(0, |accepted| accepted.seq_end),
            ..SpoolEnd::default()
        };
        for number in numbers {
            let path = segments.path(number);
            let bytes = Bytes::from(files::read(&path)?);
            let is_continued = || format::decode(&bytes).is_some_and(|(first, _)| end.continues_with(&first));
            if is_truncated && !is_continued() {
                files::remove_file(&path)?;
                continue;
            }
            let mut at = 0;
            while let Some((entry, len)) = format::decode(&bytes.slice(at..)) {
                confirmed = confirmed && is_confirmed(&entry, checkpoint);
                at += len;
                if confirmed {
                    segments.read_offset = at as u64;
                }
                segments.end.extend(&entry);
                end.extend(&entry);
            }
            is_truncated = at < bytes.len();
            if is_truncated {
                tracing::warn!(path = %path.display(), cut = bytes.len() - at, "spool truncated after its last complete entry");
                OpenOptions::new().write(true).open(&path)?.set_len(at as u64)?;
            }
            if confirmed || at == 0 {
                files::remove_file(&path)?;
                segments.read_offset = if confirmed { 0 } else { segments.read_offset };
            } else {
                segments.segments.push_back(Segment {
                    number,
                    bytes: at as u64,
                    is_compact: false,
                });
            }
        }
        if segments.segments.is_empty() {
            segments.end = SpoolEnd::default();
        }
        Ok(segments)
    }

    /// Creates an empty list, whatever the directory holds.
    pub fn empty(dir: &Path, segment_bytes: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            segment_bytes,
            ..Self::default()
        }
    }

    /// Returns whether nothing is on disk.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Returns the bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Returns where the data ends.
    pub fn end(&self) -> &SpoolEnd {
        &self.end
    }

    /// Appends an entry. If it fails, the entries before it are unchanged, and later ones follow
    /// them.
    pub fn append(&mut self, entry: &OutboxEntry) -> io::Result<()> {
        if self.segments.is_empty() || self.writer.is_none() {
            self.start_segment()?;
        }
        let (Some(writer), Some(segment)) = (&mut self.writer, self.segments.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let head = format::encode_head(entry);
        let data = entry.data();
        if let Err(error) = append_both(writer, &head, data) {
            self.undo_append();
            return Err(error);
        }
        segment.bytes += (head.len() + data.len()) as u64;
        self.end.extend(entry);
        if segment.bytes >= self.segment_bytes {
            self.writer = None;
        }
        Ok(())
    }

    /// Removes what a failed write has left: a reader would stop at it. If that fails too, the rest
    /// of the segment is never read, and the next entry starts another one.
    fn undo_append(&mut self) {
        let writer = self.writer.take();
        let Some(last) = self.segments.back() else { return };
        if last.bytes == 0 {
            let path = self.path(last.number);
            self.segments.pop_back();
            let _ = files::remove_file(&path);
        } else if let Some(writer) = writer
            && writer.set_len(last.bytes).is_ok()
        {
            self.writer = Some(writer);
        }
    }

    /// Marks the first entry, which was just appended, as in flight.
    pub fn mark_in_flight(&mut self) {
        self.in_flight_len = self.segments.front().map(|segment| segment.bytes);
    }

    /// Returns the oldest entry, or `None` if there is none. It is kept until it is confirmed.
    ///
    /// # Errors
    /// The data cannot be read back.
    pub fn read_next(&mut self) -> io::Result<Option<OutboxEntry>> {
        let Some(segment) = self.segments.front() else {
            return Ok(None);
        };
        let path = self.path(segment.number);
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(File::open(&path)?),
        };
        let mut prefix = [0; format::PREFIX_BYTES];
        reader.read_exact_at(&mut prefix, self.read_offset)?;
        let len = format::entry_len(&prefix).ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; len];
        reader.read_exact_at(&mut bytes, self.read_offset)?;
        let (entry, len) = format::decode(&Bytes::from(bytes)).ok_or(io::ErrorKind::InvalidData)?;
        self.in_flight_len = Some(len as u64);
        Ok(Some(entry))
    }

    /// Marks the entry as no longer in flight; it stays unconfirmed.
    pub fn requeue(&mut self) {
        self.in_flight_len = None;
        if let Some(first) = self.segments.front_mut() {
            // The entry can be evicted now and merged with adjacent gaps.
            first.is_compact = false;
        }
    }

    /// Removes the entry that was in flight.
    pub fn confirm(&mut self) {
        self.read_offset += self.in_flight_len.take().unwrap_or_default();
        if self
            .segments
            .front()
            .is_some_and(|first| self.read_offset >= first.bytes)
        {
            self.drop_first();
        }
    }

    /// Removes all entries. Returns where they ended.
    pub fn discard_all(&mut self) -> SpoolEnd {
        let end = self.end.clone();
        while !self.segments.is_empty() {
            self.drop_first();
        }
        end
    }

    /// Replaces the oldest segment's lines by gaps. Returns the number of lines lost, or `None` if
    /// there are no more lines.
    ///
    /// The entry in flight is kept.
    pub fn evict_oldest(&mut self) -> io::Result<Option<u64>> {
        while let Some(at) = self.segments.iter().position(|segment| !segment.is_compact) {
            if at + 1 == self.segments.len() {
                self.writer = None;
            }
            let lost = self.evict_through(at)?;
            if lost > 0 {
                return Ok(Some(lost));
            }
        }
        Ok(None)
    }

    /// Moves what is left of the segments up to `at` into that segment.
    fn evict_through(&mut self, at: usize) -> io::Result<u64> {
        let mut entries = Vec::new();
        for (n, segment) in self.segments.iter().take(at + 1).enumerate() {
            let bytes = Bytes::from(files::read(&self.path(segment.number))?);
            let mut offset = if n == 0 { self.read_offset as usize } else { 0 };
            while let Some((entry, len)) = format::decode(&bytes.slice(offset.min(bytes.len())..)) {
                entries.push(entry);
                offset += len;
            }
        }
        let out = if self.in_flight_len.is_some() && !entries.is_empty() {
            vec![entries.remove(0)]
        } else {
            Vec::new()
        };
        let (kept, lost) = compact(entries);
        let number = self.segments[at].number;
        let bytes = self.replace_segment(number, out.iter().chain(&kept))?;
        for segment in self.segments.drain(..at) {
            // The new segment has the same gaps, and duplicates are skipped as confirmed.
            let _ = files::remove_file(&self.dir.join(name(segment.number)));
        }
        (self.read_offset, self.reader) = (0, None);
        self.in_flight_len = out
            .first()
            .map(|entry| (format::encode_head(entry).len() + entry.data().len()) as u64);
        if let Some(first) = self.segments.front_mut() {
            (first.bytes, first.is_compact) = (bytes, true);
        }
        Ok(lost)
    }

    /// Writes a segment anew and returns its length.
    fn replace_segment<'a>(&self, number: u64, entries: impl Iterator<Item = &'a OutboxEntry>) -> io::Result<u64> {
        let temporary = self.dir.join("evicting");
        let options = OpenOptions::new().write(true).create(true).truncate(true);
        let written = options.open(&temporary).and_then(|file| {
            let mut bytes = 0;
            for entry in entries {
                let (head, data) = (format::encode_head(entry), entry.data());
                file.write_at(&head, bytes)?;
                bytes += head.len() as u64;
                file.write_at(data, bytes)?;
                bytes += data.len() as u64;
            }
            files::rename(&temporary, &self.path(number))?;
            Ok(bytes)
        });
        if written.is_err() {
            // A full disk needs the room.
            let _ = files::remove_file(&temporary);
        }
        written
    }

    fn start_segment(&mut self) -> io::Result<()> {
        files::create_dir_all(&self.dir)?;
        let number = self.next_number;
        self.next_number += 1;
        let options = OpenOptions::new().create_new(true).append(true);
        let file = options.open(&self.path(number))?;
        self.writer = Some(file);
        self.segments.push_back(Segment {
            number,
            bytes: 0,
            is_compact: false,
        });
        Ok(())
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.segments.pop_front()
            && let Err(error) = files::remove_file(&self.path(first.number))
        {
            tracing::warn!(%error, "spool segment delete failed");
        }
        (self.read_offset, self.reader, self.in_flight_len) = (0, None, None);
        if self.segments.is_empty() {
            self.writer = None;
            self.end = SpoolEnd::default();
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(name(number))
    }
}

/// Returns whether the bus has an entry according to the checkpoint.
fn is_confirmed(entry: &OutboxEntry, checkpoint: &Checkpoint) -> bool {
    let Some(current) = checkpoint.metadata() else {
        return false;
    };
    let epoch = current.stream.epoch();
    let older = |stream: &StreamId| order(stream.epoch()) < order(epoch);
    let accepted = checkpoint.accepted.map_or(0, |accepted| accepted.seq_end);
    match entry {
        OutboxEntry::Batch(batch, end) => {
            let stream = &batch.metadata.stream;
            older(stream)
                || (*stream == current.stream && end.map_or(batch.seq < accepted, |end| end.seq_end <= accepted))
        }
        OutboxEntry::Finish(batch) => older(&batch.metadata.stream) || checkpoint.ended,
        OutboxEntry::Start(metadata, _) => older(&metadata.stream) || metadata.stream == current.stream,
    }
}

fn order(epoch: Epoch) -> (u64, u32) {
    (epoch.millis, epoch.random)
}

fn append_both(file: &File, head: &[u8], data: &[u8]) -> io::Result<()> {
    file.append(&mut [IoSlice::new(head), IoSlice::new(data)])
}

/// Returns whether a stream is newer than that of the instance's checkpoint.
pub fn is_newer(metadata: &StreamMetadata, checkpoint: &Checkpoint) -> bool {
    let current = checkpoint.metadata().map(|current| order(current.stream.epoch()));
    current.is_none_or(|current| current < order(metadata.stream.epoch()))
}

/// Returns the oldest entry in a directory that starts a segment and can be read, and the unreadable
/// segments before it.
pub fn first_entry(dir: &Path) -> io::Result<(Option<OutboxEntry>, Vec<PathBuf>)> {
    let mut unreadable = Vec::new();
    for number in numbers(dir)? {
        let path = dir.join(name(number));
        let file = File::open(&path)?;
        unreadable.push(path);
        let mut prefix = [0; format::PREFIX_BYTES];
        let read = read_start(&file, &mut prefix)?;
        let Some(len) = format::entry_len(&prefix).filter(|_| read) else {
            continue;
        };
        let mut bytes = vec![0; len];
        if read_start(&file, &mut bytes)?
            && let Some((entry, _)) = format::decode(&Bytes::from(bytes))
        {
            unreadable.pop();
            return Ok((Some(entry), unreadable));
        }
    }
    Ok((None, unreadable))
}

/// Fills the buffer from the start of a file; `false` if the file is shorter.
fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact_at(buffer, 0) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn name(number: u64) -> String {
    format!("{number:010}.spool")
}

/// Returns the numbers of the segments in a directory in ascending order; none if it does not
/// exist.
pub fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match files::list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let number = |name: &str| name.strip_suffix(".spool")?.parse().ok();
    let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
