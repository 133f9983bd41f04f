//! The text layout, Logplex's: `2026-11-23T07:00:00.123456+00:00 myapp[web-7d4b9c-x2x9z]: text`.

use bus::{Origin, Timestamp};
use bytes::{BufMut, BytesMut};

/// `2026-11-23T07:00:00.123456`: what the layout and the log API have in common.
const COMMON_LEN: usize = 26;

/// The usual form's timestamp and the space behind it: `2026-11-23T07:00:00.123456789Z `.
const USUAL_LEN: usize = 31;

/// Appends one line of a container, given as the log API printed it, newline and all.
///
/// `fallback` stands for the time of a line that carries none.
pub(crate) fn write_line(out: &mut BytesMut, origin: &Origin, line: &[u8], fallback: Timestamp) {
    match Timestamp::split_line(line) {
        // The usual form is copied, not printed anew.
        Some((_, text)) if line.len() - text.len() == USUAL_LEN && line[USUAL_LEN - 2] == b'Z' => {
            out.put_slice(&line[..COMMON_LEN]);
            out.put_slice(b"+00:00");
            write_rest(out, origin.app.as_str(), &origin.process, text);
        }
        Some((time, text)) => {
            write_time(out, time);
            write_rest(out, origin.app.as_str(), &origin.process, text);
        }
        None => {
            write_time(out, fallback);
            write_rest(out, origin.app.as_str(), &origin.process, line);
        }
    }
}

/// Appends one line of the platform's own.
pub(crate) fn write_notice(out: &mut BytesMut, app: &str, time: Timestamp, text: &str) {
    write_time(out, time);
    write_rest(out, app, crate::notice::TRIBUTARY, text.as_bytes());
    out.put_u8(b'\n');
}

fn write_time(out: &mut BytesMut, time: Timestamp) {
    let printed = time.to_string();
    let common = printed.as_bytes().get(..COMMON_LEN).unwrap_or_default();
    out.put_slice(common);
    out.put_slice(b"+00:00");
}

fn write_rest(out: &mut BytesMut, app: &str, process: &str, text: &[u8]) {
    for part in [b" ", app.as_bytes(), b"[", process.as_bytes(), b"]: ", text] {
        out.put_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_time_is_printed_in_one() {
        let origin = Origin {
            app: "shop".parse().unwrap(),
            process: "web".to_owned(),
            stream: bus::StreamId::new("uid", "web", "id", bus::Epoch { millis: 1, random: 1 }).unwrap(),
            node: String::new(),
            source: "app".to_owned(),
            fd: None,
            about: None,
        };
        for (line, printed) in [
            (
                "2026-11-23T07:00:00.123456789Z a\n",
                "2026-11-23T07:00:00.123456+00:00 shop[web]: a\n",
            ),
            (
                "2026-11-23T16:00:00.123456789+09:00 a\n",
                "2026-11-23T07:00:00.123456+00:00 shop[web]: a\n",
            ),
            (
                "2026-11-23T07:00:00.12345Z abZ c\n",
                "2026-11-23T07:00:00.123450+00:00 shop[web]: abZ c\n",
            ),
            ("no time\n", "1970-01-01T00:00:00.000000+00:00 shop[web]: no time\n"),
        ] {
            let mut out = BytesMut::new();
            write_line(&mut out, &origin, line.as_bytes(), Timestamp(0));
            assert_eq!(std::str::from_utf8(&out).unwrap(), printed);
        }
    }
}
