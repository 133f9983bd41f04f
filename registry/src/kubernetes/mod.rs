//! The registry of a cluster: reads, watches and replaces Secrets of one namespace; it does not
//! interpret drains or keys.

mod objects;
mod secrets;
mod store;
mod watch;

pub use store::KubernetesRegistry;
