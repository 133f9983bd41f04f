//! Reads one log file, plain or compressed.

use std::{
    io::{self, BufReader, Read},
    path::Path,
};

use bus::Timestamp;
use flate2::bufread::MultiGzDecoder;
use system::files::{File, Metadata, Reader};

use super::path::Name;
use crate::anchor::fingerprint;

/// Number of leading bytes (fewer if the first line is shorter) whose hash identifies a file after
/// a rename or compression: they contain the time of the first line in nanoseconds.
const HEAD_BYTES: usize = 256;

/// Buffer size for compressed input.
const GZ_READ_BYTES: usize = 64 << 10;

/// Identifies a file while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The device.
    pub dev: u64,
    /// The inode. It can be reused after the file was removed.
    pub inode: u64,
}

impl FileId {
    /// Takes the identity from metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.device,
            inode: metadata.inode,
        }
    }
}

/// An open log file. It stays readable after the node has removed it.
pub struct LogFile {
    /// The file's identity.
    pub id: FileId,
    /// The file's last known name.
    pub name: Name,
    source: Source,
    /// Uncompressed bytes read.
    offset: u64,
    head_hash: Option<u64>,
}

enum Source {
    Plain(File),
    Gz(Box<MultiGzDecoder<BufReader<Reader>>>),
}

impl LogFile {
    /// Opens a file.
    ///
    /// # Errors
    /// I/O errors; `NotFound` if it was just renamed or removed.
    pub fn open(path: &Path, name: Name, is_gz: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let id = FileId::of(&file.metadata()?);
        let (source, head_hash) = if is_gz {
            let file = BufReader::with_capacity(GZ_READ_BYTES, Reader::new(file));
            let source = Source::Gz(Box::new(MultiGzDecoder::new(file)));
            (source, read_head_hash(path, true))
        } else {
            (Source::Plain(file), None)
        };
        let mut file = Self {
            id,
            name,
            source,
            offset: 0,
            head_hash,
        };
        // It can be truncated before it is read.
        file.head_hash();
        Ok(file)
    }

    /// Reads more data. Returns 0 if there is none at the moment.
    ///
    /// # Errors
    /// I/O errors, or invalid compressed data.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.source {
            Source::Plain(file) => file.read_at(buffer, self.offset)?,
            Source::Gz(decoder) => decoder.read(buffer)?,
        };
        self.offset += read as u64;
        if read > 0 {
            self.head_hash();
        }
        Ok(read)
    }

    /// Skips to an offset.
    ///
    /// # Errors
    /// As [`read`](Self::read); `UnexpectedEof` if the file is shorter.
    pub fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        let has = match &mut self.source {
            Source::Plain(file) => file.metadata()?.len >= offset,
            Source::Gz(decoder) => io::copy(&mut decoder.by_ref().take(offset), &mut io::sink())? == offset,
        };
        self.offset = offset;
        has.then_some(()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Returns the number of uncompressed bytes read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns whether the file cannot grow any more.
    pub fn is_sealed(&self) -> bool {
        matches!(self.source, Source::Gz(_))
    }

    /// Starts over if the file begins with another line than before, or is empty, because it was
    /// truncated. Returns whether it did.
    pub fn restart_if_rewritten(&mut self) -> bool {
        let (Source::Plain(file), Some(head_hash)) = (&self.source, self.head_hash) else {
            return false;
        };
        let is_empty = file.metadata().is_ok_and(|metadata| metadata.len == 0);
        self.head_hash = None;
        let is_rewritten = is_empty || self.head_hash().is_some_and(|now| now != head_hash);
        if is_rewritten {
            self.offset = 0;
        } else {
            self.head_hash = Some(head_hash);
        }
        is_rewritten
    }

    /// Starts over if the file is shorter than what was read of it, and returns whether it did.
    ///
    /// # Errors
    /// I/O errors.
    pub fn restart_if_truncated(&mut self) -> io::Result<bool> {
        let Source::Plain(file) = &self.source else {
            return Ok(false);
        };
        let truncated = file.metadata()?.len < self.offset;
        if truncated {
            (self.offset, self.head_hash) = (0, None);
        }
        Ok(truncated)
    }

    /// Returns the hash that identifies the file, or `None` if it has no line yet.
    pub fn head_hash(&mut self) -> Option<u64> {
        if self.head_hash.is_none()
            && let Source::Plain(file) = &self.source
        {
            let mut head = [0; HEAD_BYTES];
            let read = file.read_at(&mut head, 0).unwrap_or_default();
            self.head_hash = hash_head(&head[..read]);
        }
        self.head_hash
    }
}

/// Returns the hash that identifies a file, or `None` if it has no line yet or cannot be read.
pub fn read_head_hash(path: &Path, is_gz: bool) -> Option<u64> {
    let file = Reader::new(File::open(path).ok()?);
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let limit = HEAD_BYTES as u64;
    if is_gz {
        let decoder = MultiGzDecoder::new(BufReader::new(file));
        decoder.take(limit).read_to_end(&mut head).ok()?;
    } else {
        file.take(limit).read_to_end(&mut head).ok()?;
    }
    hash_head(&head)
}

/// Returns the times of the first and the last line of a file, in nanoseconds since 1970; `None` if
/// it has no line or cannot be read. Blocks while reading the end of a plain file, or all of a
/// compressed one.
pub fn read_time_span(path: &Path, is_gz: bool) -> Option<(i64, i64)> {
    let file = File::open(path).ok()?;
    let mut end = Vec::new();
    let mut head = Vec::new();
    if is_gz {
        let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(GZ_READ_BYTES, Reader::new(file)));
        decoder.by_ref().take(END_BYTES).read_to_end(&mut head).ok()?;
        end.extend_from_slice(&head);
        let mut chunk = Vec::new();
        while decoder.by_ref().take(END_BYTES).read_to_end(&mut chunk).ok()? > 0 {
            end.extend_from_slice(&chunk);
            let surplus = end.len().saturating_sub(2 * END_BYTES as usize);
            end.drain(..surplus);
            chunk.clear();
        }
    } else {
        let len = file.metadata().ok()?.len;
        for (buffer, at) in [(&mut head, 0), (&mut end, len.saturating_sub(END_BYTES))] {
            buffer.resize(END_BYTES as usize, 0);
            let read = file.read_at(buffer, at).ok()?;
            buffer.truncate(read);
        }
    }
    let time = |line: &[u8]| Timestamp::split_line(line).map(|(time, _)| time.0);
    let first = time(&head)?;
    let lines = end.rsplit(|byte| *byte == b'\n');
    // The end may begin within a line, whose text can look like a time.
    let last = lines.skip(1).find_map(time).unwrap_or(first);
    Some((first, last))
}

/// Bytes at the start and the end of a file that have a line: the runtime splits lines at 16 KiB.
const END_BYTES: u64 = 64 << 10;

fn hash_head(start: &[u8]) -> Option<u64> {
    let end = match memchr::memchr(b'\n', start) {
        Some(newline) => newline + 1,
        None if start.len() == HEAD_BYTES => HEAD_BYTES,
        None => return None,
    };
    Some(fingerprint(&start[..end]))
}
