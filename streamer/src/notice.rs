//! What the platform says in an app's own log, in Heroku's codes where one fits.

use std::fmt::Write;

use bus::{Loss, LossReason, Published, Timestamp, Unreadable};

/// The process and source of a notice.
pub(crate) const TRIBUTARY: &str = "tributary";

/// One platform line, without time and process.
///
/// *Source*: Heroku Dev Center, Error Codes: L11 a tail that was too slow, L12 dropped before it was sent on, L13 lost on the way.
pub(crate) fn gap(process: &str, seq: u64, lines: u64, loss: Option<&Loss>) -> String {
    let (code, why) = match loss.map(|loss| &loss.reason) {
        None => ("L13", "they did not arrive"),
        Some(LossReason::Away) => ("L13", "the collector was away while the node dropped them"),
        Some(LossReason::Gone) => ("L13", "the container's last lines could no longer be read"),
        Some(LossReason::Rotated) => ("L13", "the node rotated its file faster than it could be read"),
        Some(LossReason::Spool) => ("L12", "the collector's spool was full"),
        Some(LossReason::Limit) => ("L12", "the app printed faster than its limit"),
        Some(LossReason::Refused) => ("L13", "the bus refused them"),
        Some(LossReason::Other(reason)) => ("L13", reason.as_str()),
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
    // Writing to a String cannot fail.
    match loss.map_or((None, None), |loss| (loss.from, loss.to)) {
        (Some(from), Some(to)) => drop(write!(text, ", between {from} and {to}")),
        (Some(from), None) => drop(write!(text, ", since {from}")),
        (None, Some(to)) => drop(write!(text, ", before {to}")),
        (None, None) => {}
    }
    // A reason may come from outside: one line, whatever it holds.
    text.push_str(": ");
    text.extend(why.chars().map(|c| if c.is_control() { ' ' } else { c }));
    text
}

/// A tail that fell off the ring.
pub(crate) fn overflow(lines: u64, since: Timestamp) -> String {
    format!("Error L11 (Tail buffer overflow) -> This tail session dropped {lines} messages since {since}")
}

/// A reader whose subscription was interrupted.
pub(crate) fn interrupted(from: Published, to: Published) -> String {
    let time = |published: Published| Timestamp(i64::try_from(published.0.saturating_mul(1000)).unwrap_or(i64::MAX));
    let (from, to) = (time(from), time(to));
    format!(
        "Error L13: an unknown number of messages lost, taken by the bus between {from} and {to}: it no longer has them"
    )
}

/// A message that this version cannot read.
pub(crate) fn unreadable(unreadable: &Unreadable) -> String {
    let why: String = unreadable
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("Error L13: a message that this version cannot read was left out: {why}")
}

/// History that was asked for and could not be had.
pub(crate) fn no_history() -> String {
    "Error L15: history could not be read in full: the bus failed; what follows is live".to_owned()
}
