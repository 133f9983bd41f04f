//! Log events on stderr, filtered by `RUST_LOG`.

use std::io::stderr;

use tracing_subscriber::EnvFilter;

use crate::console;

/// Default filter of the services. The events of the Kubernetes client are left out: the collector
/// reports its failures itself.
pub(crate) const SERVICE_FILTER: &str =
    "warn,tributary=info,collector=info,streamer=info,bus=info,kube_client=off,kube_runtime=off";

/// Default filter of commands that are used at a terminal.
pub(crate) const COMMAND_FILTER: &str = "warn,kube_client=off,kube_runtime=off";

/// Default filter of commands that report every problem in their own output.
pub(crate) const NO_EVENTS: &str = "off";

/// Installs the global subscriber. Colours follow [`console::has_colours`].
pub(crate) fn start(default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(console::has_colours(&stderr()))
        .with_writer(stderr)
        // A write error on a closed stderr would panic otherwise.
        .log_internal_errors(false)
        .init();
}
