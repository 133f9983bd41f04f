//! What is configured: drains, and the keys of those who may read.
//!
//! [`Registry`] is the one interface; [`FileRegistry`] keeps it in a file of one machine, [`KubernetesRegistry`] in a cluster's Secrets. Readers never ask a store: they hold a [`tokio::sync::watch::Receiver`], and
//! see a change, whoever made it, within a second.
//!
//! A [`Drain`] is a place where an app's lines are forwarded for good; its [`DrainUrl`] was looked at when it was added. A key proves who asks
//! ([`Keys::holder`]), and what that one may do to which app ([`Holder::may`]).

mod drain;
mod error;
mod file;
mod key;
mod kubernetes;
mod leases;
mod registry;

pub use drain::{
    Addresses, Drain, DrainReport, DrainState, DrainUrl, Framing, InvalidDrainUrl, ProbeReport, ProbeStep, Prober,
    Protocol, Target,
};
pub use error::RegistryError;
pub use file::FileRegistry;
pub use key::{Action, Grant, Holder, KEY_LIFETIME, KeyInfo, Keys, NewKey, Role, SESSION_LIFETIME};
pub use kubernetes::KubernetesRegistry;
pub use registry::{DELIVERED_GRAIN, Drains, LEASE, LEASE_RENEWAL, Registry};
