//! Files that a follow passed over: the API serves only the current one, and a kubelet skips those rotated away while it was behind, without a word.
//!
//! So the current file's beginning is looked at from time to time. A line that was seen there must come; where the follow passes its time without it, the
//! whole file was skipped, and what lies between is told.

use std::{collections::VecDeque, time::Duration};

use bus::Timestamp;
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout};

use crate::{
    anchor::Stamps,
    api::request::{Answer, LogRequest},
    instance::Instance,
    stream::lines::Slice,
};

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

/// Looks that are open are few; a follow that is behind this many files is hopeless, and the older ones stand for all.
const MAX_MARKS: usize = 64;

/// A line that a file was seen to hold near its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its time.
    pub time: Timestamp,
    /// Its timestamp as it is printed, with the space.
    prefix: Bytes,
}

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
    let mark = |line: Bytes| {
        let (time, text) = Timestamp::split_line(&line)?;
        let prefix = line.slice(..line.len() - text.len());
        Some(Mark { time, prefix })
    };
    let newline = memchr::memchr(b'\n', body);
    let second = newline.and_then(|newline| mark(body.slice(newline + 1..)));
    // Another file's beginning cannot be taken for it: a line of the same nanosecond could.
    let second = second.filter(|mark| mark.time > first);
    Some(Beginning { first, second })
}

/// Lines that must come, oldest first.
#[derive(Debug, Default)]
pub struct Marks(VecDeque<Mark>);

impl Marks {
    /// Expects one more.
    pub fn expect(&mut self, mark: Mark) {
        if self.0.len() < MAX_MARKS && self.0.back().is_none_or(|last| last.time < mark.time) {
            self.0.push_back(mark);
        }
    }

    /// Expects nothing any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Where in these lines, which follow those before, the first line stands that is behind one that did not come. `None`: nowhere.
    pub fn passed(&mut self, slice: &Slice) -> Option<usize> {
        while let Some(mark) = self.0.front()
            && slice.end.time >= mark.time.0
        {
            let mark = self.0.pop_front()?;
            if mark.is_in(&slice.data) {
                continue;
            }
            if let Some((at, time)) = first_behind(&slice.data, mark.time) {
                // Files skipped together are one hole.
                self.0.retain(|other| other.time > time || other.is_in(&slice.data));
                return Some(at);
            }
        }
        None
    }
}

impl Mark {
    fn is_in(&self, data: &[u8]) -> bool {
        let found = memchr::memmem::find_iter(data, &self.prefix);
        found.into_iter().any(|at| at == 0 || data[at - 1] == b'\n')
    }
}

/// The first line of a later time.
fn first_behind(data: &[u8], time: Timestamp) -> Option<(usize, Timestamp)> {
    let mut stamps = Stamps::default();
    let mut begin = 0;
    for newline in memchr::memchr_iter(b'\n', data) {
        if let Some((own, _)) = stamps.read(&data[begin..newline])
            && own > time
        {
            return Some((begin, own));
        }
        begin = newline + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::lines::Lines;

    fn line(n: u32) -> String {
        format!("2026-11-23T07:00:{n:02}.000000000Z line {n}\n")
    }

    fn slice(lines: &[u32]) -> Slice {
        let mut read = Lines::default();
        let text: String = lines.iter().map(|n| line(*n)).collect();
        read.push(text.as_bytes());
        read.take().unwrap()
    }

    fn mark(n: u32) -> Mark {
        let file = Bytes::from(line(n - 1) + &line(n));
        begins(&file).unwrap().second.unwrap()
    }

    #[test]
    fn a_line_that_comes_is_no_hole_and_one_that_is_passed_is_one() {
        let mut marks = Marks::default();
        marks.expect(mark(5));
        assert_eq!(marks.passed(&slice(&[1, 2, 3])), None, "still to come");
        assert_eq!(marks.passed(&slice(&[4, 5, 6])), None, "it came");
        assert_eq!(marks.passed(&slice(&[7, 9])), None, "nothing else was expected");
        marks.expect(mark(12));
        marks.expect(mark(15));
        let at = line(10).len() + line(11).len();
        assert_eq!(marks.passed(&slice(&[10, 11, 20, 21])), Some(at), "two files, one hole");
        assert_eq!(marks.passed(&slice(&[22])), None);
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
