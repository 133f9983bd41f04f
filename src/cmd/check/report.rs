//! What was found, a line each.

use std::{fmt::Display, time::Duration};

use bus::notice::one_line;

use crate::console as say;

/// How many lines of each kind there were.
#[derive(Default)]
pub(super) struct Report {
    faults: usize,
    unchecked: usize,
}

impl Report {
    /// It is as it should be.
    pub(super) fn ok(&mut self, part: &str, said: impl Display) {
        say::answer(&format!("ok         {part:<10} {said}"));
    }

    /// It is not, and what to do.
    pub(super) fn fault(&mut self, part: &str, said: impl Display) {
        self.faults += 1;
        say::answer(&format!("FAULT      {part:<10} {}", one_line(&said.to_string())));
    }

    /// It was not looked at, and why.
    pub(super) fn unchecked(&mut self, part: &str, said: impl Display) {
        self.unchecked += 1;
        say::answer(&format!("unchecked  {part:<10} {}", one_line(&said.to_string())));
    }

    /// All of it in a word.
    ///
    /// # Errors
    /// Where there was a fault.
    pub(super) fn conclude(self) -> anyhow::Result<()> {
        match (self.faults, self.unchecked) {
            (0, 0) => say::aside("no fault"),
            (0, unchecked) => say::aside(&format!("no fault, {unchecked} not checked")),
            (1, _) => anyhow::bail!("1 fault"),
            (faults, _) => anyhow::bail!("{faults} faults"),
        }
        Ok(())
    }
}

/// So many of these.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A time as people read it, in whole milliseconds.
pub(super) fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
