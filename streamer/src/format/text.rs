//! Plain text in Logplex's layout:
//! `2026-11-23T07:00:00.123456+00:00 myapp[web-7d4b9c-x2x9z]: text`.

use bus::{Timestamp, notice::TRIBUTARY};
use bytes::{BufMut, BytesMut};

use crate::line::{Line, NoticeLine};

/// Length of `2026-11-23T07:00:00.123456`, which this layout and the log API have in common.
const COMMON_LEN: usize = 26;

/// Length of the usual timestamp and space of the log API: `2026-11-23T07:00:00.123456789Z `.
const USUAL_LEN: usize = 31;

/// Appends a line.
pub(super) fn write_line(out: &mut BytesMut, line: &Line) {
    let metadata = line.metadata;
    let text = match Timestamp::split_line(line.raw) {
        // The usual form is copied instead of formatted.
        Some((_, text)) if line.raw.len() - text.len() == USUAL_LEN && line.raw[USUAL_LEN - 2] == b'Z' => {
            out.put_slice(&line.raw[..COMMON_LEN]);
            out.put_slice(b"+00:00");
            text
        }
        Some((time, text)) => {
            write_time(out, time);
            text
        }
        None => {
            write_time(out, Timestamp::from(line.published));
            line.raw
        }
    };
    write_rest(out, metadata.app.as_str(), &metadata.process, text);
}

/// Appends a notice.
pub(super) fn write_notice(out: &mut BytesMut, app: &str, notice: &NoticeLine) {
    write_time(out, notice.time);
    write_rest(out, app, TRIBUTARY, notice.notice.text.as_bytes());
    out.put_u8(b'\n');
}

fn write_time(out: &mut BytesMut, time: Timestamp) {
    let text = time.to_string();
    let common = text.as_bytes().get(..COMMON_LEN).unwrap_or_default();
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
    fn every_time_format_is_normalized() {
        let metadata = crate::testing::metadata("web");
        for (line, expected) in [
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
            write_line(&mut out, &crate::testing::line(&metadata, 0, line.as_bytes()));
            assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
        }
    }
}
