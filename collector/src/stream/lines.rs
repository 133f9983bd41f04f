//! Splits frames of a log response into lines, finds the resume point by its anchor, splits long
//! lines, and collects lines into slices that become batches.
//!
//! Copies each frame once into the buffer; nothing is allocated, copied or locked per line.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use bus::{MAX_BATCH_BYTES, MAX_LINE_BYTES, Part, Timestamp};

use crate::{
    anchor::{Anchor, AnchorState, TimestampParser},
    stream::{
        resume_search::{ResumeSearch, SearchResult, Verdict},
        split::split_point,
    },
};

/// Upper bound for data held while the resume point is searched. Between the two resume points lies
/// at most one batch: if more precedes it, only the first of them can be found.
const MAX_UNDECIDED_BYTES: usize = 2 * MAX_BATCH_BYTES;

/// Consecutive complete lines that can be published.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The lines, each ending in a newline; at most [`MAX_BATCH_BYTES`].
    pub data: Bytes,
    /// The number of lines.
    pub lines: u64,
    /// Set if this is one part of a split line.
    pub part: Option<Part>,
    /// The anchor of the last line.
    pub end: Anchor,
}

impl Slice {
    /// Removes the lines in the first `bytes`; `progress` is the anchor state before them.
    pub fn split_front(&mut self, bytes: usize, mut progress: AnchorState) -> Self {
        let data = self.data.split_to(bytes);
        let mut stamps = TimestampParser::default();
        let (mut lines, mut start_response, mut end) = (0, 0, self.end);
        for newline in memchr::memchr_iter(b'\n', &data) {
            progress.advance(stamps.parse(&data[start_response..newline]).map(|(time, _)| time));
            lines += 1;
            if newline + 1 == data.len() {
                end = progress.anchor(&data[start_response..]);
            }
            start_response = newline + 1;
        }
        self.lines -= lines;
        Self {
            data,
            lines,
            part: None,
            end,
        }
    }
}

/// The lines of one container instance across its responses.
///
/// *Memory*: the data not returned by [`next_slice`](Self::next_slice), plus at most one line of
/// [`MAX_LINE_BYTES`]. Nothing when idle.
#[derive(Debug)]
pub struct Lines {
    /// Complete lines (`open` bytes), then the unterminated rest.
    buffer: BytesMut,
    open: usize,
    open_lines: u64,
    /// Start of the last complete line.
    last_start: usize,
    /// The rest has no newline before this offset.
    scanned: usize,
    sealed: VecDeque<Slice>,
    sealed_bytes: usize,
    progress: AnchorState,
    stamps: TimestampParser,
    rest_kind: RestKind,
    search: Option<ResumeSearch>,
    /// The hash of the first line of a response that was searched.
    file: Option<u64>,
}

/// What the rest of the buffer is the start of.
#[derive(Debug)]
enum RestKind {
    /// A line.
    Line,
    /// The remainder of a line that was split; all parts start with this timestamp and space.
    SplitLine(Bytes),
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            open: 0,
            open_lines: 0,
            last_start: 0,
            scanned: 0,
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            progress: AnchorState::START,
            stamps: TimestampParser::default(),
            rest_kind: RestKind::Line,
            search: None,
            file: None,
        }
    }
}

impl Lines {
    /// Starts a new response; buffered data of the previous one is dropped.
    ///
    /// `search`: the resume point to find first; `None`: the first line is the next one.
    pub fn start_response(&mut self, search: Option<ResumeSearch>) {
        *self = Self {
            search,
            ..Self::default()
        };
    }

    /// Adds a frame. Returns the result of the search in the call that decides it.
    pub fn push(&mut self, frame: &[u8]) -> Option<SearchResult> {
        self.buffer.extend_from_slice(frame);
        let mut search_result = None;
        while let Some(found) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
            let newline = self.scanned + found;
            let long = newline - self.open > MAX_LINE_BYTES;
            let decided = if long || !matches!(self.rest_kind, RestKind::Line) {
                self.long_line(newline, true)
            } else {
                self.line(newline)
            };
            search_result = search_result.or(decided);
        }
        self.scanned = self.buffer.len();
        if self.scanned - self.open > MAX_LINE_BYTES {
            search_result = search_result.or(self.long_line(self.scanned, false));
        }
        if let Some(search) = &mut self.search
            && self.sealed_bytes + self.buffer.len() > MAX_UNDECIDED_BYTES
        {
            search.stop_holding();
            self.drop_complete();
        }
        search_result
    }

    /// Ends the search without a match, because the response ended. Returns `None` if it was
    /// decided before.
    pub fn end_search(&mut self) -> Option<SearchResult> {
        let search = self.search.take()?;
        self.file = search.file();
        Some(search.not_found())
    }

    /// Returns the hash of the first line of a response that was searched.
    pub fn file(&self) -> Option<u64> {
        self.file
    }

    /// Returns the next lines to publish, at most one batch; `None` while the search is undecided.
    pub fn next_slice(&mut self) -> Option<Slice> {
        if self.search.is_some() {
            return None;
        }
        if self.sealed.is_empty() {
            self.seal();
        }
        let slice = self.sealed.pop_front()?;
        self.sealed_bytes -= slice.data.len();
        if self.buffer.is_empty() {
            // Releases the allocation that the slice shares, so that an idle stream holds no
            // memory.
            self.buffer = BytesMut::new();
        }
        Some(slice)
    }

    /// Returns the time of the last line read.
    pub fn last_read(&self) -> Option<Timestamp> {
        (self.progress.time != i64::MIN).then_some(Timestamp(self.progress.time))
    }

    /// Returns whether the search is undecided.
    pub fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// Returns the number of complete buffered lines.
    pub fn buffered_lines(&self) -> u64 {
        self.sealed.iter().map(|slice| slice.lines).sum::<u64>() + self.open_lines
    }

    /// Returns the number of buffered bytes.
    pub fn buffered_bytes(&self) -> usize {
        self.sealed_bytes + self.buffer.len()
    }

    /// Returns the text after the last newline, without parts already split off.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.open..]
    }

    /// Returns whether the rest starts at the start of a line, where a timestamp is expected.
    pub fn rest_starts_line(&self) -> bool {
        matches!(self.rest_kind, RestKind::Line)
    }

    /// Drops the rest.
    pub fn drop_rest(&mut self) {
        self.buffer.truncate(self.open);
        self.scanned = self.open;
        self.rest_kind = RestKind::Line;
    }

    /// Terminates the rest as a line, after the container has ended.
    pub fn finish_rest(&mut self) {
        if !self.rest().is_empty() || !self.rest_starts_line() {
            self.push(b"\n");
        }
    }

    /// Handles a line of normal length that ends at `newline`.
    #[inline]
    fn line(&mut self, newline: usize) -> Option<SearchResult> {
        let stamp = self.stamps.parse(&self.buffer[self.open..newline]);
        let mut end = newline + 1;
        if end > MAX_BATCH_BYTES {
            end -= self.open;
            self.seal();
        }
        self.progress.advance(stamp.map(|(time, _)| time));
        self.last_start = self.open;
        self.open = end;
        self.open_lines += 1;
        self.scanned = end;
        let search = self.search.as_mut()?;
        let verdict = search.check_line(&self.progress, &self.buffer[self.last_start..end]);
        self.apply_verdict(verdict)
    }

    /// Handles a line longer than the limit, or its remainder, up to `end`; `ended`: a newline
    /// follows.
    #[cold]
    fn long_line(&mut self, end: usize, ended: bool) -> Option<SearchResult> {
        let mut end = end - self.open;
        self.seal();
        if let RestKind::Line = self.rest_kind {
            let stamp = self.stamps.parse(&self.buffer[..end]);
            let prefix = stamp.map_or(0, |(_, len)| len);
            if end - prefix <= MAX_LINE_BYTES {
                // Only the timestamp makes it exceed the limit.
                self.scanned = end;
                return if ended { self.line(end) } else { None };
            }
            let prefix = self.buffer.split_to(prefix).freeze();
            end -= prefix.len();
            self.rest_kind = RestKind::SplitLine(prefix);
        }
        let RestKind::SplitLine(prefix) = &self.rest_kind else {
            return None;
        };
        let prefix = prefix.clone();
        let mut search_result = None;
        while end > MAX_LINE_BYTES {
            let text = self.buffer.split_to(split_point(&self.buffer[..end], MAX_LINE_BYTES));
            end -= text.len();
            search_result = search_result.or(self.part(&prefix, &text, Part::More));
        }
        if ended {
            let text = self.buffer.split_to(end);
            self.buffer.advance(1);
            self.rest_kind = RestKind::Line;
            end = 0;
            search_result = search_result.or(self.part(&prefix, &text, Part::Last));
        }
        self.scanned = end;
        search_result
    }

    /// Adds one part of a long line as a line with the same timestamp.
    fn part(&mut self, prefix: &[u8], text: &[u8], part: Part) -> Option<SearchResult> {
        let data: Bytes = [prefix, text, b"\n"].concat().into();
        let time = self.stamps.parse(&data).map(|(time, _)| time);
        self.progress.advance(time);
        self.sealed_bytes += data.len();
        self.sealed.push_back(Slice {
            data: data.clone(),
            lines: 1,
            part: Some(part),
            end: self.progress.anchor(&data),
        });
        let verdict = self.search.as_mut()?.check_line(&self.progress, &data);
        self.apply_verdict(verdict)
    }

    /// Drops, keeps or releases buffered lines according to the search.
    fn apply_verdict(&mut self, verdict: Verdict) -> Option<SearchResult> {
        match verdict {
            Verdict::Hold => None,
            Verdict::Drop => {
                self.drop_complete();
                None
            }
            Verdict::Decided(search_result, point) => {
                self.file = self.search.take().and_then(|search| search.file());
                if let Some(point) = point {
                    self.progress.high = self.progress.high.max(point.anchor.high);
                }
                if search_result == SearchResult::Confirmed {
                    self.drop_complete();
                }
                Some(search_result)
            }
        }
    }

    fn drop_complete(&mut self) {
        self.sealed.clear();
        self.sealed_bytes = 0;
        self.buffer.advance(self.open);
        self.scanned -= self.open;
        (self.open, self.open_lines) = (0, 0);
    }

    /// Makes a slice of the complete lines; the buffer then starts with the rest.
    fn seal(&mut self) {
        if self.open == 0 {
            return;
        }
        let end = self.progress.anchor(&self.buffer[self.last_start..self.open]);
        let data = self.buffer.split_to(self.open).freeze();
        self.sealed_bytes += data.len();
        self.sealed.push_back(Slice {
            data,
            lines: self.open_lines,
            part: None,
            end,
        });
        self.scanned -= self.open;
        (self.open, self.open_lines) = (0, 0);
    }
}

#[cfg(test)]
mod tests;
