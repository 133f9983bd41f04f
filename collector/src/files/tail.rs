//! One container's files across rotations: every byte once, in order, or a hole that is known.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    assemble::LineAssembler,
    listing::{ListedFile, list},
    log_file::{FileId, LogFile},
    path::Name,
};
use crate::publish::file_checkpoint::FilePosition;

/// What is read at once: a few thousand lines, and well below a millisecond.
const READ_BYTES: usize = 256 << 10;

/// Room that a container keeps while it is quiet: what it prints now and then is read in one piece. While a read fills it, it grows.
const QUIET_BYTES: usize = 8 << 10;

/// A rotated file may still get a last entry after the next one is there: the runtime reopens first and then lets go of the old one. Where it was not seen to
/// let go, the file must have been quiet for so long before it counts as complete. In the runtime it is a matter of microseconds.
const SETTLE: Duration = Duration::from_millis(500);

/// The most files of a container that are held open, unread. Held files are read even after the node removed them, and take its disk until then; a node keeps 5.
const MAX_HELD: usize = 8;

/// A container's directory is listed again where a file was renamed meanwhile; so often at most, and then later.
const LIST_TRIES: usize = 5;

/// One container instance's files, the oldest unread one first.
///
/// Files that are there are held open from the moment in which they are seen, so that a rotation that overtakes the reading takes nothing away.
///
/// *Memory*: what is read at once while there is more, 8 KiB while quiet.
pub struct Tail {
    dir: PathBuf,
    number: u32,
    files: VecDeque<HeldFile>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are read and not yet taken: the beginning of a line.
    rest: usize,
}

struct HeldFile {
    file: LogFile,
    /// Between it and the one before there may have been others.
    after_gap: bool,
    /// Nothing more comes into it: its writer was seen to let go of it, it was compressed, or it is older than the one before the newest.
    is_sealed: bool,
    /// It cannot be read on.
    is_broken: bool,
    /// When it ceased to be the newest, or last grew after that.
    since: Instant,
    is_settling: bool,
}

/// What opening a container's files came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// There is no file yet, or none any more.
    Missing,
    /// They are read from where it was asked.
    Found,
    /// The place that was asked for is gone: they are read from the oldest that is left.
    PositionGone,
}

/// What a turn of reading came to.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// There may be more at once.
    Read,
    /// The file's end was reached, and the next one is there: it is certain at this time that nothing more comes.
    Settling(Instant),
    /// Now the next file is read; `after_hole`: files between may be missing. The same where a file was truncated.
    Next {
        /// What was not read may be lost.
        after_gap: bool,
    },
    /// Everything was read.
    Idle,
}

impl Tail {
    /// Of the instance that came after `number` others, in this directory.
    pub fn new(dir: PathBuf, number: u32) -> Self {
        Self {
            dir,
            number,
            files: VecDeque::new(),
            buffer: Vec::new(),
            rest: 0,
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many instances came before.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Opens what is there, from this place on, or from the beginning.
    ///
    /// # Errors
    /// The system's, but for a directory that does not exist.
    pub fn open(&mut self, from: Option<&FilePosition>, now: Instant) -> io::Result<Opened> {
        for _ in 0..LIST_TRIES {
            self.files.clear();
            let listed = list(&self.dir, self.number)?;
            if listed != list(&self.dir, self.number)? {
                continue;
            }
            if listed.is_empty() {
                return Ok(Opened::Missing);
            }
            let found = from.and_then(|position| find_position(&listed, position).map(|at| (at, position)));
            let first = found.map_or(0, |(at, _)| at);
            if !self.hold(&listed[first..], false, now)? {
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
                // The same first line and shorter: what was had is gone.
                _ => self.reopen(now),
            };
        }
        Ok(Opened::Missing)
    }

    fn reopen(&mut self, now: Instant) -> io::Result<Opened> {
        Ok(match self.open(None, now)? {
            Opened::Found => Opened::PositionGone,
            other => other,
        })
    }

    /// Looks for files that are new. Whether there are.
    ///
    /// # Errors
    /// The system's, but for a directory that does not exist.
    pub fn scan(&mut self, now: Instant) -> io::Result<bool> {
        for _ in 0..LIST_TRIES {
            let before = self.files.len();
            let listed = list(&self.dir, self.number)?;
            if listed.is_empty() || before >= MAX_HELD {
                return Ok(false);
            }
            // A rename in the midst of it can hide a file.
            if listed != list(&self.dir, self.number)? {
                continue;
            }
            self.update_names(&listed);
            let newest_index = self.newest_index(&listed);
            let new_files = &listed[newest_index.map_or(0, |newest_index| newest_index + 1)..];
            if self.hold(new_files, newest_index.is_none(), now)? {
                return Ok(self.files.len() > before);
            }
            self.files.truncate(before);
        }
        Ok(false)
    }

    /// A file's writer let go of it, under this name: nothing more comes into it.
    pub fn mark_closed(&mut self, name: &Name) {
        // The current one's writer may come back.
        let rotated = self
            .files
            .iter_mut()
            .filter(|held| matches!(held.file.name, Name::Rotated(_)));
        for held in rotated.filter(|held| held.file.name == *name) {
            held.is_sealed = true;
        }
    }

    /// Reads on, at most so much that others wait for less than a millisecond, into the joiner.
    ///
    /// # Errors
    /// The system's: the file at hand is given up with what was not read of it.
    pub fn read_next(&mut self, assembler: &mut LineAssembler, now: Instant) -> io::Result<ReadOutcome> {
        let Some(held) = self.files.front_mut() else {
            return Ok(ReadOutcome::Idle);
        };
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

    /// The front's end was reached: goes on with the next, where that is there and nothing more can come.
    fn at_end(&mut self, assembler: &mut LineAssembler, now: Instant) -> ReadOutcome {
        self.buffer.truncate(self.rest.max(QUIET_BYTES));
        self.buffer.shrink_to_fit();
        let after_gap = match self.files.get(1) {
            Some(next) => next.after_gap || self.files[0].is_broken,
            None => return ReadOutcome::Idle,
        };
        let front = &mut self.files[0];
        let settled = front.since + SETTLE;
        if !front.is_sealed && now < settled {
            front.is_settling = true;
            return ReadOutcome::Settling(settled);
        }
        self.finish_rest(assembler);
        self.files.pop_front();
        ReadOutcome::Next { after_gap }
    }

    /// Whether the file at hand cannot be read on.
    pub fn is_broken(&self) -> bool {
        self.files.front().is_some_and(|held| held.is_broken)
    }

    /// Everything was read, and nothing more comes: what stands behind the last newline is a line too.
    pub fn finish_rest(&mut self, assembler: &mut LineAssembler) {
        if self.rest > 0 {
            assembler.line(&self.buffer[..self.rest]);
            self.rest = 0;
        }
    }

    /// Where the next line begins. `None`: in a file without a line.
    pub fn position(&mut self) -> Option<FilePosition> {
        let file = &mut self.files.front_mut()?.file;
        let FileId { dev, inode } = file.id;
        Some(FilePosition {
            dev,
            inode,
            head_hash: file.head_hash()?,
            offset: file.offset() - self.rest as u64,
        })
    }

    /// Takes complete lines of what is filled; the rest stays.
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
            // The runtime writes no line of this length.
            None if filled >= READ_BYTES => {
                assembler.unrecognized(data, false);
                self.rest = 0;
            }
            None => self.rest = filled,
        }
    }

    /// Holds files, in this order. False: one was renamed or removed since it was listed.
    fn hold(&mut self, listed: &[ListedFile], after_gap: bool, now: Instant) -> io::Result<bool> {
        for (at, entry) in listed.iter().enumerate() {
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
                after_gap: after_gap && at == 0,
                since: now,
                is_settling: false,
            });
        }
        // The kubelet rotates every few seconds at most: only the newest before the current one can be being let go of.
        let sealed = self.files.len().saturating_sub(2);
        self.files
            .iter_mut()
            .take(sealed)
            .for_each(|held| held.is_sealed = true);
        Ok(true)
    }

    /// Notes what the files that are held are called now.
    fn update_names(&mut self, listed: &[ListedFile]) {
        for held in &mut self.files {
            if let Some(entry) = listed.iter().find(|entry| entry.id == held.file.id) {
                held.file.name = entry.name.clone();
            }
        }
    }

    /// Where the newest file that is held stands among these. `None`: it is gone, and what came behind it may be, too.
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
        if read > 0 && self.is_settling {
            self.since = now;
        }
        Ok(read)
    }
}

/// The file of a place: the one with its inode where that still begins alike, or another that does.
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
