//! Output on the terminal. A closed stdout or stderr is ignored, so that it stops no service.

use std::io::{Write, stderr, stdout};

/// Writes a line to stderr: progress, warnings and errors.
pub(crate) fn eprintln_line(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Writes a line to stdout: the output of the command.
pub(crate) fn println_line(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}
