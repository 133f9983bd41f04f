//! Files that a follow passed over: the API serves only the current one, and a kubelet skips those rotated away while it was behind, without a word.
//!
//! So the current file's beginning is looked at from time to time. A line that was seen there must come; where the follow passes its time without it, the
//! whole file was skipped, and what lies between is told.

use std::time::Duration;

use bus::Timestamp;
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout};

use super::request::{Answer, LogRequest};
use crate::{instance::Instance, stream::expected_lines::Mark};

/// The least between two looks. A kubelet looks every 10 s whether to rotate, or every 3 s where it is told to hurry: no file comes and goes between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1500);

/// A follow that brings less between two looks, and is not behind, cannot have passed a file: none is rotated smaller than twice this.
const LOUD_BYTES: usize = 512 << 10;

/// A follow whose lines come so much later than its promptest is behind, whatever the clocks say.
const BEHIND: Duration = Duration::from_secs(1);

/// What is read of a file: some lines.
const LOOK_BYTES: u32 = 2048;

/// How long a look may take.
const LOOK_WAIT: Duration = Duration::from_secs(10);

/// How a file begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The time of its first line: which file it is.
    first: Timestamp,
    /// Its second line. The first may be the rest of one that the rotation cut, which a follow joins under its older time.
    second: Option<Mark>,
}

/// When to look at the current file's beginning, and what was seen there.
#[derive(Debug)]
pub struct Rotation {
    looked: Instant,
    bytes: usize,
    least_lag: i64,
    behind: bool,
    known: Option<Timestamp>,
}

impl Rotation {
    /// Of a follow that was just opened.
    pub fn new() -> Self {
        Self {
            looked: Instant::now(),
            bytes: 0,
            least_lag: i64::MAX,
            behind: false,
            known: None,
        }
    }

    /// So many bytes came, the last line of which is of this time.
    pub fn came(&mut self, bytes: usize, last: Option<Timestamp>) {
        self.bytes += bytes;
        if let Some(Timestamp(last)) = last {
            let lag = Timestamp::now().0.saturating_sub(last);
            self.least_lag = self.least_lag.min(lag);
            let behind = i64::try_from(BEHIND.as_nanos()).unwrap_or(i64::MAX);
            self.behind = lag.saturating_sub(self.least_lag) > behind;
        }
    }

    /// Whether it is time to look.
    pub fn is_due(&self) -> bool {
        (self.bytes >= LOUD_BYTES || (self.behind && self.bytes > 0)) && self.looked.elapsed() >= LOOK_EVERY
    }

    /// A look begins.
    pub fn look(&mut self) {
        (self.looked, self.bytes) = (Instant::now(), 0);
    }

    /// What was seen: a line of a file not seen before, to be expected.
    pub fn saw(&mut self, beginning: Option<Beginning>) -> Option<Mark> {
        let beginning = beginning.filter(|beginning| self.known != Some(beginning.first))?;
        let second = beginning.second?;
        self.known = Some(beginning.first);
        Some(second)
    }
}

/// Looks at the current file's beginning. `None`: it cannot be told.
pub async fn look(client: &kube::Client, instance: &Instance) -> Option<Beginning> {
    let request = LogRequest {
        limit_bytes: Some(LOOK_BYTES),
        ..LogRequest::default()
    };
    let read = async {
        let Answer::Log(mut log) = request.send(client, instance).await else {
            return None;
        };
        let mut body = BytesMut::new();
        while body.len() < LOOK_BYTES as usize
            && let Some(Ok(frame)) = log.next().await
        {
            body.extend_from_slice(&frame);
        }
        begins(&body.freeze())
    };
    timeout(LOOK_WAIT, read).await.ok().flatten()
}

fn begins(body: &Bytes) -> Option<Beginning> {
    let (first, _) = Timestamp::split_line(body)?;
    let newline = memchr::memchr(b'\n', body);
    let second = newline.and_then(|newline| Mark::of(&body.slice(newline + 1..)));
    // Another file's beginning cannot be taken for it: a line of the same nanosecond could.
    let second = second.filter(|mark| mark.time > first);
    Some(Beginning { first, second })
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
        let beginning = begins(&file).unwrap();
        assert_eq!(
            beginning.second.as_ref().map(|mark| mark.time),
            Timestamp::parse("2026-11-23T07:00:02Z")
        );
        let mut rotation = Rotation::new();
        assert!(rotation.saw(Some(beginning.clone())).is_some());
        assert_eq!(rotation.saw(Some(beginning)), None, "seen before");
        assert_eq!(
            begins(&Bytes::from(line(1))).unwrap().second,
            None,
            "one line says nothing yet"
        );
        assert_eq!(begins(&Bytes::from_static(b"failed to open")), None);
    }
}
