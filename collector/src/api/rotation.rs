//! Files that a follow passed over: the API serves only the current one, and a kubelet skips those rotated away while it was behind, without a word.
//!
//! So the current file's beginning is looked at from time to time. A line that was seen there must come; where the follow passes its time without it, the
//! whole file was skipped, and what lies between is told.

use std::time::Duration;

use bus::Timestamp;
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout};

use super::request::{LogRequest, LogResponse};
use crate::{instance::Instance, stream::expected_lines::ExpectedLine};

/// The least between two looks. A kubelet looks every 10 s whether to rotate, or every 3 s where it is told to hurry: no file comes and goes between two looks.
const PROBE_INTERVAL: Duration = Duration::from_millis(1500);

/// A follow that brings less between two looks, and is not behind, cannot have passed a file: none is rotated smaller than twice this.
const PROBE_AFTER_BYTES: usize = 512 << 10;

/// A follow whose lines come so much later than its promptest is behind, whatever the clocks say.
const BEHIND: Duration = Duration::from_secs(1);

/// What is read of a file: some lines.
const PROBE_BYTES: u32 = 2048;

/// How long a look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a file begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStart {
    /// The time of its first line: which file it is.
    first: Timestamp,
    /// Its second line. The first may be the rest of one that the rotation cut, which a follow joins under its older time.
    second: Option<ExpectedLine>,
}

/// When to look at the current file's beginning, and what was seen there.
#[derive(Debug)]
pub struct RotationProbe {
    last_probe: Instant,
    bytes: usize,
    min_lag: i64,
    is_behind: bool,
    last_seen: Option<Timestamp>,
}

impl RotationProbe {
    /// Of a follow that was just opened.
    pub fn new() -> Self {
        Self {
            last_probe: Instant::now(),
            bytes: 0,
            min_lag: i64::MAX,
            is_behind: false,
            last_seen: None,
        }
    }

    /// So many bytes came, the last line of which is of this time.
    pub fn received(&mut self, bytes: usize, last: Option<Timestamp>) {
        self.bytes += bytes;
        if let Some(Timestamp(last)) = last {
            let lag = Timestamp::now().0.saturating_sub(last);
            self.min_lag = self.min_lag.min(lag);
            let is_behind = i64::try_from(BEHIND.as_nanos()).unwrap_or(i64::MAX);
            self.is_behind = lag.saturating_sub(self.min_lag) > is_behind;
        }
    }

    /// Whether it is time to look.
    pub fn is_due(&self) -> bool {
        (self.bytes >= PROBE_AFTER_BYTES || (self.is_behind && self.bytes > 0))
            && self.last_probe.elapsed() >= PROBE_INTERVAL
    }

    /// A look begins.
    pub fn started(&mut self) {
        (self.last_probe, self.bytes) = (Instant::now(), 0);
    }

    /// What was seen: a line of a file not seen before, to be expected.
    pub fn finished(&mut self, beginning: Option<FileStart>) -> Option<ExpectedLine> {
        let beginning = beginning.filter(|beginning| self.last_seen != Some(beginning.first))?;
        let second = beginning.second?;
        self.last_seen = Some(beginning.first);
        Some(second)
    }
}

/// Looks at the current file's beginning. `None`: it cannot be told.
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
    // Another file's beginning cannot be taken for it: a line of the same nanosecond could.
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
    fn the_rest_of_a_cut_line_names_a_file_and_is_not_expected() {
        let file = Bytes::from(line(1) + &line(2)[..35]);
        let beginning = file_start(&file).unwrap();
        assert_eq!(
            beginning.second.as_ref().map(|expected| expected.time),
            Timestamp::parse("2026-11-23T07:00:02Z")
        );
        let mut rotation = RotationProbe::new();
        assert!(rotation.finished(Some(beginning.clone())).is_some());
        assert_eq!(rotation.finished(Some(beginning)), None, "seen before");
        assert_eq!(
            file_start(&Bytes::from(line(1))).unwrap().second,
            None,
            "one line says nothing yet"
        );
        assert_eq!(file_start(&Bytes::from_static(b"failed to open")), None);
    }
}
