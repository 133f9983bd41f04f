//! Output on the terminal. A closed stdout or stderr is ignored, so that it stops no service.

use std::{
    env,
    io::{ErrorKind, IsTerminal, Write, stderr, stdout},
};

use anyhow::Context;

/// Writes a line to stderr: progress, warnings and errors.
pub(crate) fn eprintln_line(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Writes a line to stdout: the output of the command.
///
/// # Errors
/// Fails if stdout cannot be written, a closed pipe apart.
pub(crate) fn println_line(line: &str) -> anyhow::Result<()> {
    let mut stdout = stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        // For example, `| head` has ended.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Returns whether output to this stream is coloured: only on a terminal that supports it, and only
/// if `NO_COLOR` is empty or unset (<https://no-color.org>).
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
    !is_plain && !is_dumb && stream.is_terminal()
}

/// Replaces control characters, which could change the terminal, by `�`. Newlines are kept.
pub(crate) fn printable(text: &str) -> String {
    let is_allowed = |c: char| !c.is_control() || c == '\n';
    text.chars()
        .map(|c| if is_allowed(c) { c } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

/// Removes user name and password from a URL, so that no output shows them.
pub(crate) fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@').or_else(|| rest.rfind('@')) else {
        return url.to_owned();
    };
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{}", &rest[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_control_characters_are_not_printed() {
        for (url, printed) in [
            ("http://u:p@h.example:1/x", "http://h.example:1/x"),
            ("http://u:p/q@h.example", "http://h.example"),
            ("u:p@h", "h"),
            ("https://h/x", "https://h/x"),
        ] {
            assert_eq!(without_credentials(url), printed);
        }
        assert_eq!(printable("a\u{1b}[31m\nb"), "a\u{fffd}[31m\nb");
    }
}
