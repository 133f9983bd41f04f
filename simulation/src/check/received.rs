//! What a client received: lines, notices, and where responses begin.

use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::BusLimits;

/// What a tail received, in order.
#[derive(Clone, Debug)]
pub enum Received {
    /// A response begins, after the last cursor.
    Begin,
    /// The client has a new cursor: the server knows that it has everything before.
    Cursor,
    /// A line.
    Line {
        /// The stream.
        stream: String,
        /// The sequence number.
        seq: u64,
        /// The text.
        text: String,
        /// Whether its gap was declared before.
        late: bool,
        /// When it arrived.
        at: Duration,
        /// Its other fields.
        fields: Fields,
    },
    /// A notice.
    Notice(Notice),
}

/// The fields of a line besides stream, number and text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The timestamp.
    pub time: Timestamp,
    /// The process.
    pub process: String,
    /// The output: `out` or `err`, if the source distinguishes them.
    pub fd: Option<String>,
}

/// A notice.
#[derive(Clone, Debug, Default)]
pub struct Notice {
    /// The code: `L13`.
    pub code: String,
    /// The reason: `rotated`.
    pub reason: String,
    /// The stream, if it is about one.
    pub stream: Option<String>,
    /// The process of which lines are missing, according to the text.
    pub process: Option<String>,
    /// The sequence number.
    pub first: Option<u64>,
    /// The number of lines, if it is known.
    pub count: Option<u64>,
    /// The earliest time of what is missing, if it is known.
    pub from: Option<Timestamp>,
    /// The latest time of what is missing, if it is known.
    pub to: Option<Timestamp>,
    /// When it arrived.
    pub at: Duration,
}

/// What a tail asked for and received.
#[derive(Clone, Debug, Default)]
pub struct TailLog {
    /// The name in violations.
    pub name: String,
    /// The app.
    pub app: String,
    /// Lines that were printed later must arrive.
    pub since: Duration,
    /// Whether it received everything up to the end of the simulation.
    pub is_complete: bool,
    /// What the bus may do to lines.
    pub bus: BusLimits,
    /// What it received.
    pub received: Vec<Received>,
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "time {}, process {}, output {:?}", self.time, self.process, self.fd)
    }
}
