//! The server that a client command connects to.

use clap::Args;

/// Flags of the client commands.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// Connect to the streamer at this URL
    #[arg(
        long,
        env = "TRIBUTARY_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) server: String,
    /// Authenticate with this API key [default: the entry for the server's host in ~/.netrc]
    #[arg(
        long,
        env = "TRIBUTARY_KEY",
        value_name = "KEY",
        hide_env_values = true,
        help_heading = "Auth & TLS"
    )]
    pub(crate) key: Option<String>,
}
