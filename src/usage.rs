//! Usage errors: clap's message with at most one tip.

use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};

use crate::console;

/// Exit code of a usage error.
const USAGE: u8 = 2;

/// Prints help, version or a usage error, and returns the exit code.
pub(crate) fn report(mut error: clap::Error) -> ExitCode {
    let suggests_flag = error.get(ContextKind::SuggestedArg).is_some();
    if suggests_flag || is_unknown_flag(&error) {
        // clap also suggests to pass an unknown flag as a value (`-- --lisen`), which is never
        // meant.
        error.remove(ContextKind::Suggested);
    }
    let rendered = error.render();
    if error.use_stderr() {
        let rendered = if console::has_colours(&std::io::stderr()) {
            rendered.ansi().to_string()
        } else {
            rendered.to_string()
        };
        console::eprintln_line(rendered.trim_end());
        return ExitCode::from(USAGE);
    }
    match console::println_line(rendered.to_string().trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::eprintln_line(&format!("tributary: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Turns a validation error into a usage error of clap.
pub(crate) fn error(error: &anyhow::Error) -> clap::Error {
    clap::Error::raw(
        ErrorKind::ValueValidation,
        format!("{error:#}\n\nFor more information, try '--help'.\n"),
    )
}

fn is_unknown_flag(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::UnknownArgument
}
