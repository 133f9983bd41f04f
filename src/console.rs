//! Words for whoever started the program. Nobody need listen: a closed stdout or stderr stops nothing.

use std::io::{Write, stderr, stdout};

/// Says a line on stderr.
pub(crate) fn aside(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Says a line on stdout: what was asked for.
pub(crate) fn answer(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}
