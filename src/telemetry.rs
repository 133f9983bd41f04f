//! Events on stderr, as many as `RUST_LOG` asks for.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// What is told where `RUST_LOG` is not set: what an operator wants to know. The store's own lifecycle is none of it,
/// and what the Kubernetes client complains of, the collector tells in its own words.
pub(crate) const OPERATOR: &str = "warn,tributary=info,collector=info,streamer=info,bus=info,kube_client=off,kube_runtime=off,fjall=error,lsm_tree=error";

/// The same for somebody at a terminal who wants to see lines, not lifecycles.
pub(crate) const VISITOR: &str = "warn,kube_client=off,kube_runtime=off,fjall=error,lsm_tree=error";

/// Where a command tells itself what is wrong, in its own words.
pub(crate) const SILENT: &str = "off";

/// Starts telling. Colour only on a terminal, and not where `NO_COLOR` is set (no-color.org).
pub(crate) fn start(default_filter: &str) {
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(stderr)
        // Where stderr is gone, a complaint about it would be a panic.
        .log_internal_errors(false)
        .init();
}
