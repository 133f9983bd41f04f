//! What the platform says in an app's own log, in Heroku's codes where one fits.

use std::fmt::Write;

use serde::Serialize;

use crate::{Gap, GapReason, PublishTime, StreamMetadata, Timestamp, Unreadable};

/// The process and source of a notice.
pub const TRIBUTARY: &str = "tributary";

/// What a reader is told of: one line of text, and the same for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    /// Heroku's code where one fits.
    code: &'static str,
    /// Why, in words.
    reason: String,
    /// The stream that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// The first seq that is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    /// How many are missing. `None`, null, where that cannot be known.
    count: Option<u64>,
    /// Not before this time, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Not after this time, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// The line, without time and process.
    #[serde(skip)]
    pub text: String,
}

impl Notice {
    fn new(code: &'static str, reason: &str, text: String) -> Self {
        Self {
            code,
            reason: one_line(reason),
            stream: None,
            first: None,
            count: None,
            from: None,
            to: None,
            text: one_line(&text),
        }
    }

    fn between(mut self, from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        self.from = from.map(|time| time.to_string());
        self.to = to.map(|time| time.to_string());
        self
    }
}

/// What comes from outside may hold anything: one line of it.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Seqs of a stream that will not come.
///
/// *Source*: Heroku Dev Center, Error Codes: L11 a tail that was too slow, L12 dropped before it was sent on, L13 lost on the way.
pub fn gap(metadata: &StreamMetadata, seq: u64, lines: u64, loss: Option<&Gap>) -> Notice {
    let process = &metadata.process;
    let (code, why) = match loss.map(|loss| &loss.reason) {
        None => ("L13", "they did not arrive"),
        Some(GapReason::Away) => ("L13", "the collector was away while the node dropped them"),
        Some(GapReason::Gone) => ("L13", "the container's last lines could no longer be read"),
        Some(GapReason::Rotated) => ("L13", "the node rotated its file faster than it could be read"),
        Some(GapReason::Spool) => ("L12", "the collector's spool was full"),
        Some(GapReason::Limit) => ("L12", "the app printed faster than its limit"),
        Some(GapReason::Refused) => ("L13", "the bus refused them"),
        Some(GapReason::Other(reason)) => ("L13", reason.as_str()),
    };
    let verb = if code == "L12" { "dropped" } else { "lost" };
    let mut text = match lines {
        0 => format!("Error {code}: an unknown number of messages of {process} {verb} before seq {seq}"),
        1 => format!("Error {code}: 1 message of {process} {verb}, seq {seq}"),
        n => format!(
            "Error {code}: {n} messages of {process} {verb}, seq {seq} to {}",
            seq + n - 1
        ),
    };
    let (from, to) = loss.map_or((None, None), |loss| (loss.from, loss.to));
    // Writing to a String cannot fail.
    match (from, to) {
        (Some(from), Some(to)) => drop(write!(text, ", between {from} and {to}")),
        (Some(from), None) => drop(write!(text, ", since {from}")),
        (None, Some(to)) => drop(write!(text, ", before {to}")),
        (None, None) => {}
    }
    text.push_str(": ");
    text.push_str(why);
    Notice {
        stream: Some(metadata.stream.as_str().to_owned()),
        first: Some(seq),
        count: (lines > 0).then_some(lines),
        ..Notice::new(code, why, text).between(from, to)
    }
}

/// A tail that fell off the ring.
pub fn overflow(lines: u64, since: Timestamp) -> Notice {
    let text = format!("Error L11 (Tail buffer overflow) -> This tail session dropped {lines} messages since {since}");
    Notice {
        count: Some(lines),
        ..Notice::new("L11", "this reader was too slow", text).between(Some(since), None)
    }
}

/// A reader whose subscription was interrupted.
pub fn interrupted(from: PublishTime, to: PublishTime) -> Notice {
    let (from, to) = (Timestamp::from(from), Timestamp::from(to));
    let text = format!(
        "Error L13: an unknown number of messages lost, taken by the bus between {from} and {to}: it no longer has them"
    );
    Notice::new("L13", "the bus no longer has them", text).between(Some(from), Some(to))
}

/// A cursor from before what can still be read.
pub fn out_of_reach(from: PublishTime, to: PublishTime) -> Notice {
    let (from, to) = (Timestamp::from(from), Timestamp::from(to));
    let text = format!(
        "Error L13: an unknown number of messages lost, taken by the bus between {from} and {to}: history no longer reaches back to where this reader was"
    );
    Notice::new("L13", "history no longer reaches back so far", text).between(Some(from), Some(to))
}

/// A message that this version cannot read.
pub fn unreadable(unreadable: &Unreadable) -> Notice {
    let text = format!("Error L13: a message that this version cannot read was left out: {unreadable}");
    Notice::new("L13", "a message that this version cannot read", text)
}

/// History that was cut to what may be held.
pub fn cut(kept: u64, max_bytes: usize) -> Notice {
    let text =
        format!("Error L15: history is cut to its newest {kept} lines: more than {max_bytes} bytes were asked for");
    Notice::new("L15", "history is cut: too many bytes", text)
}

/// History that took too long to read.
pub fn too_long(since: PublishTime) -> Notice {
    let since = Timestamp::from(since);
    let text = format!("Error L15: history is cut: it begins {since}, since further back could not be read in time");
    Notice::new("L15", "history is cut: it took too long", text).between(None, Some(since))
}

/// History that was asked for and could not be had.
pub fn no_history() -> Notice {
    let text = "Error L15: history could not be read in full: the bus failed; what follows is live";
    Notice::new("L15", "history could not be read", text.to_owned())
}
