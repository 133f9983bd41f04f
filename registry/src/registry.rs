//! The interface of every store.

use std::{collections::BTreeMap, sync::Arc, time::Duration, time::SystemTime};

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    drain::{Drain, DrainReport, DrainUrl},
    error::RegistryError,
    key::{Grant, KeyInfo, Keys, NewKey},
};

/// How often who holds a lease asks for it again.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(10);

/// How long a lease is good for after it was asked for: three renewals, so that one that comes late costs nothing.
pub const LEASE: Duration = Duration::from_secs(30);

/// How often at most a drain's last-delivered time is written.
pub const DELIVERED_GRAIN: Duration = Duration::from_secs(60);

/// All drains, by id.
pub type Drains = BTreeMap<u32, Drain>;

/// Drains and keys, kept in one place for all processes that need them.
///
/// Apps are named by text here: what is an app's name is for others to say.
pub trait Registry: Send + Sync + 'static {
    /// The drains, now and as they change.
    fn drains(&self) -> watch::Receiver<Arc<Drains>>;

    /// The keys, now and as they change.
    fn keys(&self) -> watch::Receiver<Arc<Keys>>;

    /// Adds a drain to an app that may have `most` of them, and names it: a random id, a random token.
    ///
    /// # Errors
    /// [`RegistryError::Duplicate`] where the app has a drain with this URL, [`RegistryError::TooMany`] where it has as many as it may, the store's otherwise.
    fn add_drain(&self, app: &str, url: &DrainUrl, most: usize) -> BoxFuture<'_, Result<Drain, RegistryError>>;

    /// Removes an app's drain, and what is known of it.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDrain`] where the app has none with this id, whoever else has; the store's otherwise.
    fn remove_drain(&self, app: &str, id: u32) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// Takes or renews the leases of these drains for `holder`, a name that no other has; returns those that are its own for [`LEASE`] from when this was called.
    ///
    /// A drain has one reader at a time: the one who has its lease. Ask for all that one wants at once, every [`LEASE_RENEWAL`]; what is not returned is another's, or gone.
    ///
    /// # Errors
    /// The store's: then nothing is known, and what was had before is good until its time is over.
    fn lease(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<Vec<u32>, RegistryError>>;

    /// Gives leases back before their time is over, so that others need not wait for it. What is not the holder's stays.
    ///
    /// # Errors
    /// The store's.
    fn release(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// Notes that drains' receivers had everything until then. Written at most once per [`DELIVERED_GRAIN`] and drain: to be called as often as one likes.
    ///
    /// # Errors
    /// The store's.
    fn delivered(&self, drains: Vec<(u32, SystemTime)>) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// When a drain's receiver last had everything, as far as it was written. `None`: never.
    ///
    /// # Errors
    /// The store's.
    fn last_delivered(&self, drain: u32) -> BoxFuture<'_, Result<Option<SystemTime>, RegistryError>>;

    /// Notes how drains are, for whoever asks another process. What is said of a drain holds until it is said anew, or the drain is gone.
    ///
    /// # Errors
    /// The store's.
    fn report(&self, reports: Vec<(u32, DrainReport)>) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// How a drain is, as its reader said last. `None`: nobody has read it yet.
    ///
    /// # Errors
    /// The store's.
    fn report_of(&self, drain: u32) -> BoxFuture<'_, Result<Option<DrainReport>, RegistryError>>;

    /// Makes a key. It can be had only here, and only now.
    ///
    /// # Errors
    /// The store's.
    fn add_key(
        &self,
        email: &str,
        grants: Vec<Grant>,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<NewKey, RegistryError>>;

    /// Makes a key good for nothing from now on, and forgets it.
    ///
    /// # Errors
    /// [`RegistryError::UnknownKey`], or the store's.
    fn revoke_key(&self, id: &str) -> BoxFuture<'_, Result<KeyInfo, RegistryError>>;
}
