//! Detects log files that a follow skipped.
//!
//! The API serves only the current file, and a kubelet that falls behind silently skips rotated
//! files. The start of the current file is therefore probed from time to time. A line seen there
//! must arrive; if the follow passes its time without it, the whole file was skipped and a gap is
//! recorded.

use std::time::Duration;

use bus::Timestamp;
use bytes::{Bytes, BytesMut};
use system::clock::{Instant, since, steady};
use tokio::time::timeout;

use super::request::{LogRequest, LogResponse};
use crate::{instance::Instance, stream::expected_lines::ExpectedLine};

/// Minimum time between two probes. A kubelet checks for rotation every 10 s (3 s at the fastest),
/// so no file appears and disappears between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(1500);

/// A follow that delivers less between two probes, and does not lag, cannot have skipped a file:
/// the smallest rotated file has twice this size.
const PROBE_AFTER_BYTES: usize = 512 << 10;

/// A follow lags if its lines arrive this much later than its fastest one. Independent of clock
/// offsets.
const BEHIND: Duration = Duration::from_secs(1);

/// Bytes that a probe reads: a few lines.
const PROBE_BYTES: u32 = 2048;

/// Time limit for a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The start of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStart {
    /// Time of the first line, which identifies the file.
    first: Timestamp,
    /// The second line. The first may be the rest of a line that the rotation split.
    second: Option<ExpectedLine>,
}

/// Schedules probes of the current file and evaluates them.
#[derive(Debug)]
pub struct RotationProbe {
    last_probe: Instant,
    bytes: usize,
    min_lag: i64,
    is_behind: bool,
    last_seen: Option<Timestamp>,
}

impl RotationProbe {
    /// Creates the schedule of a follow that was just opened.
    pub fn new() -> Self {
        Self {
            last_probe: steady(),
            bytes: 0,
            min_lag: i64::MAX,
            is_behind: false,
            last_seen: None,
        }
    }

    /// Accounts for received bytes; `last` is the time of the last line among them.
    pub fn received(&mut self, bytes: usize, last: Option<Timestamp>) {
        self.bytes += bytes;
        if let Some(Timestamp(last)) = last {
            let lag = Timestamp::now().0.saturating_sub(last);
            self.min_lag = self.min_lag.min(lag);
            let is_behind = i64::try_from(BEHIND.as_nanos()).unwrap_or(i64::MAX);
            self.is_behind = lag.saturating_sub(self.min_lag) > is_behind;
        }
    }

    /// Returns whether a probe is due.
    pub fn is_due(&self) -> bool {
        (self.bytes >= PROBE_AFTER_BYTES || (self.is_behind && self.bytes > 0))
            && since(self.last_probe) >= PROBE_INTERVAL
    }

    /// Marks the start of a probe.
    pub fn started(&mut self) {
        (self.last_probe, self.bytes) = (steady(), 0);
    }

    /// Evaluates a probe. Returns the line to expect if the file was not seen before.
    pub fn finished(&mut self, file_start: Option<FileStart>) -> Option<ExpectedLine> {
        let file_start = file_start.filter(|file_start| self.last_seen != Some(file_start.first))?;
        let second = file_start.second?;
        self.last_seen = Some(file_start.first);
        Some(second)
    }
}

/// Reads the start of the current log file. Returns `None` if it cannot be read.
pub async fn probe(client: &kube::Client, instance: &Instance) -> Option<FileStart> {
    let request = LogRequest {
        limit_bytes: Some(PROBE_BYTES),
        ..LogRequest::default()
    };
    let read = async {
        let LogResponse::LogBody(mut log) = request.send(client, instance).await else {
            return None;
        };
        let mut body = BytesMut::new();
        while body.len() < PROBE_BYTES as usize
            && let Some(Ok(frame)) = log.next().await
        {
            body.extend_from_slice(&frame);
        }
        file_start(&body.freeze())
    };
    timeout(PROBE_TIMEOUT, read).await.ok().flatten()
}

fn file_start(body: &Bytes) -> Option<FileStart> {
    let (first, _) = Timestamp::split_line(body)?;
    let newline = memchr::memchr(b'\n', body);
    let second = newline.and_then(|newline| ExpectedLine::parse(&body.slice(newline + 1..)));
    // A later time rules out a line of another file with the same nanosecond.
    let second = second.filter(|expected| expected.time > first);
    Some(FileStart { first, second })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u32) -> String {
        format!("2026-11-23T07:00:{n:02}.000000000Z line {n}\n")
    }

    #[test]
    fn the_rest_of_a_split_line_identifies_a_file_and_is_not_expected() {
        let file = Bytes::from(line(1) + &line(2)[..35]);
        let start = file_start(&file).unwrap();
        assert_eq!(
            start.second.as_ref().map(|expected| expected.time),
            Timestamp::parse("2026-11-23T07:00:02Z")
        );
        let mut rotation = RotationProbe::new();
        assert!(rotation.finished(Some(start.clone())).is_some());
        assert_eq!(rotation.finished(Some(start)), None, "seen before");
        assert_eq!(
            file_start(&Bytes::from(line(1))).unwrap().second,
            None,
            "one line is not enough"
        );
        assert_eq!(file_start(&Bytes::from_static(b"failed to open")), None);
    }
}
