//! Platform messages: every line that Tributary adds to an app's log, as text and for programs.
//!
//! All notices are worded here. Codes are Heroku's where one fits (*source*: Heroku Dev Center,
//! Error Codes), reasons are tokens of a closed set. A notice that a reader makes for itself is
//! rendered at once; one that is published travels as [`Content::Message`].

use std::{borrow::Cow, fmt::Write, sync::Arc};

use serde::Serialize;

pub use crate::batch::TRIBUTARY;
use crate::{
    batch::{Content, Gap, GapReason, PlatformMessage, StreamMetadata},
    time::{PublishTime, Timestamp},
    wire::Unreadable,
};

/// A platform message: one line of text, and its facts, which serialize as the JSON formats'
/// `notice` object.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    /// Error code: `L13`.
    pub code: Cow<'static, str>,
    /// Reason as a token: `undelivered`.
    pub reason: Cow<'static, str>,
    /// Id of the affected stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Sequence number of the first lost line; of a gap of unknown size, of the line after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Number of lost lines; null if it is unknown.
    pub count: Option<u64>,
    /// Earliest time of the lost lines, if known (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Latest time of the lost lines, if known (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The line, without timestamp and process.
    #[serde(skip)]
    pub text: String,
}

/// The drain that a notice is about.
#[derive(Clone, Copy, Debug)]
pub struct DrainNotice<'a> {
    /// Id of the drain.
    pub drain: u32,
    /// Its URL without credentials.
    pub url: &'a str,
    /// How often the problem occurred since the previous notice.
    pub times: u64,
    /// The cause, as one phrase.
    pub cause: &'a str,
}

impl Notice {
    fn new(code: &'static str, reason: &'static str, text: &str) -> Self {
        Self {
            code: code.into(),
            reason: reason.into(),
            stream: None,
            first: None,
            count: None,
            from: None,
            to: None,
            text: one_line(text),
        }
    }

    fn between(mut self, from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        self.from = from.map(|time| time.to_string());
        self.to = to.map(|time| time.to_string());
        self
    }

    fn counting(mut self, lines: u64) -> Self {
        self.count = (lines > 0).then_some(lines);
        self
    }

    /// Restores a notice from a platform message on the bus. `text` is its line without timestamp.
    pub fn from_message(message: &PlatformMessage, text: &str) -> Self {
        Self {
            code: message.code.clone().into(),
            reason: message.reason.clone().into(),
            ..Self::new("", "", text)
        }
    }

    /// Returns the notice as content of a batch: one line, and its facts as attributes.
    pub fn into_content(self, time: Timestamp) -> Content {
        Content::Message {
            data: format!("{time} {}\n", self.text).into(),
            message: Arc::new(PlatformMessage {
                code: self.code.into_owned(),
                reason: self.reason.into_owned(),
            }),
        }
    }
}

/// Replaces control characters by spaces, so that text of any source fits one line.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reports a gap of `lines` lines at `seq`; 0 lines: the size is unknown. `gap` is the record of
/// the publisher that lost the lines; `None` if the bus did not deliver them.
pub fn gap(metadata: &StreamMetadata, seq: u64, lines: u64, gap: Option<&Gap>) -> Notice {
    let process = &metadata.process;
    let (code, cause) = match gap.map(|gap| &gap.reason) {
        None => ("L13", "not delivered by the bus"),
        Some(GapReason::Away) => (
            "L13",
            "the node deleted the log file while the collector was not running",
        ),
        Some(GapReason::Gone) => ("L13", "the container's last output was deleted before it was read"),
        Some(GapReason::Rotated) => ("L13", "the node rotated the log file before it was read"),
        Some(GapReason::Spool) => ("L12", "the collector's spool was full"),
        Some(GapReason::Limit) => ("L12", "the app exceeded its rate limit"),
        Some(GapReason::Refused) => ("L13", "the bus rejected them"),
        Some(GapReason::Suspected) => ("L13", "the collector cannot prove that it read all lines"),
        Some(GapReason::MayRepeat) => ("L13", "the collector lost its checkpoint"),
        Some(GapReason::Other(reason)) => ("L13", reason.as_str()),
    };
    let reason = gap.map_or(Cow::Borrowed("undelivered"), |gap| {
        one_line(&gap.reason.to_string()).into()
    });
    let verb = if code == "L12" { "dropped" } else { "lost" };
    let mut text = match lines {
        0 if reason == "suspected" => format!("Error {code}: lines of {process} may be missing before seq {seq}"),
        0 if reason == "may_repeat" => format!("Error {code}: lines of {process} may be repeated from seq {seq}"),
        0 => format!("Error {code}: an unknown number of lines of {process} {verb} before seq {seq}"),
        1 => format!("Error {code}: 1 line of {process} {verb} (seq {seq})"),
        n => format!(
            "Error {code}: {n} lines of {process} {verb} (seq {seq} to {})",
            seq + n - 1
        ),
    };
    let (from, to) = gap.map_or((None, None), |gap| (gap.from, gap.to));
    // Writing to a String cannot fail.
    match (from, to) {
        (Some(from), Some(to)) => drop(write!(text, ", between {from} and {to}")),
        (Some(from), None) => drop(write!(text, ", after {from}")),
        (None, Some(to)) => drop(write!(text, ", before {to}")),
        (None, None) => {}
    }
    text.push_str(": ");
    text.push_str(cause);
    Notice {
        reason,
        stream: Some(metadata.stream.as_str().to_owned()),
        first: Some(seq),
        ..Notice::new(code, "", &text).between(from, to).counting(lines)
    }
}

/// Reports lines that a tail skipped because its client is slow (L11). The text is Heroku's, which
/// clients match.
pub fn slow_client(lines: u64, since: Timestamp) -> Notice {
    let text = format!("Error L11 (Tail buffer overflow) -> This tail session dropped {lines} messages since {since}");
    Notice {
        count: Some(lines),
        ..Notice::new("L11", "slow_client", &text).between(Some(since), None)
    }
}

/// Reports that a subscription was interrupted (L13).
pub fn interrupted(from: PublishTime, to: PublishTime) -> Notice {
    let (from, to) = (Timestamp::from(from), Timestamp::from(to));
    let text = format!(
        "Error L13: an unknown number of lines lost, published between {from} and {to}: the bus subscription was interrupted"
    );
    Notice::new("L13", "interrupted", &text).between(Some(from), Some(to))
}

/// Reports that a cursor is older than the stored history (L13).
pub fn cursor_expired(from: PublishTime, to: PublishTime) -> Notice {
    let (from, to) = (Timestamp::from(from), Timestamp::from(to));
    let text = format!(
        "Error L13: an unknown number of lines lost, published between {from} and {to}: the cursor is older than the stored history"
    );
    Notice::new("L13", "expired", &text).between(Some(from), Some(to))
}

/// Reports a message on the bus that is not a readable batch (L13).
pub fn unreadable(unreadable: &Unreadable) -> Notice {
    let text = format!("Error L13: an unknown number of lines lost: unreadable message on the bus: {unreadable}");
    Notice::new("L13", "unreadable", &text)
}

/// Reports history that was cut because it exceeds the memory limit (L15).
pub fn history_too_large(kept: u64, max_bytes: usize) -> Notice {
    let text = format!("Error L15: history cut to the newest {kept} lines: it exceeds the limit of {max_bytes} bytes");
    Notice::new("L15", "history_too_large", &text)
}

/// Reports history that starts at `since` because reading more of it took too long (L15).
pub fn history_timeout(since: PublishTime) -> Notice {
    let since = Timestamp::from(since);
    let text = format!("Error L15: history starts at {since}: reading older lines took too long");
    Notice::new("L15", "history_timeout", &text).between(None, Some(since))
}

/// Reports history whose end the bus did not confirm in time: lines may be missing (L15).
pub fn history_cut(from: PublishTime, to: PublishTime) -> Notice {
    let (from, to) = (Timestamp::from(from), Timestamp::from(to));
    let text = format!(
        "Error L15: history between {from} and {to} may be incomplete: the bus did not confirm its end in time"
    );
    Notice::new("L15", "history_timeout", &text).between(Some(from), Some(to))
}

/// Reports history that could not be read because the bus failed (L15).
pub fn history_failed() -> Notice {
    let text = "Error L15: history is incomplete: reading it from the bus failed; live lines follow";
    Notice::new("L15", "history_failed", text)
}

/// Reports that an app exceeds its rate limit of `rate` bytes per second and `burst` bytes (L12).
/// Published by a collector.
pub fn rate_limited(rate: u64, burst: u64) -> Notice {
    let text = format!(
        "Error L12 (Rate limit) -> This app exceeds its limit of {rate} bytes per second and node (burst: {burst} bytes); excess lines are dropped"
    );
    Notice::new("L12", "limit", &text)
}

/// Reports that a container's log cannot be read since `since`: its lines are late. Those that the
/// node deletes meanwhile are lost, which a gap declares. Published by a collector (L13).
pub fn container_unreadable(process: &str, since: Timestamp) -> Notice {
    let text = format!("Error L13: the log of {process} cannot be read since {since}; its lines wait on the node");
    Notice::new("L13", "container_unreadable", &text).between(Some(since), None)
}

/// Reports that a pod was excluded from collection (L12). Published by a collector.
pub fn excluded(process: &str) -> Notice {
    let text = format!(
        "Error L12 (Excluded) -> The lines of {process} are not collected: its pod has the annotation tributary.dev/exclude"
    );
    Notice::new("L12", "excluded", &text)
}

/// Reports lines that a drain skips because the bus deleted them before the drain delivered them
/// (L10): at least this many, as a stream that is lost as a whole is not counted; 0: unknown.
pub fn drain_overflow(lines: u64, from: PublishTime, to: PublishTime) -> Notice {
    let count = match lines {
        0 => "an unknown number of lines".to_owned(),
        1 => "at least 1 line".to_owned(),
        n => format!("at least {n} lines"),
    };
    let (from, to) = (Timestamp::from(from), Timestamp::from(to));
    let text = format!(
        "Error L10 (output buffer overflow): {count} dropped between {from} and {to}: no longer stored on the bus"
    );
    Notice::new("L10", "retention", &text)
        .between(Some(from), Some(to))
        .counting(lines)
}

/// Reports lines that the receiver of a drain rejected (L13).
pub fn drain_rejected(about: DrainNotice<'_>, lines: u64) -> Notice {
    let DrainNotice { drain, url, cause, .. } = about;
    let times = times(about.times);
    let (noun, pronoun) = if lines == 1 { ("line", "it") } else { ("lines", "them") };
    let text = format!("Error L13: {lines} {noun} lost: drain {drain} ({url}) rejected {pronoun}{times}: {cause}");
    Notice {
        count: Some(lines),
        ..Notice::new("L13", "rejected", &text)
    }
}

/// Reports that a drain cannot deliver; its lines wait on the bus (L13).
pub fn drain_failing(about: DrainNotice<'_>) -> Notice {
    let DrainNotice { drain, url, cause, .. } = about;
    let times = times(about.times);
    let text = format!("Error L13: drain {drain} ({url}) is failing{times}, its lines wait: {cause}");
    Notice::new("L13", "failing", &text)
}

/// Reports that the certificate of a drain's receiver is invalid; its lines wait on the bus (L14).
/// The text has Heroku's form.
pub fn drain_certificate(about: DrainNotice<'_>) -> Notice {
    let DrainNotice { url, cause, .. } = about;
    let times = times(about.times);
    let text = format!("Error L14 (certificate validation): error={cause:?} uri=\"{url}\"{times}");
    Notice::new("L14", "certificate", &text)
}

fn times(times: u64) -> String {
    if times > 1 {
        format!(" ({times} times)")
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> StreamMetadata {
        StreamMetadata {
            process: "web-1".to_owned(),
            ..StreamMetadata::tributary(
                "shop".parse().unwrap(),
                "uid/web/c0ffee/1800000000000-00000007".parse().unwrap(),
                "node-1",
            )
        }
    }

    fn recorded(reason: GapReason) -> Gap {
        Gap {
            lines: 0,
            reason,
            from: Some(Timestamp(0)),
            to: Some(Timestamp(1_000_000_000)),
        }
    }

    #[test]
    fn a_gap_notice_states_the_count_the_range_and_the_reason() {
        assert_eq!(
            gap(&web(), 13, 7, None).text,
            "Error L13: 7 lines of web-1 lost (seq 13 to 19): not delivered by the bus"
        );
        let limit = Gap {
            from: None,
            to: None,
            ..recorded(GapReason::Limit)
        };
        assert_eq!(
            gap(&web(), 13, 1, Some(&limit)).text,
            "Error L12: 1 line of web-1 dropped (seq 13): the app exceeded its rate limit"
        );
        assert_eq!(
            gap(&web(), 13, 0, Some(&recorded(GapReason::Rotated))).text,
            "Error L13: an unknown number of lines of web-1 lost before seq 13, between 1970-01-01T00:00:00.000000000Z and \
             1970-01-01T00:00:01.000000000Z: the node rotated the log file before it was read"
        );
    }

    #[test]
    fn a_notice_serializes_its_reason_as_a_token() {
        let json = |notice: &Notice| serde_json::to_value(notice).unwrap();
        assert_eq!(
            json(&gap(&web(), 13, 7, None)),
            serde_json::json!({
                "code": "L13", "reason": "undelivered", "stream": "uid/web/c0ffee/1800000000000-00000007", "first": 13, "count": 7
            })
        );
        let suspected = Gap {
            from: None,
            to: None,
            ..recorded(GapReason::Suspected)
        };
        assert_eq!(
            gap(&web(), 13, 0, Some(&suspected)).text,
            "Error L13: lines of web-1 may be missing before seq 13: the collector cannot prove that it read all lines"
        );
        let recorded = recorded(GapReason::Other("new\nreason".to_owned()));
        assert_eq!(gap(&web(), 0, 1, Some(&recorded)).reason, "new reason");
        let expired = json(&cursor_expired(PublishTime(0), PublishTime(1)));
        assert_eq!(
            (&expired["reason"], &expired["count"]),
            (&"expired".into(), &serde_json::Value::Null)
        );
    }

    #[test]
    fn a_published_notice_keeps_its_facts() {
        let about = DrainNotice {
            drain: 7,
            url: "https://logs.example",
            times: 3,
            cause: "status\n413",
        };
        let notice = drain_rejected(about, 2);
        let Content::Message { data, message } = notice.clone().into_content(Timestamp(0)) else {
            panic!("a platform message")
        };
        let line = std::str::from_utf8(&data).unwrap();
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000000000Z Error L13: 2 lines lost: drain 7 (https://logs.example) rejected them (3 times): status 413\n"
        );
        let restored = Notice::from_message(&message, &notice.text);
        assert_eq!((restored.code, restored.reason), (notice.code, notice.reason));
        assert_eq!(restored.text, notice.text);
    }
}
