//! Usage errors: clap's message with at most one tip.

use std::process::ExitCode;

use clap::{
    Command, CommandFactory,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{cmd::Cli, console, flags::validation::UsageError};

/// Exit code of a usage error.
const USAGE: u8 = 2;

/// Names less similar than this are not suggested.
const MIN_SIMILARITY: f64 = 0.6;

/// Prints help, version or a usage error, and returns the exit code.
pub(crate) fn report(mut error: clap::Error) -> ExitCode {
    let arguments = arguments();
    keep_one_tip(&mut error, &arguments);
    if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg).cloned()
        && matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
        && let Some(variable) = variable_of(&name, &arguments)
    {
        let name = format!("{name} (from {variable})");
        error.insert(ContextKind::InvalidArg, ContextValue::String(name));
    }
    let rendered = error.render();
    if error.use_stderr() {
        let plain = rendered.to_string();
        let printable = console::printable(&plain);
        let text = if printable == plain && console::has_colours(&std::io::stderr()) {
            rendered.ansi().to_string()
        } else {
            printable
        };
        console::eprintln_line(text.trim_end());
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

/// Turns validation errors into a usage error of clap.
pub(crate) fn error(error: &UsageError) -> clap::Error {
    let arguments = arguments();
    let messages = error.messages().iter().map(|message| {
        let flag = message.split([' ', ':']).next().unwrap_or_default();
        match variable_of(flag, &arguments) {
            Some(variable) => message.replacen(flag, &format!("{flag} (from {variable})"), 1),
            None => message.clone(),
        }
    });
    let messages = messages.collect::<Vec<_>>().join("; ");
    clap::Error::raw(
        ErrorKind::ValueValidation,
        format!("{messages}\n\nFor more information, try '--help'.\n"),
    )
}

/// Returns the command line without the program's name.
fn arguments() -> Vec<String> {
    std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect()
}

/// Removes all tips but the best one, and tips that are not similar enough.
fn keep_one_tip(error: &mut clap::Error, arguments: &[String]) {
    let invalid = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let unknown = invalid(error, ContextKind::InvalidArg).unwrap_or_default();
            // clap also suggests to pass an unknown flag as a value (`-- --lisen`), which is never
            // meant.
            error.remove(ContextKind::Suggested);
            let is_logs = arguments.first().is_some_and(|command| command == "logs");
            if is_logs && (unknown == "-f" || similarity(&unknown, "--follow") >= 0.8) {
                error.remove(ContextKind::SuggestedArg);
                let tip = "'tributary logs' follows by default; '--no-follow' exits after the history".to_owned();
                error.insert(
                    ContextKind::Suggested,
                    ContextValue::StyledStrs(vec![StyledStr::from(tip)]),
                );
            } else {
                keep_nearest(error, ContextKind::SuggestedArg, &unknown);
            }
        }
        ErrorKind::InvalidSubcommand => {
            let unknown = invalid(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            error.remove(ContextKind::Suggested);
            keep_nearest(error, ContextKind::SuggestedSubcommand, &unknown);
        }
        _ => {
            let value = invalid(error, ContextKind::InvalidValue).unwrap_or_default();
            keep_nearest(error, ContextKind::SuggestedValue, &value);
        }
    }
}

/// Keeps the suggestion that is nearest to what was typed.
fn keep_nearest(error: &mut clap::Error, kind: ContextKind, typed: &str) {
    let candidates = match error.remove(kind) {
        Some(ContextValue::String(text)) => vec![text],
        Some(ContextValue::Strings(texts)) => texts,
        _ => return,
    };
    let nearest = candidates
        .into_iter()
        .filter(|candidate| similarity(typed, candidate) >= MIN_SIMILARITY)
        .max_by(|a, b| similarity(typed, a).total_cmp(&similarity(typed, b)));
    if let Some(nearest) = nearest {
        error.insert(kind, ContextValue::String(nearest));
    }
}

fn similarity(a: &str, b: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(a, b)
}

/// Returns the environment variable that a flag's value is from, or `None` if the flag is on the
/// command line. `flag` may be followed by the name of its value.
fn variable_of(flag: &str, arguments: &[String]) -> Option<String> {
    let long = flag.split(' ').next()?.strip_prefix("--")?;
    let tree = Cli::command();
    let mut command: &Command = &tree;
    for argument in arguments {
        command = command.find_subcommand(argument).unwrap_or(command);
    }
    let known = command.get_arguments().find(|known| known.get_long() == Some(long))?;
    let names = known.get_all_aliases().unwrap_or_default().into_iter().chain([long]);
    let is_given = names.map(|name| format!("--{name}")).any(|name| {
        arguments.iter().any(|argument| {
            argument
                .strip_prefix(&name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    });
    let variable = known.get_env()?;
    let is_set = std::env::var_os(variable).is_some();
    (is_set && !is_given).then(|| variable.to_string_lossy().into_owned())
}
