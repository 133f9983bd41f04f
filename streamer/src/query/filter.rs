//! Filters of lines.

use bus::{Level, StreamMetadata, Timestamp};
use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};

use crate::line::{Line, NoticeLine};

/// Limits of a regular expression and of its compiled form, so that one tail's filter cannot cost
/// much more than another's.
const MAX_PATTERN_BYTES: usize = 1000;
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// A conjunction of conditions. A match takes time linear in the length of the line.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) process: Option<ProcessPattern>,
    pub(crate) origin: Option<String>,
    pub(crate) contains: Option<Finder<'static>>,
    pub(crate) regex: Option<Regex>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// Matches any of these levels.
    pub(crate) levels: Option<Vec<Level>>,
}

/// A pattern of process names.
#[derive(Debug)]
pub(crate) enum ProcessPattern {
    Exact(String),
    Prefix(String),
}

impl ProcessPattern {
    /// Parses a name; a trailing `*` makes it a prefix.
    pub(crate) fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    fn matches(&self, process: &str) -> bool {
        match self {
            Self::Exact(name) => process == name,
            Self::Prefix(prefix) => process.starts_with(prefix),
        }
    }
}

/// Compiles a regular expression of limited size.
///
/// # Errors
/// What is wrong with the expression, in one line.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "the expression has {} bytes; give at most {MAX_PATTERN_BYTES}",
            pattern.len()
        ));
    }
    let compiled = RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the compiled expression is too large; use smaller repetitions".to_owned(),
        // The message spans several lines: the pattern with a marker, then the reason.
        error => {
            let message = error.to_string();
            let reason = message.lines().last().unwrap_or_default();
            reason.trim_start_matches("error: ").to_owned()
        }
    })
}

impl Filter {
    /// Returns whether lines of this stream can match.
    pub(crate) fn matches_stream(&self, metadata: &StreamMetadata) -> bool {
        self.process
            .as_ref()
            .is_none_or(|process| process.matches(&metadata.process))
            && self.origin.as_ref().is_none_or(|origin| *origin == metadata.origin)
    }

    /// Returns whether a line of a matching stream matches.
    pub(crate) fn matches(&self, line: &Line) -> bool {
        let (time, text) = line.split();
        self.matches_time(time)
            && self.contains.as_ref().is_none_or(|finder| finder.find(text).is_some())
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
            && self
                .levels
                .as_ref()
                .is_none_or(|levels| Level::of(text).is_some_and(|level| levels.contains(&level)))
    }

    /// Returns whether a notice matches. A gap notice matches if its stream does and the time of the
    /// lost lines overlaps the filter's, because the lost lines might have matched. Repeated lines can
    /// have any time after the notice.
    pub(crate) fn matches_notice(&self, notice: &NoticeLine) -> bool {
        let since = self.since.filter(|_| !notice.announces_repeats());
        notice.gap.as_ref().is_none_or(|gap| {
            self.matches_stream(&gap.metadata)
                && since.is_none_or(|since| gap.to >= since)
                && self.until.is_none_or(|until| gap.from <= until)
        })
    }

    fn matches_time(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}
