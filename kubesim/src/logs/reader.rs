//! A cursor into a log: from where a request asked, over rotations, in pieces of up to 32 KiB.
//!
//! A reader holds the file it reads, as the kubelet holds its file descriptor. At the end of a rotated file it goes on
//! with the file that is current then: files rotated meanwhile are skipped without a word, as on a real node.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::clock::PREFIX_BYTES;
use super::container_log::{APPEND_BYTES, Chunk, Content, File, Log};

/// A reader of one log.
pub(crate) struct Reader {
    log: Arc<Log>,
    file: Arc<File>,
    next: usize,
    /// Bytes of the next chunk that were asked to be left out.
    skip: usize,
    timestamps: bool,
    /// It does not notice that its file was rotated away.
    stranded: bool,
}

/// Where a reader begins.
#[derive(Debug, Default, Clone)]
pub(crate) struct Start {
    /// Not before this second, as its text `2026-11-23T08:06:08`.
    pub(crate) since: Option<String>,
    /// Not before the last so many lines.
    pub(crate) tail: Option<u64>,
}

impl Reader {
    /// Opens the current file.
    pub(crate) fn open(log: Arc<Log>, start: &Start, timestamps: bool) -> Self {
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
            stranded: false,
        }
    }

    /// From now on it does not notice that its file was rotated away, as a kubelet whose inotify queue overflowed.
    pub(crate) fn strand(&mut self) {
        self.stranded = true;
    }

    /// Returns the next bytes, or `None` at the end of what was written.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        loop {
            let chunks = self.gather();
            if !chunks.is_empty() {
                let data = self.join(&chunks);
                if !data.is_empty() {
                    return Some(data);
                }
                continue;
            }
            if self.stranded {
                return None;
            }
            let current = self.log.current();
            // Sealed files get nothing more, and `gather` saw this one's end: either it is still current, or it
            // grew and was sealed in between, which `gather` must look at first.
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

    /// Takes the next chunks: one, or as many small ones as fit a piece.
    fn gather(&mut self) -> Vec<Chunk> {
        let content = self.file.content();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = content.chunks.get(self.next) {
            bytes += chunk.data.len();
            if !taken.is_empty() && bytes > APPEND_BYTES {
                break;
            }
            taken.push(chunk.clone());
            self.next += 1;
        }
        taken
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

/// Finds the last `lines` lines: (chunk, bytes of it to leave out).
fn seek_tail(content: &Content, lines: u64) -> (usize, usize) {
    let mut wanted = lines;
    for (index, chunk) in content.chunks.iter().enumerate().rev() {
        if wanted == 0 {
            return (index + 1, 0);
        }
        let has = u64::from(chunk.lines);
        if has < wanted {
            wanted -= has;
            continue;
        }
        let surplus = usize::try_from(has - wanted).unwrap_or(usize::MAX);
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

/// Finds the first line at or after a second. Prefixes have one width and zone, so their order is that of their bytes.
fn seek_since(content: &Content, second: &[u8]) -> (usize, usize) {
    let begins_before = |chunk: &Chunk| chunk.continues || chunk.data.as_ref() < second;
    let after = content.chunks.partition_point(begins_before);
    let Some(index) = after.checked_sub(1) else {
        return (0, 0);
    };
    let chunk = &content.chunks[index];
    let mut begin = 0;
    for newline in memchr::memchr_iter(b'\n', &chunk.data) {
        if (begin > 0 || !chunk.continues) && &chunk.data[begin..] >= second {
            return (index, begin);
        }
        begin = newline + 1;
    }
    let last_counts = begin < chunk.data.len() && (begin > 0 || !chunk.continues);
    if last_counts && &chunk.data[begin..] >= second {
        (index, begin)
    } else {
        (after, 0)
    }
}
