//! What can go wrong for the caller of this crate.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the simulated cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener could not be opened; choose another address.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address that was asked for.
        addr: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The directory of the log files could not be made; choose another.
    #[error("cannot keep log files in {}: {source}", dir.display())]
    LogDir {
        /// The directory that was asked for.
        dir: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A container's log file could not be rotated.
    #[error("cannot rotate a log file: {0}")]
    Rotate(#[source] std::io::Error),
    /// There is no such pod.
    #[error("no pod {namespace}/{pod}")]
    NoPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// The pod exists, but has no such container, or the container is not running now.
    #[error("container {container} of pod {namespace}/{pod} is not running")]
    NotRunning {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
    },
    /// A pod with that name exists already.
    #[error("pod {namespace}/{pod} exists already")]
    PodExists {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// The cluster was shut down while the call waited.
    #[error("the simulated cluster was shut down")]
    Closed,
}
