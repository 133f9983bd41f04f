//! Lines and notices as JSON objects. Bytes that are not UTF-8 are replaced by U+FFFD.

use bus::{
    AppName, Fd, Part, Timestamp,
    notice::{Notice, TRIBUTARY},
};
use bytes::{BufMut, BytesMut};
use serde::Serialize;

use crate::line::{Line, NoticeLine};

/// The object of a line.
#[derive(Serialize)]
struct JsonLine<'a> {
    time: &'a str,
    app: &'a str,
    process: &'a str,
    origin: &'a str,
    stream: &'a str,
    seq: u64,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    late: bool,
    /// Set if the line is a published platform message.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<Notice>,
}

/// The object of a notice of the streamer. It has no sequence number; a gap is described in `notice`.
#[derive(Serialize)]
struct JsonNotice<'a> {
    time: &'a str,
    app: &'a str,
    process: &'a str,
    origin: &'a str,
    text: &'a str,
    notice: &'a Notice,
}

/// Appends a line as an object, without a newline.
pub(crate) fn write_line(out: &mut BytesMut, line: &Line) {
    let (time, text) = line.split();
    let text = String::from_utf8_lossy(text);
    let metadata = line.metadata;
    write(
        out,
        &JsonLine {
            time: &format_time(line.raw, time),
            app: metadata.app.as_str(),
            process: &metadata.process,
            origin: &metadata.origin,
            stream: metadata.stream.as_str(),
            seq: line.seq,
            text: &text,
            fd: metadata.fd.map(|fd| match fd {
                Fd::Out => "out",
                Fd::Err => "err",
            }),
            part: line.part.map(|part| match part {
                Part::More => "more",
                Part::Last => "last",
            }),
            late: line.late,
            notice: line.message.map(|message| Notice::from_message(message, &text)),
        },
    );
}

/// Appends a notice as an object, without a newline.
pub(crate) fn write_notice(out: &mut BytesMut, app: &AppName, notice: &NoticeLine) {
    write(
        out,
        &JsonNotice {
            time: &notice.time.to_string(),
            app: app.as_str(),
            process: TRIBUTARY,
            origin: TRIBUTARY,
            text: &notice.notice.text,
            notice: &notice.notice,
        },
    );
}

/// Returns the time in RFC 3339. The usual form is copied from the raw line instead of formatted.
fn format_time(raw: &[u8], time: Timestamp) -> std::borrow::Cow<'_, str> {
    const USUAL: usize = "2026-11-23T07:00:00.123456789Z".len();
    match raw.first_chunk::<USUAL>().map(|head| std::str::from_utf8(head)) {
        Some(Ok(head)) if head.ends_with('Z') && Timestamp::parse(head) == Some(time) => head.into(),
        _ => time.to_string().into(),
    }
}

fn write(out: &mut BytesMut, object: &impl Serialize) {
    // Serializing these types into memory cannot fail.
    let _ = serde_json::to_writer(out.writer(), object);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_become_one_json_object(text in proptest::collection::vec(any::<u8>().prop_filter("one line", |b| *b != b'\n'), 0..60), stamped in any::<bool>()) {
            let metadata = crate::testing::metadata("web");
            let time = if stamped { "2026-11-23T16:00:00.123456789+09:00 " } else { "" };
            let raw = [time.as_bytes(), &text, b"\n"].concat();
            let mut out = BytesMut::new();
            write_line(&mut out, &crate::testing::line(&metadata, 7, &raw));
            prop_assert!(!out.contains(&b'\n'), "one line");
            let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(object["seq"].as_u64(), Some(7));
            if stamped {
                prop_assert_eq!(object["time"].as_str(), Some("2026-11-23T07:00:00.123456789Z"));
                let read = String::from_utf8_lossy(&text);
                prop_assert_eq!(object["text"].as_str(), Some(read.as_ref()));
            }
        }
    }
}
