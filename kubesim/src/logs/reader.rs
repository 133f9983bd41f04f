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
    /// Whether the reader misses that its file was rotated.
    misses_rotations: bool,
}

/// Where a reader starts.
#[derive(Debug, Default, Clone)]
pub(crate) struct ReadStart {
    /// First second to include, as text: `2026-11-23T08:06:08`.
    pub(crate) since: Option<String>,
    /// Maximum number of existing lines to include, counted from the end.
    pub(crate) tail: Option<u64>,
}

impl LogReader {
    /// Opens the current file.
    pub(crate) fn open(log: Arc<ContainerLog>, start: &ReadStart, timestamps: bool) -> Self {
        let file = log.current();
        let (next, skip) = {
            let content = file.content();
            let tail = start.tail.map_or((0, 0), |lines| seek_tail(&content, lines));
            let since = start
                .since
                .as_deref()
                .map_or((0, 0), |second| seek_since(&content, second.as_bytes()));
            tail.max(since)
        };
        Self {
            log,
            file,
            next,
            skip,
            timestamps,
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
            if self.file.content().chunks.len() == self.next {
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
        if let ([only], true) = (chunks, self.timestamps) {
            return only.data.slice(skip.min(only.data.len())..);
        }
        let mut out = BytesMut::with_capacity(chunks.iter().map(|chunk| chunk.data.len()).sum());
        for (index, chunk) in chunks.iter().enumerate() {
            let mut data = chunk.data.clone();
            let skipped = if index == 0 { skip.min(data.len()) } else { 0 };
            data.advance(skipped);
            if self.timestamps {
                out.extend_from_slice(&data);
            } else {
                strip_prefixes(&data, chunk.continues && skipped == 0, &mut out);
            }
        }
        out.freeze()
    }
}

fn strip_prefixes(mut data: &[u8], continues: bool, out: &mut BytesMut) {
    let mut bare = continues;
    while !data.is_empty() {
        let end = memchr::memchr(b'\n', data).map_or(data.len(), |newline| newline + 1);
        let (line, rest) = data.split_at(end);
        let prefix = if bare { 0 } else { PREFIX_BYTES.min(line.len()) };
        out.extend_from_slice(&line[prefix..]);
        bare = false;
        data = rest;
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

/// Finds the first line at or after a second. Prefixes have the same width and zone, so byte order
/// is time order.
fn seek_since(content: &FileContent, second: &[u8]) -> (usize, usize) {
    let starts_before = |chunk: &Chunk| chunk.continues || chunk.data.as_ref() < second;
    let after = content.chunks.partition_point(starts_before);
    let Some(index) = after.checked_sub(1) else {
        return (0, 0);
    };
    let chunk = &content.chunks[index];
    let mut line_start = 0;
    for newline in memchr::memchr_iter(b'\n', &chunk.data) {
        if (line_start > 0 || !chunk.continues) && &chunk.data[line_start..] >= second {
            return (index, line_start);
        }
        line_start = newline + 1;
    }
    let has_last_line = line_start < chunk.data.len() && (line_start > 0 || !chunk.continues);
    if has_last_line && &chunk.data[line_start..] >= second {
        (index, line_start)
    } else {
        (after, 0)
    }
}
