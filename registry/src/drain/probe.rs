//! The result of testing a drain, and the interface of what tests it.

use futures::future::BoxFuture;
use serde::Serialize;

use super::record::Drain;

/// One step of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeStep {
    /// `resolve`, `connect`, `tls` or `send`.
    pub step: &'static str,
    /// Whether it succeeded.
    pub ok: bool,
    /// Its duration in milliseconds.
    pub millis: u64,
    /// The result or the error, without secrets.
    pub detail: String,
}

/// The result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The steps, up to the first that failed.
    pub steps: Vec<ProbeStep>,
    /// The bytes sent, empty if an earlier step failed.
    pub sent: Vec<u8>,
}

/// Tests drains.
pub trait Prober: Send + Sync + 'static {
    /// Resolves the host, connects, performs the TLS handshake and sends one line, with the
    /// settings of a running drain. Every step has a timeout.
    ///
    /// *Cancel safety*: dropping the future closes the connection; the line may have been sent.
    fn probe<'a>(&'a self, drain: &'a Drain) -> BoxFuture<'a, ProbeReport>;
}
