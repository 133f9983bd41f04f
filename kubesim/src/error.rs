//! Errors of the crate.

use std::net::SocketAddr;
use std::path::PathBuf;

/// An operation on the simulated cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API address cannot be bound; choose another address.
    #[error("cannot bind {addr}: {source}")]
    Listen {
        /// The requested address.
        addr: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The directory for log files cannot be created; choose another one.
    #[error("cannot create the log directory {}: {source}", dir.display())]
    LogDir {
        /// The requested directory.
        dir: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A container's log file cannot be rotated.
    #[error("cannot rotate a log file: {0}")]
    Rotate(#[source] std::io::Error),
    /// The pod does not exist.
    #[error("pod {namespace}/{pod} not found")]
    NoPod {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
    },
    /// The pod has no such container, or the container is not running.
    #[error("container {container} of pod {namespace}/{pod} is not running")]
    NotRunning {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// A pod with this name already exists.
    #[error("pod {namespace}/{pod} already exists")]
    PodExists {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
    },
    /// The cluster was shut down during the call.
    #[error("the simulated cluster was shut down")]
    Closed,
}
