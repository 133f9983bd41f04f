//! Renders lines as RFC 5424 messages or as messages of a Logplex frame.
//!
//! Rendering a line allocates nothing and parses only the shape of its timestamp; the part that is
//! equal for all lines of a stream is rendered once.

use bus::{Fd, Level, StreamMetadata, Timestamp, notice::TRIBUTARY};
use bytes::{BufMut, BytesMut};
use memchr::memmem;
use registry::{DrainTarget, Framing, Protocol};

/// The length of a timestamp with microseconds, without its zone. RFC 5424, section 6.2.3, allows
/// at most six fractional digits.
const MICROS_LEN: usize = 26;

/// The length of a timestamp with nanoseconds, as Kubernetes prints it.
const NANOS_LEN: usize = 30;

/// Maximum lengths of names (RFC 5424, section 6); for the host, what Papertrail displays.
const MAX_HOST: usize = 120;
const MAX_APP: usize = 48;
const MAX_PROC: usize = 128;

/// The priority of platform messages: local5.warning, as in Logplex.
const NOTICE_PRI: u8 = 172;

/// The facility `user`, times 8.
const USER: u8 = 8;

/// The byte order mark that marks UTF-8 text (RFC 5424, section 6.4).
const BOM: &str = "\u{feff}";

/// The message format of a drain.
pub(crate) struct MessageFormat {
    logplex: bool,
    framing: Option<Framing>,
    max_bytes: usize,
    bom: bool,
}

/// The part of a message that is equal for all lines of a stream.
pub(crate) struct StreamHeader {
    /// The fields between timestamp and text.
    fields: Vec<u8>,
    /// The priority of lines without a level.
    pri: u8,
    is_notice: bool,
}

impl MessageFormat {
    /// The format for a receiver. UDP has no framing.
    pub(crate) fn of(target: &DrainTarget) -> Self {
        let framing = match target.protocol {
            Protocol::Udp => None,
            Protocol::Http | Protocol::Https => Some(Framing::OctetCounting),
            Protocol::Tcp | Protocol::Tls => Some(target.framing),
        };
        Self {
            logplex: target.protocol.is_http(),
            framing,
            max_bytes: target.max_message_bytes,
            bom: target.bom,
        }
    }

    /// The header of a stream.
    pub(crate) fn header(&self, metadata: &StreamMetadata) -> StreamHeader {
        let pri = match metadata.fd {
            Some(Fd::Err) => USER + 3,
            _ => USER + 6,
        };
        self.build_header(metadata.app.as_str(), &metadata.process, &metadata.origin, pri)
    }

    /// The header of platform messages for an app.
    pub(crate) fn notice_header(&self, app: &str) -> StreamHeader {
        self.build_header(app, TRIBUTARY, TRIBUTARY, NOTICE_PRI)
    }

    fn build_header(&self, app: &str, process: &str, origin: &str, pri: u8) -> StreamHeader {
        let is_notice = origin == TRIBUTARY;
        let mut fields = Vec::with_capacity(64);
        fields.push(b' ');
        if self.logplex {
            // HOSTNAME is `host`, APP-NAME the origin, PROCID the process; no structured data.
            fields.extend_from_slice(b"host ");
            put_name(&mut fields, origin, MAX_APP);
            fields.push(b' ');
            put_name(&mut fields, process, MAX_PROC);
            fields.extend_from_slice(b" - ");
        } else {
            put_name(&mut fields, app, MAX_HOST);
            fields.push(b' ');
            put_name(&mut fields, process, MAX_APP);
            fields.push(b' ');
            // A process name that is too long for APP-NAME is repeated in PROCID.
            let proc_id = if process.len() > MAX_APP { process } else { "-" };
            put_name(&mut fields, proc_id, MAX_PROC);
            fields.extend_from_slice(b" - - ");
            if self.bom {
                fields.extend_from_slice(BOM.as_bytes());
            }
        }
        let pri = if is_notice { NOTICE_PRI } else { pri };
        StreamHeader { fields, pri, is_notice }
    }

    /// Limits the size of a message.
    pub(crate) fn limit_message_bytes(&mut self, max: usize) {
        self.max_bytes = self.max_bytes.min(max);
    }

    /// Renders a line of a batch, without its newline, as one message, or as several if it is too
    /// long. Calls `done` after each message.
    pub(crate) fn render_line(
        &self,
        out: &mut BytesMut,
        header: &StreamHeader,
        has_levels: bool,
        line: &[u8],
        mut done: impl FnMut(&mut BytesMut),
    ) {
        let (time, mut text) = split_timestamp(line);
        let level = if has_levels && !header.is_notice {
            Level::of(text)
        } else {
            None
        };
        let pri = level.map_or(header.pri, |level| USER + severity(level));
        let mut digits = itoa::Buffer::new();
        let pri = digits.format(pri);
        // `<` pri `>1 ` time `Z`, the fields, and in a Logplex frame a newline.
        let fixed = pri.len() + 4 + MICROS_LEN + 1 + header.fields.len() + usize::from(self.logplex);
        let room = self.max_bytes.saturating_sub(fixed).max(1);
        loop {
            let (part, remaining) = text.split_at(split_position(text, room));
            let len = fixed + part.len();
            out.reserve(len + 24);
            if self.framing == Some(Framing::OctetCounting) {
                out.put_slice(itoa::Buffer::new().format(len).as_bytes());
                out.put_u8(b' ');
            }
            out.put_u8(b'<');
            out.put_slice(pri.as_bytes());
            out.put_slice(b">1 ");
            out.put_slice(&time);
            out.put_u8(b'Z');
            out.put_slice(&header.fields);
            out.put_slice(part);
            if self.logplex || self.framing == Some(Framing::LineFeed) {
                out.put_u8(b'\n');
            }
            done(out);
            text = remaining;
            if text.is_empty() {
                return;
            }
        }
    }
}

/// Whether a line of a batch may contain a level: three searches instead of parsing every line.
pub(crate) fn may_contain_level(data: &[u8]) -> bool {
    ["level", "lvl", "severity"]
        .iter()
        .any(|key| memmem::find(data, key.as_bytes()).is_some())
}

/// Splits a line into its timestamp, cut to microseconds, and its text. A line without a timestamp
/// gets the current time.
fn split_timestamp(line: &[u8]) -> ([u8; MICROS_LEN], &[u8]) {
    let mut time = [0; MICROS_LEN];
    let fixed = line.len() > NANOS_LEN && line[NANOS_LEN - 1] == b'Z' && line[NANOS_LEN] == b' ' && line[19] == b'.';
    if fixed
        && line[..19]
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b':' | b'T'))
    {
        time.copy_from_slice(&line[..MICROS_LEN]);
        return (time, &line[NANOS_LEN + 1..]);
    }
    let (stamp, text) = Timestamp::split_line(line).unwrap_or_else(|| (Timestamp::now(), line));
    // Printed with nanoseconds.
    let printed = stamp.to_string();
    if let Some(micros) = printed.as_bytes().get(..MICROS_LEN) {
        time.copy_from_slice(micros);
    }
    (time, text)
}

/// The number of bytes of a text that fit into `room` without splitting a UTF-8 character. Text
/// that is not UTF-8 is split anywhere.
fn split_position(text: &[u8], room: usize) -> usize {
    if text.len() <= room {
        return text.len();
    }
    let is_inside = |at: usize| text[at] & 0xc0 == 0x80;
    let whole = (room.saturating_sub(3)..=room).rev().find(|at| !is_inside(*at));
    whole.filter(|at| *at > 0).unwrap_or(room)
}

/// Writes a name as printable ASCII without spaces, cut to `max` bytes; `-` if it is empty.
fn put_name(out: &mut Vec<u8>, name: &str, max: usize) {
    let printable = |byte: u8| if byte.is_ascii_graphic() { byte } else { b'_' };
    let before = out.len();
    out.extend(name.bytes().take(max).map(printable));
    if out.len() == before {
        out.push(b'-');
    }
}

/// *Source*: RFC 5424, section 6.2.1.
fn severity(level: Level) -> u8 {
    match level {
        Level::Fatal => 2,
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus::{Epoch, StreamId};
    use registry::{AddressPolicy, DrainUrl};

    use super::*;

    fn format_of(url: &str) -> MessageFormat {
        let drain = DrainUrl::parse(url, &AddressPolicy::default()).unwrap();
        MessageFormat::of(drain.target())
    }

    fn metadata(process: &str, origin: &str, fd: Option<Fd>) -> Arc<StreamMetadata> {
        Arc::new(StreamMetadata {
            app: "shop".parse().unwrap(),
            process: process.to_owned(),
            stream: StreamId::new("uid", "web", "c0ffee", Epoch { millis: 1, random: 1 }).unwrap(),
            node: "node-1".to_owned(),
            origin: origin.to_owned(),
            fd,
            about: None,
        })
    }

    fn rendered(url: &str, metadata: &StreamMetadata, text: &str) -> Vec<String> {
        let (format, mut out, mut messages) = (format_of(url), BytesMut::new(), Vec::new());
        let line = format!("2026-11-23T07:00:00.123456789Z {text}");
        let has_levels = may_contain_level(line.as_bytes());
        format.render_line(&mut out, &format.header(metadata), has_levels, line.as_bytes(), |out| {
            messages.push(String::from_utf8_lossy(&out.split()).into_owned());
        });
        messages
    }

    #[test]
    fn every_protocol_frames_the_same_message() {
        let web = metadata("web-1", "app", None);
        let message = "<14>1 2026-11-23T07:00:00.123456Z shop web-1 - - - hello";
        assert_eq!(rendered("syslog://h.example", &web, "hello"), [message]);
        assert_eq!(
            rendered("syslog+tcp://h.example", &web, "hello"),
            [format!("{} {message}", message.len())]
        );
        assert_eq!(
            rendered("syslog+tls://h.example?framing=lf", &web, "hello"),
            [format!("{message}\n")]
        );
        let logplex = "<14>1 2026-11-23T07:00:00.123456Z host app web-1 - hello\n";
        assert_eq!(
            rendered("https://h.example/", &web, "hello"),
            [format!("{} {logplex}", logplex.len())]
        );
        assert_eq!(
            rendered("syslog://h.example?bom=on", &web, "hello")[0].find('\u{feff}'),
            message.find("hello")
        );
    }

    #[test]
    fn severity_comes_from_the_line_or_from_the_output_stream() {
        let pri = |metadata: &StreamMetadata, text: &str| {
            rendered("syslog://h.example", metadata, text)[0]
                .split('>')
                .next()
                .unwrap()
                .to_owned()
        };
        let (out, err) = (
            metadata("web-1", "app", Some(Fd::Out)),
            metadata("web-1", "app", Some(Fd::Err)),
        );
        for (metadata, text, wanted) in [
            (&out, "plain", "<14"),
            (&err, "plain", "<11"),
            (&err, r#"{"level":"info"}"#, "<14"),
            (&out, r#"{"severity":"CRITICAL"}"#, "<10"),
            (&out, "ts=1 level=warn x=y", "<12"),
            (&out, "lvl=debug", "<15"),
            (
                &metadata("tributary", "tributary", None),
                "Error L13 level=debug",
                "<172",
            ),
        ] {
            assert_eq!(pri(metadata, text), wanted, "{text}");
        }
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let text = "äöü".repeat(1000);
        let messages = rendered("syslog://h.example", &metadata("web-1", "app", None), &text);
        assert!(
            messages.len() > 5 && messages.iter().all(|message| message.len() <= 1024),
            "{messages:?}"
        );
        let joined: String = messages
            .iter()
            .map(|message| message.split_once(" - - - ").unwrap().1)
            .collect();
        assert_eq!(joined, text);
    }

    #[test]
    fn names_are_shortened_and_sanitized_and_empty_lines_are_sent() {
        let long = "p".repeat(60);
        let message = &rendered("syslog://h.example", &metadata(&long, "app", None), "")[0];
        assert!(
            message.ends_with(&format!("shop {} {long} - - ", &long[..48])),
            "{message}"
        );
        let message = &rendered("syslog://h.example", &metadata("a b/ü", "app", None), "x")[0];
        assert!(message.contains(" a_b/__ - - - x"), "{message}");
    }

    #[test]
    fn every_message_has_a_utc_timestamp_with_microseconds() {
        let format = format_of("syslog://h.example");
        let header = format.header(&metadata("web-1", "app", None));
        for (line, end) in [
            ("2026-11-23T09:00:00.5+02:00 hello", "hello"),
            ("no time at all", "no time at all"),
            ("", ""),
        ] {
            let mut out = BytesMut::new();
            format.render_line(&mut out, &header, false, line.as_bytes(), |_| ());
            let message = String::from_utf8(out.to_vec()).unwrap();
            let time = message.split(' ').nth(1).unwrap();
            assert!(
                time.len() == 27 && time.ends_with('Z') && message.ends_with(&format!(" - - - {end}")),
                "{message}"
            );
            assert!(!line.contains("+02") || time == "2026-11-23T07:00:00.500000Z", "{time}");
        }
    }
}
