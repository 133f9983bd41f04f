//! The server that a client command connects to.

use clap::Args;

use crate::console::without_credentials;

/// Flags of the client commands.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// Connect to the streamer at this URL
    #[arg(
        long,
        env = "TRIBUTARY_SERVER",
        value_name = "URL",
        hide_env_values = true,
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

impl ServerArgs {
    /// Returns the URL without credentials, for output.
    pub(crate) fn printable_url(&self) -> String {
        without_credentials(&self.server)
    }
}
