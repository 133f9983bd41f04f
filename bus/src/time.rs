//! Two clocks: when a line was printed, and when the bus took it.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The time a container runtime read a line: nanoseconds since 1970, UTC.
///
/// Ordered, but no unique key: a burst can give equal ones. Displays as the Kubernetes log API does, always nine digits and `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// The time the bus accepted a batch: microseconds since 1970, UTC, by the clock of the bus.
///
/// Never decreases within an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PublishTime(pub u64);

/// Bytes of the form the API nearly always sends: `2026-11-23T07:00:00.123456789Z`.
const FIXED_LEN: usize = 30;

impl Timestamp {
    /// Now, by this machine's clock.
    pub fn now() -> Self {
        Self(i64::try_from(since_epoch().as_nanos()).unwrap_or(i64::MAX))
    }

    /// Splits a line into its timestamp and the rest behind the one space that follows it.
    ///
    /// Takes any RFC 3339 time: the zone is the node runtime's, and the fraction may have any length. `None` where the line does not begin with one:
    /// then the whole line is content.
    ///
    /// *Source*: Kubernetes `pods/log` with `timestamps=true`.
    pub fn split_line(line: &[u8]) -> Option<(Self, &[u8])> {
        if let (Some(time), Some(b' ')) = (Self::parse_fixed(line), line.get(FIXED_LEN)) {
            return Some((time, &line[FIXED_LEN + 1..]));
        }
        // A zone and nine digits make 35 characters; a space further off ends no timestamp.
        let window = &line[..line.len().min(40)];
        let space = memchr::memchr(b' ', window)?;
        let text = std::str::from_utf8(&line[..space]).ok()?;
        Some((Self::parse(text)?, &line[space + 1..]))
    }

    /// Reads an RFC 3339 time of any zone. `None` where it is none, or lies outside the years 1678 to 2261.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == FIXED_LEN
            && let Some(time) = Self::parse_fixed(text.as_bytes())
        {
            return Some(time);
        }
        // jiff also takes a date without a time's `T` or a zone in brackets; the first is refused here, the second never comes.
        if text.as_bytes().get(10) != Some(&b'T') {
            return None;
        }
        let time: jiff::Timestamp = text.parse().ok()?;
        i64::try_from(time.as_nanosecond()).ok().map(Self)
    }

    /// The hot path: one scan over fixed places, no branches but the checks.
    fn parse_fixed(line: &[u8]) -> Option<Self> {
        let b: &[u8; FIXED_LEN] = line.first_chunk()?;
        let punctuated = b[4] == b'-'
            && b[7] == b'-'
            && b[10] == b'T'
            && b[13] == b':'
            && b[16] == b':'
            && b[19] == b'.'
            && b[29] == b'Z';
        if !punctuated {
            return None;
        }
        let mut clean = true;
        let mut number = |from: usize, to: usize| {
            b[from..to].iter().fold(0i64, |n, c| {
                let digit = c.wrapping_sub(b'0');
                clean &= digit < 10;
                n * 10 + i64::from(digit)
            })
        };
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
        let nanos = number(20, 29);
        // Leap seconds never come out of a Go clock.
        let in_range = clean
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

    /// The time as jiff's type; saturates at its ends.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(jiff::Timestamp::MAX)
    }

    /// Whole seconds since 1970, rounded down: the grain of the log API's `sinceTime`.
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
    /// When the bus took a batch, as a line's time.
    fn from(published: PublishTime) -> Self {
        Self(i64::try_from(published.0.saturating_mul(1000)).unwrap_or(i64::MAX))
    }
}

impl PublishTime {
    /// Now, by this machine's clock.
    pub fn now() -> Self {
        Self(u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX))
    }

    /// This much earlier; not before 1970.
    pub fn earlier_by(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// This much later.
    pub fn later_by(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// How long this lies after `earlier`; nothing where it does not.
    pub fn since(self, earlier: PublishTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counting years from March so that the leap day comes last.
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
    fn a_line_splits_behind_its_timestamp_whatever_the_zone() {
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
        fn printing_and_reading_a_timestamp_agree(nanos in 0i64..9_000_000_000_000_000_000) {
            let text = Timestamp(nanos).to_string();
            prop_assert_eq!(text.len(), FIXED_LEN);
            prop_assert_eq!(Timestamp::parse_fixed(text.as_bytes()), Some(Timestamp(nanos)));
            prop_assert_eq!(Timestamp::parse(&text.replace('Z', "+00:00")), Some(Timestamp(nanos)));
        }
    }
}
