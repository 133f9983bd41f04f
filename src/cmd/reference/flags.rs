//! The flags of every subcommand, from the command tree.

use clap::{Arg, Command};

use super::row;

const INTRODUCTION: &str = "\
# Flags

Every flag of every subcommand, with its default and its environment variable. A flag on the command
line wins over its variable. This page is generated: `cargo run -- reference flags`.
";

/// The group of flags without a heading.
const OPTIONS: &str = "Options";

/// Renders the page.
pub(super) fn page(mut tree: Command) -> String {
    tree.build();
    let mut page = INTRODUCTION.to_owned();
    for command in tree.get_subcommands() {
        append(&mut page, command, tree.get_name());
    }
    page
}

/// Appends a command and its subcommands; hidden ones and `help` are left out.
fn append(page: &mut String, command: &Command, parent: &str) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    page.push_str(&format!("\n## {name}\n"));
    if let Some(about) = command.get_about() {
        page.push_str(&format!("\n{about}.\n"));
    }
    let flags: Vec<&Arg> = command
        .get_arguments()
        .filter(|flag| !flag.is_hide_set() && flag.get_id() != "help" && flag.get_id() != "version")
        .collect();
    let mut headings: Vec<&str> = Vec::new();
    for flag in &flags {
        let heading = flag.get_help_heading().unwrap_or(OPTIONS);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        page.push_str(&format!("\n**{heading}**\n\n"));
        page.push_str(&row(&["flag", "default", "environment", "description"]));
        page.push_str(&row(&["---", "---", "---", "---"]));
        for flag in flags
            .iter()
            .filter(|flag| flag.get_help_heading().unwrap_or(OPTIONS) == heading)
        {
            page.push_str(&flag_row(flag));
        }
    }
    for subcommand in command.get_subcommands() {
        append(page, subcommand, &name);
    }
}

fn flag_row(flag: &Arg) -> String {
    let values: Vec<String> = flag
        .get_value_names()
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let takes_value = flag.get_action().takes_values();
    let name = match (flag.get_short(), flag.get_long()) {
        (_, None) => format!("`{}`", values.join(" ")),
        (None, Some(long)) if takes_value => format!("`--{long} {}`", values.join(" ")),
        (Some(short), Some(long)) if takes_value => format!("`-{short}`, `--{long} {}`", values.join(" ")),
        (None, Some(long)) => format!("`--{long}`"),
        (Some(short), Some(long)) => format!("`-{short}`, `--{long}`"),
    };
    let defaults: Vec<_> = flag
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let defaults = if takes_value {
        defaults.join(", ")
    } else {
        String::new()
    };
    let variable = flag
        .get_env()
        .map(|name| format!("`{}`", name.to_string_lossy()))
        .unwrap_or_default();
    row(&[&name, &defaults, &variable, &description(flag)])
}

/// The full help of a flag, with its possible values.
fn description(flag: &Arg) -> String {
    let help = flag.get_long_help().or_else(|| flag.get_help());
    let mut help = help.map(ToString::to_string).unwrap_or_default().replace("\n\n", ". ");
    let possible = flag.get_possible_values();
    if flag.get_action().takes_values() && !possible.is_empty() {
        let possible: Vec<String> = possible
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| match value.get_help() {
                Some(help) => format!("`{}` ({help})", value.get_name()),
                None => format!("`{}`", value.get_name()),
            })
            .collect();
        help.push_str(&format!(". Values: {}", possible.join(", ")));
    }
    help
}
