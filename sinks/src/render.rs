//! Lines as receivers take them: RFC 5424, or as Logplex frames it.
//!
//! A line costs no allocation and no parse but of its time's shape; what its stream has in common is rendered once.

use bus::{Fd, Level, StreamMetadata, Timestamp, notice::TRIBUTARY};
use bytes::{BufMut, BytesMut};
use memchr::memmem;
use registry::{Framing, Protocol, Target};

/// Bytes of a time with microseconds, without its zone: nanoseconds are cut off (RFC 5424, section 6.2.3, allows six digits).
const MICROS_LEN: usize = 26;

/// Bytes of a time as the log API prints it.
const NANOS_LEN: usize = 30;

/// The longest names (RFC 5424, section 6), and what Papertrail shows of a host's.
const MAX_HOST: usize = 120;
const MAX_APP: usize = 48;
const MAX_PROC: usize = 128;

/// Local5.warning: what Logplex says of itself.
const NOTICE_PRI: u8 = 172;

/// Facility user.
const USER: u8 = 8;

/// A text that is not told apart by us starts so (RFC 5424, section 6.4).
const BOM: &str = "\u{feff}";

/// How a drain's messages look.
pub(crate) struct Style {
    logplex: bool,
    framing: Option<Framing>,
    max_bytes: usize,
    bom: bool,
}

/// What the messages of a stream have in common.
pub(crate) struct Header {
    /// Behind the time: host, app, process and what else comes before the text.
    rest: Vec<u8>,
    /// Where the line names no level.
    pri: u8,
    is_notice: bool,
}

impl Style {
    /// For this receiver. Datagrams have no framing.
    pub(crate) fn of(target: &Target) -> Self {
        let framing = match target.protocol {
            Protocol::Udp => None,
            Protocol::Http | Protocol::Https => Some(Framing::Octets),
            Protocol::Tcp | Protocol::Tls => Some(target.framing),
        };
        Self {
            logplex: target.protocol.is_web(),
            framing,
            max_bytes: target.max_bytes,
            bom: target.bom,
        }
    }

    /// What this stream's messages have in common.
    pub(crate) fn header(&self, metadata: &StreamMetadata) -> Header {
        let pri = match metadata.fd {
            Some(Fd::Err) => USER + 3,
            _ => USER + 6,
        };
        self.named(metadata.app.as_str(), &metadata.process, &metadata.origin, pri)
    }

    /// What messages have in common that we say ourselves, to this app.
    pub(crate) fn own_header(&self, app: &str) -> Header {
        self.named(app, TRIBUTARY, TRIBUTARY, NOTICE_PRI)
    }

    fn named(&self, app: &str, process: &str, origin: &str, pri: u8) -> Header {
        let is_notice = origin == TRIBUTARY;
        let mut rest = Vec::with_capacity(64);
        rest.push(b' ');
        if self.logplex {
            // Logplex: host, the origin, the process; no structured data.
            rest.extend_from_slice(b"host ");
            put_name(&mut rest, origin, MAX_APP);
            rest.push(b' ');
            put_name(&mut rest, process, MAX_PROC);
            rest.extend_from_slice(b" - ");
        } else {
            put_name(&mut rest, app, MAX_HOST);
            rest.push(b' ');
            put_name(&mut rest, process, MAX_APP);
            rest.push(b' ');
            // A name that was cut stands here in full.
            let whole = if process.len() > MAX_APP { process } else { "-" };
            put_name(&mut rest, whole, MAX_PROC);
            rest.extend_from_slice(b" - - ");
            if self.bom {
                rest.extend_from_slice(BOM.as_bytes());
            }
        }
        let pri = if is_notice { NOTICE_PRI } else { pri };
        Header { rest, pri, is_notice }
    }

    /// Renders a line, as the bus has it and without its newline: one message, or several where it is too long for one. Calls `done` behind each.
    pub(crate) fn line(
        &self,
        out: &mut BytesMut,
        header: &Header,
        levels: bool,
        line: &[u8],
        mut done: impl FnMut(&mut BytesMut),
    ) {
        let (time, mut text) = split(line);
        let level = if levels && !header.is_notice {
            Level::of(text)
        } else {
            None
        };
        let pri = level.map_or(header.pri, |level| USER + severity(level));
        let mut digits = itoa::Buffer::new();
        let pri = digits.format(pri);
        // `<` pri `>1 ` time `Z`, what is in common, and with Logplex a newline at the end.
        let fixed = pri.len() + 4 + MICROS_LEN + 1 + header.rest.len() + usize::from(self.logplex);
        let room = self.max_bytes.saturating_sub(fixed).max(1);
        loop {
            let (now, later) = text.split_at(cut(text, room));
            let len = fixed + now.len();
            out.reserve(len + 24);
            if self.framing == Some(Framing::Octets) {
                out.put_slice(itoa::Buffer::new().format(len).as_bytes());
                out.put_u8(b' ');
            }
            out.put_u8(b'<');
            out.put_slice(pri.as_bytes());
            out.put_slice(b">1 ");
            out.put_slice(&time);
            out.put_u8(b'Z');
            out.put_slice(&header.rest);
            out.put_slice(now);
            if self.logplex || self.framing == Some(Framing::Lf) {
                out.put_u8(b'\n');
            }
            done(out);
            text = later;
            if text.is_empty() {
                return;
            }
        }
    }
}

/// Whether any line of these can name its level: three searches for all of them, instead of a parse of each.
pub(crate) fn may_name_levels(data: &[u8]) -> bool {
    ["level", "lvl", "severity"]
        .iter()
        .any(|key| memmem::find(data, key.as_bytes()).is_some())
}

/// A line's time, cut to microseconds, and its text. What has no time gets this moment's.
fn split(line: &[u8]) -> ([u8; MICROS_LEN], &[u8]) {
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
    // Always of the fixed form.
    let printed = stamp.to_string();
    if let Some(micros) = printed.as_bytes().get(..MICROS_LEN) {
        time.copy_from_slice(micros);
    }
    (time, text)
}

/// How much of a text goes into `room` bytes without a character being torn. All of it where it fits; where it is no UTF-8, what fits.
fn cut(text: &[u8], room: usize) -> usize {
    if text.len() <= room {
        return text.len();
    }
    let is_inside = |at: usize| text[at] & 0xc0 == 0x80;
    let whole = (room.saturating_sub(3)..=room).rev().find(|at| !is_inside(*at));
    whole.filter(|at| *at > 0).unwrap_or(room)
}

/// A name as the header takes it: printable ASCII without blanks, cut to its length, `-` where it is empty.
fn put_name(out: &mut Vec<u8>, name: &str, max: usize) {
    let fits = |byte: u8| if byte.is_ascii_graphic() { byte } else { b'_' };
    let before = out.len();
    out.extend(name.bytes().take(max).map(fits));
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
    use registry::{Addresses, DrainUrl};

    use super::*;

    fn style(url: &str) -> Style {
        let drain = DrainUrl::parse(url, &Addresses::default()).unwrap();
        Style::of(drain.target())
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
        let (style, mut out, mut messages) = (style(url), BytesMut::new(), Vec::new());
        let line = format!("2026-11-23T07:00:00.123456789Z {text}");
        let levels = may_name_levels(line.as_bytes());
        style.line(&mut out, &style.header(metadata), levels, line.as_bytes(), |out| {
            messages.push(String::from_utf8_lossy(&out.split()).into_owned());
        });
        messages
    }

    #[test]
    fn each_protocol_has_its_own_frame_around_the_same_line() {
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
    fn a_severity_is_the_lines_own_or_its_outputs() {
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
    fn a_line_that_is_too_long_becomes_several_and_no_character_is_torn() {
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
    fn names_are_cut_and_cleaned_and_an_empty_line_is_a_message() {
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
    fn a_line_of_another_zone_or_without_a_time_has_one_of_the_right_form() {
        let style = style("syslog://h.example");
        let header = style.header(&metadata("web-1", "app", None));
        for (line, end) in [
            ("2026-11-23T09:00:00.5+02:00 hello", "hello"),
            ("no time at all", "no time at all"),
            ("", ""),
        ] {
            let mut out = BytesMut::new();
            style.line(&mut out, &header, false, line.as_bytes(), |_| ());
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
