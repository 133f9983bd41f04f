//! Reads one container's files across rotations: every byte once and in order, or a known gap.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use system::clock::Instant;

use super::{
    assemble::LineAssembler,
    listing::{ListedFile, list},
    log_file::{FileId, LogFile},
    order::{OrderedFile, order},
    path::Name,
    read_files::ReadFiles,
};
use crate::publish::file_checkpoint::FilePosition;

/// Maximum read size: a few thousand lines, well below a millisecond.
const READ_BYTES: usize = 256 << 10;

/// Buffer size of a container with little output. It grows while reads fill it.
const QUIET_BYTES: usize = 8 << 10;

/// The runtime opens the new file before it closes the rotated one, so a rotated file can still
/// grow. If its close was not observed, it counts as complete after this time without data. In
/// practice this takes microseconds.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum number of unread files held open per container. An open file stays readable after the
/// node has removed it, and uses disk until then. A node keeps 5.
const MAX_HELD: usize = 8;

/// Maximum number of attempts to list a directory while files are being renamed.
const LIST_ATTEMPTS: usize = 5;

/// One container instance's files, the oldest unread one first.
///
/// Files are held open from the moment they are seen, so that a rotation that overtakes the reader
/// loses nothing.
///
/// *Memory*: the read size while there is more data, 8 KiB otherwise.
pub struct Tail {
    dir: PathBuf,
    number: u32,
    files: VecDeque<HeldFile>,
    /// Older files.
    read: ReadFiles,
    buffer: Vec<u8>,
    /// Bytes at the start of the buffer that are an incomplete line.
    rest: usize,
    /// Time has passed since the file was opened or read to its end: it may have been truncated, and
    /// have grown since.
    may_be_rewritten: bool,
}

struct HeldFile {
    file: LogFile,
    /// Files between this one and the one before it may be missing.
    after_gap: bool,
    /// The file cannot grow: its close was observed, it is compressed, or it is older than the
    /// second newest.
    is_sealed: bool,
    /// A read failed.
    is_broken: bool,
    /// When it ceased to be the newest file, or last grew after that.
    since: Instant,
    waits_for_close: bool,
}

/// Result of opening a container's files.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// There is no file.
    Missing,
    /// Reading starts at the requested position.
    Found,
    /// The requested position does not exist any more; reading starts at the oldest file.
    PositionGone,
}

/// Result of one read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Data was read; there may be more.
    Read,
    /// The end of a rotated file was reached; it counts as complete at this time.
    WaitingForClose(Instant),
    /// Reading continues with the next file, or with a truncated file from its start.
    Next {
        /// Lines before it may be missing.
        after_gap: bool,
    },
    /// The rest of a file cannot be read; reading continues with the next one.
    Unreadable,
    /// Everything was read.
    Idle,
}

impl Tail {
    /// Creates the tail of the instance with `number` predecessors in this directory.
    pub fn new(dir: PathBuf, number: u32) -> Self {
        Self {
            dir,
            number,
            files: VecDeque::new(),
            read: ReadFiles::default(),
            buffer: Vec::new(),
            rest: 0,
            may_be_rewritten: true,
        }
    }

    /// Returns the directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the number of earlier instances.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Opens the files at a position, or at the oldest one.
    ///
    /// # Errors
    /// I/O errors, except for a missing directory.
    pub fn open(&mut self, from: Option<&FilePosition>, now: Instant) -> io::Result<Opened> {
        for _ in 0..LIST_ATTEMPTS {
            self.files.clear();
            let listed = list(&self.dir, self.number)?;
            if listed != list(&self.dir, self.number)? {
                continue;
            }
            if listed.is_empty() {
                return Ok(Opened::Missing);
            }
            let found = from.and_then(|position| find_position(&listed, position).map(|at| (at, position)));
            self.read = ReadFiles::default();
            let unread = match (found, from) {
                (Some((at, position)), _) => self.unread_from(&listed, at, position),
                (None, Some(position)) => self.not_read_before(listed, position),
                (None, None) => order(listed, None),
            };
            if !self.hold(&unread, now)? {
                continue;
            }
            let Some((_, position)) = found else {
                return Ok(if from.is_some() {
                    Opened::PositionGone
                } else {
                    Opened::Found
                });
            };
            let front = self.files.front_mut().map(|held| &mut held.file);
            return match front.map(|file| file.skip_to(position.offset)) {
                Some(Ok(())) => Ok(Opened::Found),
                // The file was truncated: the rest of it was not read.
                _ => self.reopen(position, now),
            };
        }
        Ok(Opened::Missing)
    }

    fn reopen(&mut self, position: &FilePosition, now: Instant) -> io::Result<Opened> {
        let gone = FilePosition {
            head_hash: !position.head_hash,
            ..position.clone()
        };
        self.open(Some(&gone), now)
    }

    /// Returns whether older files may have been removed before the oldest one was opened.
    pub fn may_lack_first(&self) -> bool {
        let oldest = self.files.front();
        oldest.is_some_and(|held| held.file.name != Name::Current)
    }

    /// Opens new files and returns whether there are any.
    ///
    /// # Errors
    /// I/O errors, except for a missing directory.
    pub fn scan(&mut self, now: Instant) -> io::Result<bool> {
        for _ in 0..LIST_ATTEMPTS {
            let before = self.files.len();
            let listed = list(&self.dir, self.number)?;
            if listed.is_empty() || before >= MAX_HELD {
                return Ok(false);
            }
            // A concurrent rename can hide a file from a listing.
            if listed != list(&self.dir, self.number)? {
                continue;
            }
            self.update_names(&listed);
            let newest_index = self.newest_index(&listed);
            if newest_index.is_some_and(|index| listed[index].name == Name::Current) {
                return Ok(false);
            }
            let new_files: Vec<_> = listed.iter().filter(|entry| self.is_new(entry)).cloned().collect();
            let newest = newest_index.map(|index| listed[index].clone());
            // Without a rotated file among the new ones, the newest held one was removed by hand: the
            // kubelet removes a file only when it rotates the next one.
            let is_gone = newest.is_none() && new_files.iter().any(|entry| entry.name != Name::Current);
            let mut new_files = order(new_files, newest.as_ref());
            if let Some(first) = new_files.first_mut() {
                first.after_gap |= is_gone;
            }
            self.read.retain_listed(&listed);
            if self.hold(&new_files, now)? {
                return Ok(self.files.len() > before);
            }
            self.files.truncate(before);
        }
        Ok(false)
    }

    /// Marks a rotated file as complete after its writer closed it.
    pub fn mark_closed(&mut self, name: &Name) {
        // The current file may be opened again by its writer.
        let rotated = self
            .files
            .iter_mut()
            .filter(|held| matches!(held.file.name, Name::Rotated(_)));
        for held in rotated.filter(|held| held.file.name == *name) {
            held.is_sealed = true;
        }
    }

    /// Reads up to the read size into the assembler.
    ///
    /// # Errors
    /// I/O errors; the rest of the current file is given up.
    pub fn read_next(&mut self, assembler: &mut LineAssembler, now: Instant) -> io::Result<ReadOutcome> {
        let Some(held) = self.files.front_mut() else {
            return Ok(ReadOutcome::Idle);
        };
        if std::mem::take(&mut self.may_be_rewritten) && held.file.restart_if_rewritten() {
            self.finish_rest(assembler);
            return Ok(ReadOutcome::Next { after_gap: true });
        }
        if self.buffer.len() == self.rest {
            let room = (self.rest * 4).clamp(QUIET_BYTES, READ_BYTES);
            self.buffer.resize(room, 0);
        }
        let read = match held.read(&mut self.buffer[self.rest..], now) {
            Ok(read) => read,
            Err(error) => {
                self.finish_rest(assembler);
                return Err(error);
            }
        };
        if read > 0 {
            self.assemble(self.rest + read, assembler);
            return Ok(ReadOutcome::Read);
        }
        if held.file.restart_if_truncated().unwrap_or_default() {
            self.finish_rest(assembler);
            return Ok(ReadOutcome::Next { after_gap: true });
        }
        Ok(self.at_end(assembler, now))
    }

    /// Continues with the next file if there is one and the current one is complete.
    fn at_end(&mut self, assembler: &mut LineAssembler, now: Instant) -> ReadOutcome {
        self.buffer.truncate(self.rest.max(QUIET_BYTES));
        self.buffer.shrink_to_fit();
        let after_gap = match self.files.get(1) {
            Some(next) => next.after_gap,
            None => {
                self.may_be_rewritten = true;
                return ReadOutcome::Idle;
            }
        };
        let front = &mut self.files[0];
        let complete_at = front.since + CLOSE_TIMEOUT;
        if !front.is_sealed && now < complete_at {
            front.waits_for_close = true;
            return ReadOutcome::WaitingForClose(complete_at);
        }
        self.finish_rest(assembler);
        let mut is_broken = false;
        if let Some(held) = self.files.pop_front() {
            is_broken = held.is_broken;
            self.read.add(held.file);
        }
        self.may_be_rewritten = true;
        if is_broken {
            return ReadOutcome::Unreadable;
        }
        ReadOutcome::Next { after_gap }
    }

    /// Returns whether the file that is read is the one that is written.
    pub fn is_at_current(&self) -> bool {
        self.files.len() == 1 && self.files[0].file.name == Name::Current
    }

    /// Returns whether the current file could not be read to its end.
    pub fn is_broken(&self) -> bool {
        self.files.front().is_some_and(|held| held.is_broken)
    }

    /// Treats an unterminated rest as a line, at the end of all files.
    pub fn finish_rest(&mut self, assembler: &mut LineAssembler) {
        if self.rest > 0 {
            assembler.line(&self.buffer[..self.rest]);
            self.rest = 0;
        }
    }

    /// Returns where the next line starts, or `None` in a file without a line.
    pub fn position(&mut self) -> Option<FilePosition> {
        let file = &mut self.files.front_mut()?.file;
        let FileId { dev, inode } = file.id;
        Some(FilePosition {
            dev,
            inode,
            head_hash: file.head_hash()?,
            offset: file.offset() - self.rest as u64,
            read: self.read.head_hashes(),
        })
    }

    /// Passes complete lines of the filled buffer to the assembler and keeps the rest.
    fn assemble(&mut self, filled: usize, assembler: &mut LineAssembler) {
        let data = &self.buffer[..filled];
        match memchr::memrchr(b'\n', &data[self.rest..]) {
            Some(newline) => {
                let end = self.rest + newline + 1;
                assembler.lines(&data[..end]);
                self.buffer.copy_within(end..filled, 0);
                self.rest = filled - end;
                if filled == self.buffer.len() && filled < READ_BYTES {
                    self.buffer.resize((filled * 4).min(READ_BYTES), 0);
                }
            }
            // The runtime does not write lines of this length.
            None if filled >= READ_BYTES => {
                assembler.unrecognized(data, false);
                self.rest = 0;
            }
            None => self.rest = filled,
        }
    }

    /// Holds files open, in this order. Returns false if one was renamed or removed since it was
    /// listed.
    fn hold(&mut self, ordered: &[OrderedFile], now: Instant) -> io::Result<bool> {
        for OrderedFile {
            listed: entry,
            after_gap,
        } in ordered
        {
            if self.files.len() >= MAX_HELD {
                break;
            }
            let file = match LogFile::open(&entry.path, entry.name.clone(), entry.is_gz) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            if file.id != entry.id {
                return Ok(false);
            }
            if let Some(newest) = self.files.back_mut() {
                newest.since = now;
            }
            self.files.push_back(HeldFile {
                is_sealed: file.is_sealed(),
                is_broken: false,
                file,
                after_gap: *after_gap,
                since: now,
                waits_for_close: false,
            });
        }
        // The kubelet rotates every few seconds at most: only the second newest file can still be
        // open for writing.
        let sealed = self.files.len().saturating_sub(2);
        self.files
            .iter_mut()
            .take(sealed)
            .for_each(|held| held.is_sealed = true);
        Ok(true)
    }

    /// Returns the file of a position and the files after it, and remembers the others as read.
    fn unread_from(&mut self, listed: &[ListedFile], at: usize, position: &FilePosition) -> Vec<OrderedFile> {
        let mut unread = Vec::new();
        let is_newest = listed[at].name == Name::Current;
        for (index, entry) in listed.iter().enumerate().filter(|(index, _)| *index != at) {
            let head_hash = entry.head_hash();
            let is_read = head_hash.map_or(index < at, |head_hash| position.read.contains(&head_hash));
            if is_read || is_newest {
                self.read.add_listed(entry, head_hash);
            } else {
                unread.push(entry.clone());
            }
        }
        let first = OrderedFile {
            listed: listed[at].clone(),
            after_gap: false,
        };
        let later = order(unread, Some(&listed[at]));
        std::iter::once(first).chain(later).collect()
    }

    /// Returns the files that were not read before a position that is gone, and remembers the others
    /// as read.
    fn not_read_before(&mut self, listed: Vec<ListedFile>, position: &FilePosition) -> Vec<OrderedFile> {
        let mut unread = Vec::new();
        for entry in listed {
            let head_hash = entry.head_hash();
            if head_hash.is_some_and(|head_hash| position.read.contains(&head_hash)) {
                self.read.add_listed(&entry, head_hash);
            } else {
                unread.push(entry);
            }
        }
        order(unread, None)
    }

    /// Returns whether a listed file is neither held nor read.
    fn is_new(&mut self, entry: &ListedFile) -> bool {
        let is_same = |held: &HeldFile| {
            let is_renamed = entry.name != Name::Current && held.file.name == entry.name;
            held.file.id == entry.id || is_renamed
        };
        if self.files.iter().any(is_same) || self.read.contains(entry) {
            return false;
        }
        // A held file may have been compressed under a new name.
        let Some(head_hash) = entry.head_hash() else {
            return true;
        };
        let mut held = self.files.iter_mut();
        !held.any(|held| held.file.head_hash() == Some(head_hash))
    }

    /// Updates the names of the held files.
    fn update_names(&mut self, listed: &[ListedFile]) {
        for held in &mut self.files {
            if let Some(entry) = listed.iter().find(|entry| entry.id == held.file.id) {
                held.file.name = entry.name.clone();
            }
        }
    }

    /// Returns the index of the newest held file in a listing, or `None` if it is gone and files
    /// after it may be, too.
    fn newest_index(&mut self, listed: &[ListedFile]) -> Option<usize> {
        let newest = &mut self.files.back_mut()?.file;
        let same = |entry: &ListedFile| entry.id == newest.id;
        let named = |entry: &ListedFile| matches!(newest.name, Name::Rotated(_)) && entry.name == newest.name;
        if let Some(newest_index) = listed.iter().position(same).or_else(|| listed.iter().position(named)) {
            return Some(newest_index);
        }
        let head_hash = newest.head_hash()?;
        listed.iter().position(|entry| entry.head_hash() == Some(head_hash))
    }
}

impl HeldFile {
    fn read(&mut self, buffer: &mut [u8], now: Instant) -> io::Result<usize> {
        if self.is_broken {
            return Ok(0);
        }
        let read = self.file.read(buffer).inspect_err(|_| {
            (self.is_broken, self.is_sealed) = (true, true);
        })?;
        if read > 0 && self.waits_for_close {
            self.since = now;
        }
        Ok(read)
    }
}

/// Finds the file of a position: the one with its inode if its first line matches, otherwise one
/// whose first line matches.
fn find_position(listed: &[ListedFile], position: &FilePosition) -> Option<usize> {
    let same_head = |entry: &ListedFile| entry.head_hash() == Some(position.head_hash);
    let id = FileId {
        dev: position.dev,
        inode: position.inode,
    };
    let same = listed.iter().position(|entry| entry.id == id && same_head(entry));
    same.or_else(|| listed.iter().position(same_head))
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
