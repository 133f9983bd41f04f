//! Parses lines of the container runtime: `<time> <stdout|stderr> <P|F> <content>`.

use bus::{Fd, Timestamp};

/// Longest time: nine digits and a zone, `2026-11-23T17:45:32.623110358+09:00`.
const MAX_TIME_LEN: usize = 35;

/// Length of `2026-11-23T07:00:00`.
const SECOND_LEN: usize = 19;

/// The fraction as the log API prints it, with its point.
const FRACTION: &[u8] = b".000000000";

/// A parsed line of a container's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// RFC 3339, with trailing zeros of the fraction removed.
    pub time: &'a [u8],
    /// The output that wrote the line.
    pub fd: Fd,
    /// Tagged `P`: the next entry of the same output continues the line.
    pub is_partial: bool,
    /// The content.
    pub text: &'a [u8],
}

/// Parses lines. Consecutive lines of the same second share the validation of the date.
///
/// *Source*: the CRI logging format as the kubelet reads it; more tags may follow the first after a
/// `:`.
#[derive(Debug, Default)]
pub struct Parser {
    /// The last second that was validated.
    second: [u8; SECOND_LEN],
}

impl Parser {
    /// Parses a line without its newline. Returns `None` if it is not in the runtime's format.
    #[inline]
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Option<Entry<'a>> {
        let space = memchr::memchr(b' ', &line[..line.len().min(MAX_TIME_LEN + 1)])?;
        let (time, rest) = (&line[..space], &line[space + 1..]);
        if !self.is_time(time) {
            return None;
        }
        let (fd, rest) = match rest.split_at_checked(b"stdout ".len())? {
            (b"stdout ", rest) => (Fd::Out, rest),
            (b"stderr ", rest) => (Fd::Err, rest),
            _ => return None,
        };
        let (is_partial, text) = match rest {
            [b'F', b' ', text @ ..] => (false, text),
            [b'P', b' ', text @ ..] => (true, text),
            [tag @ (b'F' | b'P'), b':', more @ ..] => (*tag == b'P', &more[memchr::memchr(b' ', more)? + 1..]),
            _ => return None,
        };
        Some(Entry {
            time,
            fd,
            is_partial,
            text,
        })
    }

    #[inline]
    fn is_time(&mut self, time: &[u8]) -> bool {
        let Some((second, [fraction @ .., b'Z'])) = time.split_at_checked(SECOND_LEN) else {
            return is_any_time(time);
        };
        if !is_fraction(fraction) {
            return false;
        }
        *second == self.second || self.is_valid_new_second(time)
    }

    #[cold]
    fn is_valid_new_second(&mut self, time: &[u8]) -> bool {
        let valid = is_any_time(time);
        if valid {
            self.second.copy_from_slice(&time[..SECOND_LEN]);
        }
        valid
    }
}

impl Entry<'_> {
    /// Appends the time as the log API prints it: nine digits, followed by a space.
    #[inline]
    pub fn put_time(&self, out: &mut Vec<u8>) {
        let zone = zone_at(self.time).unwrap_or(self.time.len());
        let fraction = zone - SECOND_LEN.min(zone);
        out.extend_from_slice(&self.time[..zone]);
        out.extend_from_slice(&FRACTION[fraction.min(FRACTION.len())..]);
        out.extend_from_slice(&self.time[zone..]);
        out.push(b' ');
    }

    /// Returns the parsed time.
    pub fn timestamp(&self) -> Option<Timestamp> {
        Timestamp::parse(std::str::from_utf8(self.time).ok()?)
    }
}

/// Returns whether this is a time as Go prints it: seconds, at most nine fraction digits, and `Z`
/// or an offset.
#[cold]
fn is_any_time(time: &[u8]) -> bool {
    let has_shape = zone_at(time).is_some_and(|zone| zone >= SECOND_LEN && is_fraction(&time[SECOND_LEN..zone]));
    has_shape && std::str::from_utf8(time).is_ok_and(|text| Timestamp::parse(text).is_some())
}

#[inline]
fn is_fraction(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b'.', digits @ ..] => matches!(digits.len(), 1..=9) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Returns where the zone starts.
#[inline]
fn zone_at(time: &[u8]) -> Option<usize> {
    match time {
        [.., b'Z'] => Some(time.len() - 1),
        [.., b'+' | b'-', _, _, b':', _, _] => Some(time.len() - 6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Option<(String, Fd, bool, &str)> {
        let entry = Parser::default().parse(line.as_bytes())?;
        let mut time = Vec::new();
        entry.put_time(&mut time);
        let text = std::str::from_utf8(entry.text).unwrap();
        Some((String::from_utf8(time).unwrap(), entry.fd, entry.is_partial, text))
    }

    #[test]
    fn a_line_is_parsed_and_its_time_padded() {
        for (line, time, fd, is_partial, text) in [
            (
                "2026-11-23T08:46:44.9594474Z stdout F a b",
                "2026-11-23T08:46:44.959447400Z ",
                Fd::Out,
                false,
                "a b",
            ),
            (
                "2026-11-23T08:46:44Z stderr P ",
                "2026-11-23T08:46:44.000000000Z ",
                Fd::Err,
                true,
                "",
            ),
            (
                "2026-11-23T17:45:32.62+09:00 stdout F:x:y tokyo",
                "2026-11-23T17:45:32.620000000+09:00 ",
                Fd::Out,
                false,
                "tokyo",
            ),
            (
                "2026-11-23T17:45:32-03:30 stdout P:x  two",
                "2026-11-23T17:45:32.000000000-03:30 ",
                Fd::Out,
                true,
                " two",
            ),
        ] {
            let expected = Some((time.to_owned(), fd, is_partial, text));
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[test]
    fn other_formats_are_not_parsed() {
        for line in [
            "",
            "no time stdout F x",
            "2026-11-23T08:46:44.9594474Z",
            "2026-11-23T08:46:44.9594474Z stdout",
            "2026-11-23T08:46:44.9594474Z stdout F",
            "2026-11-23T08:46:44.9594474Z stdin F x",
            "2026-11-23T08:46:44.9594474Z stdout Q x",
            "2026-11-23T08:46:44.9594474Z stdout FF x",
            "2026-11-23T08:46:44.9594474Z  stdout F x",
            "2026-13-23T08:46:44.9594474Z stdout F x",
            "2026-11-23T08:46:44.Z stdout F x",
            "2026-11-23T08:46:44.9594474999Z stdout F x",
            "2026-11-23T08:46:44.95944 stdout F x",
            "2026-11-23T08:46Z stdout F x",
            r#"{"log":"docker\n","stream":"stdout","time":"2026-11-23T08:46:44.9594474Z"}"#,
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_fraction_is_validated_for_a_known_second() {
        let mut parser = Parser::default();
        assert!(parser.parse(b"2026-11-23T08:46:44.1Z stdout F x").is_some());
        assert!(parser.parse(b"2026-11-23T08:46:44Z stdout F x").is_some());
        assert!(parser.parse(b"2026-11-23T08:46:44.1xZ stdout F x").is_none());
        assert!(parser.parse(b"2026-11-23T08:46:4x.1Z stdout F x").is_none());
        assert!(parser.parse(b"2026-11-23T08:46:45.000000001Z stderr P x").is_some());
    }

    proptest! {
        #[test]
        fn go_times_are_printed_as_the_api_prints_them(nanos in 0i64..4_000_000_000_000_000_000, text in "[^\n]{0,40}", err: bool, partial: bool) {
            let api = Timestamp(nanos).to_string();
            let mut trimmed = api.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.').to_owned();
            trimmed.push('Z');
            let (name, fd) = if err { ("stderr", Fd::Err) } else { ("stdout", Fd::Out) };
            let line = format!("{trimmed} {name} {} {text}", if partial { 'P' } else { 'F' });
            prop_assert_eq!(parse(&line), Some((format!("{api} "), fd, partial, &text[..])));
        }

        #[test]
        fn no_input_panics(line: Vec<u8>) {
            let _ = Parser::default().parse(&line);
        }
    }
}
