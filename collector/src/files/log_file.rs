//! One file of a container's log, plain or compressed.

use std::{
    fs::{File, Metadata},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use super::path::Name;
use crate::anchor::fingerprint;

/// By so many first bytes, or fewer where its first line is shorter, a file is known again under another name, compressed or not: they hold the first line's
/// time, to the nanosecond.
const HEAD_BYTES: usize = 256;

/// Compressed bytes that are read at once.
const GZ_READ_BYTES: usize = 64 << 10;

/// Which file, as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Its device.
    pub dev: u64,
    /// Its inode there; of a file that was removed it can become another's.
    pub inode: u64,
}

impl FileId {
    /// Of a file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A file of a container's log, open: what it holds can be read even after the node has removed it.
pub struct LogFile {
    /// Which one.
    pub id: FileId,
    /// What it was last called.
    pub name: Name,
    source: Source,
    /// Bytes that were read, uncompressed.
    offset: u64,
    head_hash: Option<u64>,
}

enum Source {
    Plain(File),
    Gz(Box<MultiGzDecoder<BufReader<File>>>),
}

impl LogFile {
    /// Opens the file of this path.
    ///
    /// # Errors
    /// The system's; `NotFound` where it has just been renamed or removed.
    pub fn open(path: &Path, name: Name, is_gz: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let id = FileId::of(&file.metadata()?);
        let (source, head_hash) = if is_gz {
            let file = BufReader::with_capacity(GZ_READ_BYTES, file);
            let source = Source::Gz(Box::new(MultiGzDecoder::new(file)));
            (source, read_head_hash(path, true))
        } else {
            (Source::Plain(file), None)
        };
        Ok(Self {
            id,
            name,
            source,
            offset: 0,
            head_hash,
        })
    }

    /// Reads on. 0: there is nothing more for now.
    ///
    /// # Errors
    /// The system's, or what is wrong with the compressed bytes.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.source {
            Source::Plain(file) => file.read(buffer)?,
            Source::Gz(decoder) => decoder.read(buffer)?,
        };
        self.offset += read as u64;
        Ok(read)
    }

    /// Goes on behind so many bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read); `UnexpectedEof` where it is shorter.
    pub fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        let has = match &mut self.source {
            Source::Plain(file) => {
                file.seek(SeekFrom::Start(offset))?;
                file.metadata()?.len() >= offset
            }
            Source::Gz(decoder) => io::copy(&mut decoder.by_ref().take(offset), &mut io::sink())? == offset,
        };
        self.offset = offset;
        has.then_some(()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Bytes that were read, uncompressed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether nothing more is ever written to it.
    pub fn is_sealed(&self) -> bool {
        matches!(self.source, Source::Gz(_))
    }

    /// Begins it again where it is shorter than what was read of it. Whether it was.
    ///
    /// # Errors
    /// The system's.
    pub fn restart_if_truncated(&mut self) -> io::Result<bool> {
        let Source::Plain(file) = &mut self.source else {
            return Ok(false);
        };
        let truncated = file.metadata()?.len() < self.offset;
        if truncated {
            file.rewind()?;
            (self.offset, self.head_hash) = (0, None);
        }
        Ok(truncated)
    }

    /// What its first line is known by. `None`: it has none yet.
    pub fn head_hash(&mut self) -> Option<u64> {
        if self.head_hash.is_none()
            && let Source::Plain(file) = &self.source
        {
            let mut head_hash = [0; HEAD_BYTES];
            let read = file.read_at(&mut head_hash, 0).unwrap_or_default();
            self.head_hash = hash_head(&head_hash[..read]);
        }
        self.head_hash
    }
}

/// By what a file is known. `None`: it has no line yet, or cannot be read.
pub fn read_head_hash(path: &Path, is_gz: bool) -> Option<u64> {
    let file = File::open(path).ok()?;
    let mut head_hash = Vec::with_capacity(HEAD_BYTES);
    let most = HEAD_BYTES as u64;
    if is_gz {
        let decoder = MultiGzDecoder::new(BufReader::new(file));
        decoder.take(most).read_to_end(&mut head_hash).ok()?;
    } else {
        file.take(most).read_to_end(&mut head_hash).ok()?;
    }
    hash_head(&head_hash)
}

fn hash_head(start: &[u8]) -> Option<u64> {
    let end = match memchr::memchr(b'\n', start) {
        Some(newline) => newline + 1,
        None if start.len() == HEAD_BYTES => HEAD_BYTES,
        None => return None,
    };
    Some(fingerprint(&start[..end]))
}
