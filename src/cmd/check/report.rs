//! The verdicts of a check, one per line.

use std::{fmt::Display, time::Duration};

use bus::notice::one_line;

use crate::console;

/// Prints verdicts and counts them.
#[derive(Default)]
pub(super) struct Report {
    warnings: usize,
    failures: usize,
    skipped: usize,
    output_error: Option<anyhow::Error>,
}

impl Report {
    /// The part works.
    pub(super) fn ok(&mut self, part: &str, detail: impl Display) {
        self.print("OK", part, detail);
    }

    /// The part works, but an operator should act.
    pub(super) fn warn(&mut self, part: &str, detail: impl Display) {
        self.warnings += 1;
        self.print("WARN", part, detail);
    }

    /// The part does not work; the detail says what to do.
    pub(super) fn fail(&mut self, part: &str, detail: impl Display) {
        self.failures += 1;
        self.print("FAIL", part, detail);
    }

    /// The part was not checked, with the reason.
    pub(super) fn skip(&mut self, part: &str, detail: impl Display) {
        self.skipped += 1;
        self.print("SKIP", part, detail);
    }

    /// Prints a summary on stderr.
    ///
    /// # Errors
    /// Fails if there was a failure or stdout cannot be written.
    pub(super) fn conclude(self) -> anyhow::Result<()> {
        if let Some(error) = self.output_error {
            return Err(error);
        }
        let more = [(self.warnings, "warning"), (self.skipped, "part")]
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, noun)| match noun {
                "part" => format!(", {} skipped", count(number, noun)),
                _ => format!(", {}", count(number, noun)),
            })
            .collect::<String>();
        if self.failures > 0 {
            anyhow::bail!("check found {}{more}", count(self.failures, "failure"));
        }
        console::eprintln_line(&format!("check found no failures{more}"));
        Ok(())
    }

    fn print(&mut self, verdict: &str, part: &str, detail: impl Display) {
        let line = format!("{verdict:<4}  {part:<11} {}", one_line(&detail.to_string()));
        if let Err(error) = console::println_line(&line) {
            self.output_error.get_or_insert(error);
        }
    }
}

/// Formats a number with its noun in the singular or the plural.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Formats a duration in whole milliseconds.
pub(super) fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
