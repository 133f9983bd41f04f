//! The steps of a plan.

use std::{fmt, time::Duration};

use super::fault::{Fault, Kind};

/// The names of the apps.
pub const APPS: [&str; 2] = ["shop", "blog"];

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub struct Step {
    /// The number, which stays when other steps are left out.
    pub number: usize,
    /// When, since the start.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// The format of a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailFormat {
    /// `application/x-ndjson`: without cursors until the server closes it.
    Ndjson,
    /// `text/event-stream`: resumes by cursor.
    Events,
}

impl fmt::Display for TailFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ndjson => "NDJSON",
            Self::Events => "SSE",
        })
    }
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Action {
    /// A container prints many lines at once.
    Burst {
        /// Index of the container.
        container: usize,
        /// How many.
        lines: u32,
        /// Bytes a line.
        bytes: u32,
    },
    /// A container exits; the kubelet starts it again.
    Exit {
        /// Index of the container.
        container: usize,
        /// The exit code.
        code: i32,
    },
    /// A pod is deleted, and another one replaces it.
    Replace {
        /// Index of the container whose pod it is.
        container: usize,
    },
    /// A client opens a tail.
    OpenTail {
        /// Index of the app.
        app: usize,
        /// History lines.
        num_lines: u64,
        /// The format.
        format: TailFormat,
    },
    /// The connection of a tail breaks; it resumes if it can.
    BreakTail {
        /// Index of the tail.
        tail: usize,
    },
    /// A client reads nothing for a time.
    StallTail {
        /// Index of the tail.
        tail: usize,
        /// How long.
        time: Duration,
    },
    /// A client reads the history once.
    ReadHistory {
        /// Index of the app.
        app: usize,
    },
    /// A fault.
    Fault(Fault),
}

impl Action {
    /// Returns the kind; what clients ask for has none.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Burst { .. } => Some(Kind::Burst),
            Self::Exit { .. } => Some(Kind::Exit),
            Self::Replace { .. } => Some(Kind::Replace),
            Self::BreakTail { .. } => Some(Kind::BreakTail),
            Self::StallTail { .. } => Some(Kind::StallTail),
            Self::OpenTail { .. } | Self::ReadHistory { .. } => None,
            Self::Fault(fault) => Some(fault.kind()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Burst {
                container,
                lines,
                bytes,
            } => write!(f, "web-{container} prints {lines} lines of {bytes} bytes at once"),
            Self::Exit { container, code } => write!(f, "web-{container} exits with code {code}"),
            Self::Replace { container } => write!(f, "another pod takes the place of web-{container}"),
            Self::OpenTail { app, num_lines, format } => {
                write!(
                    f,
                    "a client opens a tail of {} ({format}, {num_lines} lines of history)",
                    APPS[*app]
                )
            }
            Self::BreakTail { tail } => write!(f, "the connection of tail-{tail} breaks"),
            Self::StallTail { tail, time } => write!(f, "the client of tail-{tail} reads nothing for {time:?}"),
            Self::ReadHistory { app } => write!(f, "a client reads the history of {}", APPS[*app]),
            Self::Fault(fault) => write!(f, "fault {}: {fault}", fault.kind().name()),
        }
    }
}
