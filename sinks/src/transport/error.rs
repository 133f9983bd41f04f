//! Errors of delivery to a receiver.

use std::{io, time::Duration};

use causes::tls;

/// The remedy for a receiver's certificate of an unknown authority.
pub(super) const TRUST: &str = "set --drain-ca to the PEM file of its certificate authority";

/// Why lines cannot be delivered. No message contains a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    /// The host name cannot be resolved.
    #[error("cannot resolve the host name: {0}")]
    Resolve(String),
    /// Every address of the host is forbidden.
    #[error(
        "the host name resolves only to loopback, private or reserved addresses; drains connect to public addresses only"
    )]
    Forbidden,
    /// No address accepts a connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The TLS handshake or the verification of the certificate failed.
    #[error("TLS handshake failed: {}", describe_io(.0))]
    Tls(io::Error),
    /// The receiver did not respond in time.
    #[error("no response within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection failed.
    #[error("connection lost: {}", describe_io(.0))]
    Io(io::Error),
    /// The receiver closed the connection.
    #[error("the receiver closed the connection")]
    Closed,
    /// The receiver closed the connection this long after the last write.
    #[error("the receiver closed the connection")]
    ClosedAfter(Duration),
    /// The receiver did not close a half-closed connection in order.
    #[error("the receiver did not confirm the lines: it broke the connection, or did not close it")]
    Unconfirmed,
    /// The response is not valid HTTP, or the request cannot be sent.
    #[error("HTTP error: {0}")]
    Http(String),
    /// The receiver responded with an error.
    #[error("the receiver responded with HTTP {status}")]
    Status {
        /// The status code.
        status: u16,
        /// The pause that the receiver requests.
        retry_after: Option<Duration>,
    },
    /// The stored drain cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// Returns the cause of an I/O error of a connection in words.
fn describe_io(error: &io::Error) -> String {
    tls::of_io(error).map_or_else(|| error.to_string(), |error| tls::describe(error, TRUST))
}

impl DeliveryError {
    /// Whether TLS failed: Heroku's code L14.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether a connection that was open ended before everything on it was confirmed.
    pub(crate) fn is_close(&self) -> bool {
        matches!(
            self,
            Self::Closed | Self::ClosedAfter(_) | Self::Unconfirmed | Self::Io(_)
        )
    }

    /// The pause that the receiver requests.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
