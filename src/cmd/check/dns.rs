//! Recognizes names that cannot be resolved, so that a check does not blame what it could not reach.

use tokio::net::lookup_host;

use crate::deadline::answered;

/// What to do about it.
const ADVICE: &str =
    "check the DNS of this machine: /etc/resolv.conf, and on a cluster its DNS service and the network policies";

/// What the standard library says about a name that cannot be resolved.
const LOOKUP_FAILED: &str = "failed to lookup address information";

/// Resolves the host of `HOST:PORT`.
///
/// # Errors
/// One line with the host, the cause and what to do.
pub(super) async fn resolve(address: &str) -> Result<(), String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let cause = match answered(lookup_host(address)).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(timeout) => timeout,
    };
    Err(format!("cannot resolve {host}: {cause}; {ADVICE}"))
}

/// Returns what to do about a failed connection: `otherwise`, unless a name could not be resolved.
pub(super) fn advice(cause: &str, otherwise: &'static str) -> &'static str {
    if cause.contains(LOOKUP_FAILED) {
        ADVICE
    } else {
        otherwise
    }
}
