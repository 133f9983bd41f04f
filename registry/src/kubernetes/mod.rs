//! The registry of a cluster, in the Secrets of one namespace.

mod objects;
mod store;
mod watch;

pub use store::KubernetesRegistry;
