//! Prints lines to stdout in the chosen format.

use std::{
    borrow::Cow,
    io::{self, BufWriter, ErrorKind, Stdout, Write},
};

use anyhow::Context;
use clap::ValueEnum;
use serde::Deserialize;

use crate::console;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// `TIME APP[PROCESS]: TEXT`
    Text,
    /// One JSON object per line
    Json,
    /// The text alone; platform messages go to stderr
    Raw,
}

/// A line, as the server sends it.
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

/// Parses a line.
///
/// # Errors
/// Fails if the data is not a JSON object with the fields of a line.
pub(super) fn parse(data: &str) -> serde_json::Result<Line<'_>> {
    serde_json::from_str(data)
}

/// Result of a write to stdout.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Printed {
    Written,
    /// The reader of stdout is gone.
    Closed,
}

/// Prints lines; they appear when the printer is flushed.
pub(super) struct Printer {
    output: Output,
    colours: bool,
    stdout: BufWriter<Stdout>,
}

/// Colours that are legible on dark and on light backgrounds.
const COLOURS: [u8; 6] = [31, 32, 33, 34, 35, 36];

impl Printer {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            colours: console::has_colours(&io::stdout()),
            stdout: BufWriter::new(io::stdout()),
        }
    }

    /// Prints a line. `data` is the JSON object as it was received.
    ///
    /// # Errors
    /// Fails if stdout cannot be written, a closed pipe apart.
    pub(super) fn line(&mut self, data: &str, line: &Line) -> anyhow::Result<Printed> {
        let written = match self.output {
            Output::Json => writeln!(self.stdout, "{data}"),
            Output::Raw if line.stream.is_none() => {
                console::eprintln_line(&line.text);
                Ok(())
            }
            Output::Raw => writeln!(self.stdout, "{}", line.text),
            Output::Text => {
                let text = format_text(line, self.colours);
                writeln!(self.stdout, "{text}")
            }
        };
        printed(written)
    }

    /// Prints a remark of the client: among the lines in text output, otherwise on stderr.
    ///
    /// # Errors
    /// The same as [`line`](Self::line).
    pub(super) fn remark(&mut self, text: &str) -> anyhow::Result<Printed> {
        if self.output == Output::Text {
            printed(writeln!(self.stdout, "-- {text}"))
        } else {
            console::eprintln_line(&format!("tributary: {text}"));
            Ok(Printed::Written)
        }
    }

    /// Flushes the printed lines.
    ///
    /// # Errors
    /// The same as [`line`](Self::line).
    pub(super) fn flush(&mut self) -> anyhow::Result<Printed> {
        printed(self.stdout.flush())
    }
}

fn printed(written: io::Result<()>) -> anyhow::Result<Printed> {
    match written {
        Ok(()) => Ok(Printed::Written),
        // For example, `| head` has ended.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Printed::Closed),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

/// Formats a line as the streamer's text format does: microseconds, and always `+00:00`.
fn format_text(line: &Line, colours: bool) -> String {
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
    fn text_output_equals_the_text_format_of_the_streamer() {
        let data = r#"{"time":"2026-11-23T07:00:00.123456789Z","app":"shop","process":"web","origin":"app","stream":"s","seq":1,"text":"a \"b\""}"#;
        let line = parse(data).unwrap();
        assert_eq!(
            format_text(&line, false),
            "2026-11-23T07:00:00.123456+00:00 shop[web]: a \"b\""
        );
        let coloured = format_text(&line, true);
        assert!(
            coloured.starts_with("\x1b[3") && coloured.ends_with("shop[web]:\x1b[0m a \"b\""),
            "{coloured}"
        );
    }
}
