//! Why a receiver does not have its lines. Never with a secret.

use std::{io, time::Duration};

/// Why a receiver does not have its lines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Its name leads nowhere.
    #[error("its name cannot be looked up: {0}")]
    Resolve(String),
    /// Its name leads where drains may not go.
    #[error("its name leads to this machine or to a private network, where drains may not go")]
    Forbidden,
    /// None of its addresses could be connected to.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// It does not prove who it is, or speaks no TLS.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broke(io::Error),
    /// The receiver ended it.
    #[error("the receiver closed the connection")]
    Closed,
    /// HTTP went wrong.
    #[error("HTTP: {0}")]
    Http(String),
    /// It answered that it cannot just now.
    #[error("it answers {status}")]
    Answer {
        /// With which status.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// What is configured cannot be used.
    #[error("{0}")]
    Unusable(String),
}

impl Failure {
    /// Whether this is about who the receiver is: Heroku's L14.
    pub(crate) fn is_identity(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// How long the receiver wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
