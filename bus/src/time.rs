//! The two times of a line: when it was printed, and when the bus accepted it.

use std::{fmt, time::Duration};

/// When the container runtime read a line: nanoseconds since 1970, UTC.
///
/// Not unique: lines of a burst can share a timestamp. Displays as RFC 3339 with nine digits and
/// `Z`, as the Kubernetes log API does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// When the bus accepted a batch: microseconds since 1970, UTC, by the clock of the bus.
///
/// Does not decrease within an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PublishTime(pub u64);

/// Length of the API's usual form: `2026-11-23T07:00:00.123456789Z`.
const FIXED_LEN: usize = 30;

impl Timestamp {
    /// Returns the current time of this machine's clock.
    pub fn now() -> Self {
        Self(i64::try_from(since_epoch().as_nanos()).unwrap_or(i64::MAX))
    }

    /// Splits a line into its timestamp and the content after the following space.
    ///
    /// Accepts any RFC 3339 time: the zone is the node runtime's, and the fraction can have any
    /// length. `None` if the line does not start with a time; the whole line is then content.
    ///
    /// *Source*: Kubernetes `pods/log` with `timestamps=true`.
    pub fn split_line(line: &[u8]) -> Option<(Self, &[u8])> {
        if let (Some(time), Some(b' ')) = (Self::parse_fixed(line), line.get(FIXED_LEN)) {
            return Some((time, &line[FIXED_LEN + 1..]));
        }
        // A timestamp with a zone and nine digits has 35 characters.
        let window = &line[..line.len().min(40)];
        let space = memchr::memchr(b' ', window)?;
        let text = std::str::from_utf8(&line[..space]).ok()?;
        Some((Self::parse(text)?, &line[space + 1..]))
    }

    /// Parses an RFC 3339 time of any zone. `None` for other text and for years outside 1678 to
    /// 2261.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == FIXED_LEN
            && let Some(time) = Self::parse_fixed(text.as_bytes())
        {
            return Some(time);
        }
        // jiff also accepts a space in place of the `T`.
        if text.as_bytes().get(10) != Some(&b'T') {
            return None;
        }
        let time: jiff::Timestamp = text.parse().ok()?;
        i64::try_from(time.as_nanosecond()).ok().map(Self)
    }

    /// Parses the usual form: one pass over fixed positions.
    fn parse_fixed(line: &[u8]) -> Option<Self> {
        let b: &[u8; FIXED_LEN] = line.first_chunk()?;
        let has_separators = b[4] == b'-'
            && b[7] == b'-'
            && b[10] == b'T'
            && b[13] == b':'
            && b[16] == b':'
            && b[19] == b'.'
            && b[29] == b'Z';
        if !has_separators {
            return None;
        }
        let mut all_digits = true;
        let mut number = |from: usize, to: usize| {
            b[from..to].iter().fold(0i64, |n, c| {
                let digit = c.wrapping_sub(b'0');
                all_digits &= digit < 10;
                n * 10 + i64::from(digit)
            })
        };
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
        let nanos = number(20, 29);
        // Go clocks report no leap seconds.
        let in_range = all_digits
            && (1970..=2261).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        in_range.then(|| {
            let seconds = (days_from_civil(year, month, day) * 24 + hour) * 3600 + minute * 60 + second;
            Self(seconds * 1_000_000_000 + nanos)
        })
    }

    /// Converts to jiff's type, saturating.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(jiff::Timestamp::MAX)
    }

    /// Rounds down to whole seconds, the resolution of the log API's `sinceTime`.
    pub fn floor_second(self) -> Self {
        Self(self.0.div_euclid(1_000_000_000) * 1_000_000_000)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.to_jiff())
    }
}

impl From<PublishTime> for Timestamp {
    /// Converts the publish time of a batch to the time of a line.
    fn from(published: PublishTime) -> Self {
        Self(i64::try_from(published.0.saturating_mul(1000)).unwrap_or(i64::MAX))
    }
}

impl PublishTime {
    /// Returns the current time of this machine's clock.
    pub fn now() -> Self {
        Self(u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX))
    }

    /// Returns the time `by` earlier, but not before 1970.
    pub fn earlier_by(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// Returns the time `by` later.
    pub fn later_by(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// Returns the duration since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: PublishTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn since_epoch() -> Duration {
    system::clock::wall()
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years start in March, so that the
/// leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_splits_after_its_timestamp_in_any_zone() {
        let (utc, rest) = Timestamp::split_line(b"2026-11-23T08:45:32.623110358Z a b").unwrap();
        assert_eq!(rest, b"a b");
        let (tokyo, rest) = Timestamp::split_line(b"2026-11-23T17:45:32.623110358+09:00 tokyo").unwrap();
        assert_eq!((tokyo, rest), (utc, &b"tokyo"[..]));
        assert_eq!(utc.to_string(), "2026-11-23T08:45:32.623110358Z");
        assert_eq!(
            Timestamp::split_line(b"2026-11-23T08:45:32.623110358Z ").unwrap().1,
            b""
        );
    }

    #[test]
    fn a_line_without_a_timestamp_is_content() {
        for line in [
            "",
            "BBBB",
            "unable to retrieve container logs for containerd://0",
            "2026-13-23T08:45:32.623110358Z x",
            "2026-02-30T08:45:32.623110358Z x",
            "2026-11-23 08:45:32Z x",
            "2026-11-23T08:45:32.6231103589999999999999999Z",
        ] {
            assert_eq!(Timestamp::split_line(line.as_bytes()), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_timestamp_round_trips(nanos in 0i64..9_000_000_000_000_000_000) {
            let text = Timestamp(nanos).to_string();
            prop_assert_eq!(text.len(), FIXED_LEN);
            prop_assert_eq!(Timestamp::parse_fixed(text.as_bytes()), Some(Timestamp(nanos)));
            prop_assert_eq!(Timestamp::parse(&text.replace('Z', "+00:00")), Some(Timestamp(nanos)));
        }
    }
}
