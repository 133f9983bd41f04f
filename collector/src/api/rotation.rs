//! Detects log files that a follow skipped.
//!
//! The API serves only the current file, and a kubelet that falls behind silently skips rotated
//! files. The start of the current file is therefore probed while a container writes much, and when
//! a follow delivers late after a silence. If the follow is not in that file yet, the file must
//! still arrive. If it is, the position of its first line is known: there the skipped files are
//! recorded.
//!
//! Clocks only decide when to probe.

use std::{sync::Arc, time::Duration};

use bus::Timestamp;
use bytes::BytesMut;
use system::clock::{Instant, since, steady};
use tokio::time::timeout;

use super::request::{LogRequest, LogResponse};
use crate::{
    anchor::{Anchor, ResumePoint},
    instance::Instance,
    stream::{
        expected_files::FileStart,
        lines::Lines,
        resume_search::{ResumeSearch, SearchResult, Unmatched},
    },
};

/// Minimum time between two probes. A kubelet checks for rotation every 10 s (3 s at the fastest),
/// so no file appears and disappears between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(1500);

/// A follow that delivers less between two probes, and does not lag, cannot have skipped a file:
/// the smallest rotated file has twice this size.
const PROBE_AFTER_BYTES: usize = 512 << 10;

/// After a silence, a frame is late if its last line arrives this much later than the follow's
/// fastest one: it was written during the silence. Independent of clock offsets.
const LATE: Duration = Duration::from_millis(600);

/// Within a shorter silence a log is rotated at most once, and no file is skipped.
const SILENCE: Duration = Duration::from_secs(3);

/// Bytes that a probe reads: a few lines.
const PROBE_BYTES: u32 = 2048;

/// Time limit for a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a follow is, at the time of a probe.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The last line that was numbered.
    pub last: Option<ResumePoint>,
    /// A late frame followed a silence, and the last line that was numbered before it.
    pub silence: Option<Option<Anchor>>,
    /// The file that the follow is known to be in.
    pub file: Option<u64>,
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// The start of the current file.
    pub start: FileStart,
    /// Where the follow is.
    pub place: Place,
}

/// Where a follow is, compared with the current file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It was already known to be there, or has been there since before the silence.
    Unchanged,
    /// It is there, and the first line of the file has this sequence number.
    Reached { first_seq: u64 },
    /// It has not reached it.
    Behind,
}

/// Where a stream was before a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence {
    /// The last line that was numbered.
    pub last: Option<Anchor>,
    /// The sequence number of the next line.
    pub next_seq: u64,
}

/// What the end of a probe decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// It was for a late frame after a silence.
    pub follows_silence: bool,
    /// The sequence number at which files may have been skipped during that silence, because the
    /// probe came too late to tell.
    pub unproved: Option<u64>,
}

/// Schedules probes of the current file and keeps what they found.
#[derive(Debug)]
pub struct RotationProbe {
    last_probe: Instant,
    bytes: usize,
    /// Nothing arrived before the last probe.
    is_silent: bool,
    lag: Lag,
    last_frame: Instant,
    /// A late frame followed a silence.
    silence: Option<Silence>,
    /// The last probe had no answer: what it was for is still unknown.
    has_failed: bool,
    file: Option<u64>,
}

/// How late a container's lines arrive, compared with its fastest ones. Before the first line, the
/// clocks of node and collector are assumed to agree.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// The steady clock's reading when the wall clock read `wall`.
    started: Instant,
    wall: i64,
    min: i64,
    last: i64,
}

impl Lag {
    /// Starts measuring.
    pub fn new() -> Self {
        Self {
            started: steady(),
            wall: Timestamp::now().0,
            min: 0,
            last: 0,
        }
    }

    /// Accounts for a line that arrives now. Returns whether it is late.
    fn is_late(&mut self, time: i64) -> bool {
        self.last = self
            .wall
            .saturating_add(nanos(since(self.started)))
            .saturating_sub(time);
        self.min = self.min.min(self.last);
        self.last.saturating_sub(self.min) > nanos(LATE)
    }
}

impl RotationProbe {
    /// Creates the schedule of a follow that was just opened.
    pub fn new(lag: Lag) -> Self {
        let now = steady();
        Self {
            last_probe: now,
            bytes: 0,
            is_silent: false,
            lag,
            last_frame: now,
            silence: None,
            has_failed: false,
            file: None,
        }
    }

    /// Returns whether a frame that arrives now follows a silence.
    pub fn follows_silence(&self) -> bool {
        since(self.last_frame) >= SILENCE
    }

    /// Accounts for a frame. `first_time`: the time of its first line, if it follows a silence: what
    /// comes after it can be from another file, and on time; `last_time`: that of its last line;
    /// `before`: where the stream was before it.
    pub fn received(&mut self, bytes: usize, first_time: Option<i64>, last_time: Option<i64>, before: Silence) {
        self.bytes += bytes;
        let silence = since(std::mem::replace(&mut self.last_frame, steady()));
        let is_first_late = first_time.is_some_and(|time| self.lag.is_late(time));
        let Some(last_time) = last_time else { return };
        let is_late = self.lag.is_late(last_time) || is_first_late;
        if silence >= SILENCE && is_late {
            self.silence.get_or_insert(before);
        }
    }

    /// Returns when a probe is due; `expects_file`: the follow has not reached a file that a probe
    /// saw.
    pub fn due_at(&self, expects_file: bool) -> Option<Instant> {
        if self.silence.is_some() && !self.has_failed {
            return Some(steady());
        }
        let expects_file = expects_file || self.silence.is_some();
        let is_wanted = expects_file || self.bytes >= PROBE_AFTER_BYTES;
        is_wanted.then(|| self.last_probe + PROBE_INTERVAL)
    }

    /// Returns whether nothing arrived since the probe before the last one.
    pub fn is_silent(&self) -> bool {
        self.is_silent && self.bytes == 0
    }

    /// Returns how late lines arrive.
    pub fn lag(&self) -> Lag {
        self.lag
    }

    /// Marks the start of a probe. Returns where the follow is.
    pub fn start(&mut self, last: Option<ResumePoint>, reached: Option<u64>) -> Position {
        self.is_silent = self.bytes == 0;
        (self.last_probe, self.bytes) = (steady(), 0);
        self.file = reached.or(self.file);
        Position {
            last,
            silence: self.silence.map(|silence| silence.last),
            file: self.file,
        }
    }

    /// Marks the end of a probe. Without an answer it is made again.
    pub fn finish(&mut self, result: Option<&ProbeResult>) -> Finished {
        let was_repeated = std::mem::replace(&mut self.has_failed, result.is_none());
        let Some(ProbeResult { start, place }) = result else {
            return Finished::default();
        };
        if let Place::Unchanged | Place::Reached { .. } = place {
            self.file = Some(start.hash);
        }
        // The node's clock may have stepped back.
        self.lag.min = self.lag.last;
        let silence = self.silence.take();
        // Other files may have come and gone since the probe that had no answer.
        let is_unproved = was_repeated && *place != Place::Unchanged;
        Finished {
            follows_silence: silence.is_some(),
            unproved: silence.filter(|_| is_unproved).map(|silence| silence.next_seq),
        }
    }

    /// Returns the sequence number at which files may have been skipped, if no probe has answered
    /// that.
    pub fn unanswered(&self) -> Option<u64> {
        self.silence.filter(|_| self.has_failed).map(|silence| silence.next_seq)
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Looks for the follow in the current file. Returns `None` if that cannot be read.
pub async fn probe(client: kube::Client, instance: Arc<Instance>, position: Position) -> Option<ProbeResult> {
    let start = timeout(PROBE_TIMEOUT, read_start(&client, &instance)).await.ok()??;
    if position.file == Some(start.hash) {
        let place = Place::Unchanged;
        return Some(ProbeResult { start, place });
    }
    let place = timeout(PROBE_TIMEOUT, locate(&client, &instance, &start, position));
    let place = place.await.ok()??;
    Some(ProbeResult { start, place })
}

async fn read_start(client: &kube::Client, instance: &Instance) -> Option<FileStart> {
    let request = LogRequest {
        limit_bytes: Some(PROBE_BYTES),
        ..LogRequest::default()
    };
    let LogResponse::LogBody(mut log) = request.send(client, instance).await else {
        return None;
    };
    let mut body = BytesMut::new();
    while body.len() < PROBE_BYTES as usize
        && let Some(Ok(frame)) = log.next().await
    {
        body.extend_from_slice(&frame);
    }
    FileStart::parse(&body.freeze())
}

/// Looks for the last lines of a follow in the whole file. Returns `None` if it cannot be read, or
/// is another file.
async fn locate(client: &kube::Client, instance: &Instance, start: &FileStart, position: Position) -> Option<Place> {
    let LogResponse::LogBody(mut log) = LogRequest::default().send(client, instance).await else {
        return None;
    };
    let mut lines = Lines::default();
    lines.start_response(ResumeSearch::locating(position.last, position.silence.flatten()));
    let mut result = None;
    while result.is_none() {
        match log.next().await {
            Some(Ok(frame)) => result = lines.push(&frame),
            Some(Err(_)) => return None,
            None => break,
        }
    }
    match result.or_else(|| lines.end_search())? {
        SearchResult::Located { file, .. } if file != start.hash => None,
        SearchResult::Located { lines: None, .. } => Some(Place::Unchanged),
        SearchResult::Located { lines: Some(lines), .. } => {
            let seq_end = position.last.map_or(0, |last| last.seq_end);
            Some(Place::Reached {
                first_seq: seq_end.saturating_sub(lines),
            })
        }
        SearchResult::NotFound(Unmatched { file, .. }) if file == Some(start.hash) => Some(Place::Behind),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_frame_that_is_late_after_a_silence_is_probed_at_once() {
        let mut probe = RotationProbe::new(Lag::new());
        let (started, wall) = (steady(), Timestamp::now().0);
        for (pause, lag, is_due) in [(10, 0, false), (1, 2, false), (4, 4, true)] {
            tokio::time::advance(Duration::from_secs(pause)).await;
            let printed = since(started).saturating_sub(Duration::from_secs(lag));
            probe.received(100, None, Some(wall + nanos(printed)), Silence::default());
            assert_eq!(probe.due_at(false).is_some(), is_due, "pause {pause} s, lag {lag} s");
        }
        probe.start(None, None);
        assert_eq!(probe.finish(None), Finished::default());
        assert_eq!(probe.unanswered(), Some(0));
        assert_eq!(probe.due_at(false), Some(steady() + PROBE_INTERVAL), "it had no answer");
        probe.start(None, None);
        let start = FileStart::parse(&"2026-01-01T00:00:00Z line\n".into()).unwrap();
        let result = ProbeResult {
            start,
            place: Place::Unchanged,
        };
        assert!(probe.finish(Some(&result)).follows_silence && probe.due_at(false).is_none());
        assert!(probe.due_at(true).is_some());
    }
}
