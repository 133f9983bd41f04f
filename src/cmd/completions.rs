//! `tributary completions`: prints shell completions.

use clap::{Args, Command};
use clap_complete::Shell;

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary completions bash > /etc/bash_completion.d/tributary
  tributary completions zsh > \"${fpath[1]}/_tributary\"
  tributary completions fish > ~/.config/fish/completions/tributary.fish";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Print completions for this shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Prints the completions of a command tree.
///
/// # Errors
/// Fails if stdout cannot be written.
pub(crate) fn run(args: &CompletionsArgs, mut tree: Command) -> anyhow::Result<()> {
    let name = tree.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tree, name, &mut script);
    crate::console::println_line(String::from_utf8_lossy(&script).trim_end())
}
