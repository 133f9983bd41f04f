//! The admin listener.

use std::net::SocketAddr;

use clap::Args;

/// Flags of the admin listener.
#[derive(Args)]
#[command(next_help_heading = "Admin")]
pub(crate) struct AdminArgs {
    /// Serve /healthz, /readyz and /metrics on this address [default: 127.0.0.1, port 9601, 9602
    /// (streamer) or 9603 (sinks), or a free port if that one is in use]
    #[arg(long, env = "TRIBUTARY_ADMIN_LISTEN", value_name = "ADDR", value_parser = crate::flags::values::listen)]
    pub(crate) admin_listen: Option<SocketAddr>,
}
