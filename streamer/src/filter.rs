//! Which lines a reader wants.

use bus::{Level, StreamMetadata, Timestamp};
use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};

use crate::frame::{Line, Told};

/// The most bytes of a pattern, and of what it is compiled to: a tail must not cost more than others because of what it looks for.
const MAX_PATTERN_BYTES: usize = 1000;
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// All of what it names must hold. Time is linear in the line.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) process: Option<Process>,
    pub(crate) origin: Option<String>,
    pub(crate) contains: Option<Finder<'static>>,
    pub(crate) regex: Option<Regex>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// Any of these.
    pub(crate) levels: Option<Vec<Level>>,
}

/// Processes by name.
#[derive(Debug)]
pub(crate) enum Process {
    /// This one.
    Named(String),
    /// All whose names begin so.
    Beginning(String),
}

impl Process {
    /// A name; one that ends in `*` means all that begin alike.
    pub(crate) fn read(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Beginning(prefix.to_owned()),
            None => Self::Named(text.to_owned()),
        }
    }

    fn takes(&self, process: &str) -> bool {
        match self {
            Self::Named(name) => process == name,
            Self::Beginning(prefix) => process.starts_with(prefix),
        }
    }
}

/// Compiles a pattern, within bounds.
///
/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("give at most {MAX_PATTERN_BYTES} bytes"));
    }
    let built = RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
        // The last line says what is wrong; those before it point at the place.
        error => {
            let said = error.to_string();
            let last = said.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    })
}

impl Filter {
    /// Whether it takes lines of this stream at all.
    pub(crate) fn takes_stream(&self, metadata: &StreamMetadata) -> bool {
        self.process
            .as_ref()
            .is_none_or(|process| process.takes(&metadata.process))
            && self.origin.as_ref().is_none_or(|origin| *origin == metadata.origin)
    }

    /// Whether it takes this line of a stream that it takes.
    pub(crate) fn takes(&self, line: &Line) -> bool {
        let (time, text) = line.split();
        self.takes_time(time)
            && self.contains.as_ref().is_none_or(|finder| finder.find(text).is_some())
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
            && self
                .levels
                .as_ref()
                .is_none_or(|levels| Level::of(text).is_some_and(|level| levels.contains(&level)))
    }

    /// A gap is told to whoever reads the stream that it is in: what is missing may have been what was looked for.
    pub(crate) fn takes_told(&self, told: &Told) -> bool {
        told.gap
            .as_ref()
            .is_none_or(|gap| self.takes_stream(&gap.metadata) && self.takes_time(told.time))
    }

    fn takes_time(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}
