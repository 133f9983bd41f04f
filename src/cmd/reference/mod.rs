//! `tributary reference`: prints the generated pages of docs/reference.

mod flags;
mod metrics;

use clap::{Args, Command, ValueEnum};

use crate::console;

#[derive(Args)]
pub(crate) struct ReferenceArgs {
    /// Print this page
    #[arg(value_name = "PAGE", value_enum)]
    page: Page,
}

/// A generated page.
#[derive(Clone, Copy, ValueEnum)]
enum Page {
    /// docs/reference/flags.md
    Flags,
    /// docs/reference/metrics.md
    Metrics,
}

/// Prints a page as Markdown.
///
/// # Errors
/// Fails if a metric cannot be encoded or stdout cannot be written.
pub(crate) fn run(args: &ReferenceArgs, tree: Command) -> anyhow::Result<()> {
    let page = match args.page {
        Page::Flags => flags::page(tree),
        Page::Metrics => metrics::page()?,
    };
    console::println_line(page.trim_end())
}

/// Formats a row of a Markdown table.
fn row(cells: &[&str]) -> String {
    let cells = cells.iter().map(|cell| cell.replace('\n', " ").replace('|', "\\|"));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}
