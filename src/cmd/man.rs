//! `tributary man`: writes man pages.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Command};

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary man /usr/local/share/man/man1
  tributary man . && man ./tributary-logs.1";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Write tributary.1 and a page for each subcommand to this directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes one page for each command of a tree; the directory is created.
///
/// # Errors
/// One line with the directory and the cause.
pub(crate) fn run(args: &ManArgs, tree: Command) -> anyhow::Result<()> {
    let context = || {
        format!(
            "cannot write man pages to {}; choose another directory",
            args.dir.display()
        )
    };
    fs::create_dir_all(&args.dir).with_context(context)?;
    clap_mangen::generate_to(tree, &args.dir).with_context(context)?;
    Ok(())
}
