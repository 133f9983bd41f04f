//! The registry of a cluster: reads, watches and replaces Secrets of one namespace; it does not
//! interpret drains or keys.

mod secret_client;
mod secret_layout;
mod store;
mod watch;

pub use store::KubernetesRegistry;
