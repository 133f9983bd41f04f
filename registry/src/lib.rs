//! Configured drains and API keys, shared by every process of a deployment.
//!
//! [`Registry`] is the interface. [`FileRegistry`] stores its data in a file of one machine,
//! [`KubernetesRegistry`] in the Secrets of a namespace. Readers do not query a store: they hold a
//! [`tokio::sync::watch::Receiver`] and see a change of any process within a second.
//!
//! A [`Drain`] forwards an app's lines to a receiver; its [`DrainUrl`] is checked when it is added.
//! An API key identifies a user ([`Keys::authenticate`]) and grants access to apps
//! ([`KeyHolder::is_allowed`]).
//!
//! Reading order is data order: `registry` is the interface; `drain` and `key` are the data,
//! `lease` the state that changes while drains run; `file` and `kubernetes` store all of them.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "tests use the operating system directly"
    )
)]

mod drain;
mod error;
mod file;
mod key;
mod kubernetes;
mod lease;
mod registry;

pub use drain::{
    AddressPolicy, Drain, DrainReport, DrainState, DrainTarget, DrainUrl, Drains, Framing, InvalidDrainUrl,
    ProbeReport, ProbeStep, Prober, Protocol,
};
pub use error::RegistryError;
pub use file::FileRegistry;
pub use key::{Action, DEFAULT_KEY_LIFETIME, Grant, KeyHolder, KeyInfo, Keys, NewKey, Role, SESSION_LIFETIME};
pub use kubernetes::KubernetesRegistry;
pub use lease::{DELIVERED_INTERVAL, LEASE_DURATION, LEASE_RENEW_INTERVAL};
pub use registry::Registry;
