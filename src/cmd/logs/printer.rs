//! Lines on stdout, as whoever looks at them wants them.

use std::{
    borrow::Cow,
    io::{self, BufWriter, ErrorKind, IsTerminal, Stdout, Write},
};

use anyhow::Context;
use clap::ValueEnum;
use serde::Deserialize;

/// How lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// `TIME APP[PROCESS]: TEXT`
    Text,
    /// A JSON object a line
    Json,
    /// The text alone; what the platform says of its own goes to stderr
    Raw,
}

/// A line, as it is sent.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) app: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) process: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) text: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) stream: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) seq: Option<u64>,
}

/// Reads a line.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(data: &str) -> serde_json::Result<Line<'_>> {
    serde_json::from_str(data)
}

/// What became of a print.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Printed {
    Well,
    /// Whoever read stdout has seen enough.
    Unread,
}

/// Prints lines; they are seen when it is flushed, into a pipe too.
pub(super) struct Printer {
    output: Output,
    colours: bool,
    stdout: BufWriter<Stdout>,
}

/// Colours that can be read on dark and on light.
const COLOURS: [u8; 6] = [31, 32, 33, 34, 35, 36];

impl Printer {
    pub(super) fn new(output: Output) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        Self {
            output,
            colours: !plain && io::stdout().is_terminal(),
            stdout: BufWriter::new(io::stdout()),
        }
    }

    /// Prints a line; `data` is it as it was sent.
    ///
    /// # Errors
    /// Where it cannot be printed.
    pub(super) fn line(&mut self, data: &str, line: &Line) -> anyhow::Result<Printed> {
        let wrote = match self.output {
            Output::Json => writeln!(self.stdout, "{data}"),
            Output::Raw if line.stream.is_none() => {
                crate::console::aside(&line.text);
                Ok(())
            }
            Output::Raw => writeln!(self.stdout, "{}", line.text),
            Output::Text => {
                let text = layout(line, self.colours);
                writeln!(self.stdout, "{text}")
            }
        };
        printed(wrote)
    }

    /// Says something about the log in its place, where people read it; on stderr where programs do.
    pub(super) fn say(&mut self, what: &str) -> anyhow::Result<Printed> {
        if self.output == Output::Text {
            printed(writeln!(self.stdout, "-- {what}"))
        } else {
            crate::console::aside(&format!("tributary: {what}"));
            Ok(Printed::Well)
        }
    }

    /// Shows what was printed.
    ///
    /// # Errors
    /// Where it cannot be printed.
    pub(super) fn flush(&mut self) -> anyhow::Result<Printed> {
        printed(self.stdout.flush())
    }
}

fn printed(wrote: io::Result<()>) -> anyhow::Result<Printed> {
    match wrote {
        Ok(()) => Ok(Printed::Well),
        // `| head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Printed::Unread),
        Err(error) => Err(error).context("cannot print"),
    }
}

/// The streamer's text layout: microseconds, and always `+00:00`.
fn layout(line: &Line, colours: bool) -> String {
    let time = line
        .time
        .get(.."2026-11-23T07:00:00.123456".len())
        .unwrap_or(&line.time);
    let (app, process, text) = (&line.app, &line.process, &line.text);
    if !colours {
        return format!("{time}+00:00 {app}[{process}]: {text}");
    }
    let sum = process
        .bytes()
        .fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let colour = COLOURS[sum % COLOURS.len()];
    format!("\x1b[{colour}m{time}+00:00 {app}[{process}]:\x1b[0m {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_laid_out_as_the_streamer_does() {
        let data = r#"{"time":"2026-11-23T07:00:00.123456789Z","app":"shop","process":"web","origin":"app","stream":"s","seq":1,"text":"a \"b\""}"#;
        let line = read(data).unwrap();
        assert_eq!(
            layout(&line, false),
            "2026-11-23T07:00:00.123456+00:00 shop[web]: a \"b\""
        );
        let coloured = layout(&line, true);
        assert!(
            coloured.starts_with("\x1b[3") && coloured.ends_with("shop[web]:\x1b[0m a \"b\""),
            "{coloured}"
        );
    }
}
