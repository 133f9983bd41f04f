//! A cursor into a container log: starts where the request asks, continues over rotations, and
//! returns pieces of up to 32 KiB.
//!
//! A reader holds its file as the kubelet holds a file descriptor. At the end of a rotated file it
//! continues with the current file; files rotated in between are skipped silently, as on a real
//! node.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::clock::PREFIX_BYTES;
use super::container_log::{APPEND_BYTES, Chunk, ContainerLog, FileContent, LogFile};

/// A reader of one container log.
pub(crate) struct LogReader {
    log: Arc<ContainerLog>,
    file: Arc<LogFile>,
    next: usize,
    /// Bytes of the next chunk to skip.
    skip: usize,
    timestamps: bool,
    since: Option<Since>,
    /// Whether the last line of the previous chunk was too old.
    skips_line: bool,
    /// Whether the reader stays at the end of a file that strands follows.
    follows: bool,
    /// Whether the reader misses that its file was rotated.
    misses_rotations: bool,
}

/// The first time to include.
#[derive(Debug, Clone)]
pub(crate) struct Since {
    /// Nanoseconds since the Unix epoch.
    pub(crate) nanos: u64,
    /// The same as text, whole seconds: `2026-11-23T08:06:08`.
    pub(crate) text: String,
}

/// Where a reader starts.
#[derive(Debug, Default, Clone)]
pub(crate) struct ReadStart {
    /// First time to include. Each line is compared with it: times may go back.
    pub(crate) since: Option<Since>,
    /// Maximum number of existing lines to include, counted from the end.
    pub(crate) tail: Option<u64>,
}

impl LogReader {
    /// Opens the current file.
    pub(crate) fn open(log: Arc<ContainerLog>, start: ReadStart, timestamps: bool, follows: bool) -> Self {
        let file = log.current();
        let (next, skip) = start.tail.map_or((0, 0), |lines| seek_tail(&file.content(), lines));
        Self {
            log,
            file,
            next,
            skip,
            timestamps,
            since: start.since,
            skips_line: false,
            follows,
            misses_rotations: false,
        }
    }

    /// Makes the reader miss rotations, as a kubelet does whose inotify queue overflowed.
    pub(crate) fn miss_rotations(&mut self) {
        self.misses_rotations = true;
    }

    /// Returns the next piece, or `None` at the end of the log.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        loop {
            let chunks = self.next_chunks();
            if !chunks.is_empty() {
                let data = self.join(&chunks);
                if !data.is_empty() {
                    return Some(data);
                }
                continue;
            }
            if self.misses_rotations {
                return None;
            }
            let current = self.log.current();
            // A sealed file does not grow. Either this file is still current, or it grew and was
            // sealed after `next_chunks`, which then has to read it again.
            if Arc::ptr_eq(&current, &self.file) {
                return None;
            }
            let (is_read, strands) = {
                let content = self.file.content();
                (content.chunks.len() == self.next, content.strands_follows)
            };
            if is_read && strands && self.follows {
                self.misses_rotations = true;
            } else if is_read {
                self.file = current;
                self.next = 0;
                self.skip = 0;
            }
        }
    }

    /// Returns the next chunk, or as many small chunks as fit one piece.
    fn next_chunks(&mut self) -> Vec<Chunk> {
        let content = self.file.content();
        let mut chunks = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = content.chunks.get(self.next) {
            bytes += chunk.data.len();
            if !chunks.is_empty() && bytes > APPEND_BYTES {
                break;
            }
            chunks.push(chunk.clone());
            self.next += 1;
        }
        chunks
    }

    fn join(&mut self, chunks: &[Chunk]) -> Bytes {
        let skip = std::mem::take(&mut self.skip);
        if let ([only], true) = (chunks, self.timestamps)
            && self.includes(only)
        {
            self.skips_line = false;
            return only.data.slice(skip.min(only.data.len())..);
        }
        let mut out = BytesMut::with_capacity(chunks.iter().map(|chunk| chunk.data.len()).sum());
        for (index, chunk) in chunks.iter().enumerate() {
            let mut data = chunk.data.clone();
            let skipped = if index == 0 { skip.min(data.len()) } else { 0 };
            data.advance(skipped);
            let continues = chunk.continues && skipped == 0;
            if !self.includes(chunk) {
                self.copy_new_lines(&data, continues, &mut out);
                continue;
            }
            self.skips_line = false;
            if self.timestamps {
                out.extend_from_slice(&data);
            } else {
                copy_content(&data, continues, &mut out);
            }
        }
        out.freeze()
    }

    /// Returns whether all lines of a chunk are new enough.
    fn includes(&self, chunk: &Chunk) -> bool {
        let is_new = |since: &Since| chunk.oldest >= since.nanos && !(chunk.continues && self.skips_line);
        self.since.as_ref().is_none_or(is_new)
    }

    /// Copies the lines that are new enough.
    fn copy_new_lines(&mut self, data: &[u8], continues: bool, out: &mut BytesMut) {
        let since = self.since.as_ref().map_or("", |since| &since.text);
        for (line, is_continued) in lines(data, continues) {
            if !is_continued {
                self.skips_line = line < since.as_bytes();
            }
            if !self.skips_line {
                let prefix = if is_continued || self.timestamps {
                    0
                } else {
                    PREFIX_BYTES
                };
                out.extend_from_slice(&line[prefix.min(line.len())..]);
            }
        }
    }
}

/// Splits a chunk into its lines; true: the line continues that of the previous chunk.
fn lines(mut data: &[u8], continues: bool) -> impl Iterator<Item = (&[u8], bool)> {
    let mut is_continued = continues;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', data).map_or(data.len(), |newline| newline + 1);
        let (line, rest) = data.split_at(end);
        data = rest;
        (!line.is_empty()).then(|| (line, std::mem::take(&mut is_continued)))
    })
}

fn copy_content(data: &[u8], continues: bool, out: &mut BytesMut) {
    for (line, is_continued) in lines(data, continues) {
        let prefix = if is_continued { 0 } else { PREFIX_BYTES.min(line.len()) };
        out.extend_from_slice(&line[prefix..]);
    }
}

/// Finds the last `lines` lines: (chunk index, bytes of it to skip).
fn seek_tail(content: &FileContent, lines: u64) -> (usize, usize) {
    let mut remaining = lines;
    for (index, chunk) in content.chunks.iter().enumerate().rev() {
        if remaining == 0 {
            return (index + 1, 0);
        }
        let has = u64::from(chunk.lines);
        if has < remaining {
            remaining -= has;
            continue;
        }
        let surplus = usize::try_from(has - remaining).unwrap_or(usize::MAX);
        let skip = if surplus == 0 && !chunk.continues {
            0
        } else {
            let before = surplus + usize::from(chunk.continues);
            memchr::memchr_iter(b'\n', &chunk.data)
                .nth(before - 1)
                .map_or(0, |newline| newline + 1)
        };
        return (index, skip);
    }
    if lines == 0 { (content.chunks.len(), 0) } else { (0, 0) }
}
