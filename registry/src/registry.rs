//! The interface of every store.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    drain::{Drain, DrainReport, DrainUrl, Drains},
    error::RegistryError,
    key::{Grant, KeyInfo, Keys, NewKey},
};

/// Drains and keys, stored in one place for all processes.
///
/// App names are plain text here; callers validate them.
///
/// Store errors are [`RegistryError::Corrupt`], [`RegistryError::Io`] and
/// [`RegistryError::Kubernetes`]; every method that returns a result can fail with them.
pub trait Registry: Send + Sync + 'static {
    /// The current drains; the receiver sees every change.
    fn drains(&self) -> watch::Receiver<Arc<Drains>>;

    /// The current keys; the receiver sees every change.
    fn keys(&self) -> watch::Receiver<Arc<Keys>>;

    /// Adds a drain to an app, which may have at most `max` drains, and assigns a random id and
    /// token.
    ///
    /// # Errors
    /// [`RegistryError::DuplicateDrain`] if the app has a drain with this URL,
    /// [`RegistryError::TooManyDrains`] if it has `max` drains, or a store error.
    fn add_drain(&self, app: &str, url: &DrainUrl, max: usize) -> BoxFuture<'_, Result<Drain, RegistryError>>;

    /// Removes an app's drain with its lease and report.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDrain`] if this app has no drain with this id, or a store error.
    fn remove_drain(&self, app: &str, id: u32) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// Acquires or renews the leases of these drains for `holder`, a name unique among all
    /// processes. Returns the drains whose lease `holder` has for
    /// [`LEASE_DURATION`](crate::LEASE_DURATION) from the time of the call.
    ///
    /// Only the holder of a drain's lease sends its lines. Request all wanted drains at once, every
    /// [`LEASE_RENEW_INTERVAL`](crate::LEASE_RENEW_INTERVAL); a drain that is not returned belongs
    /// to another holder or was removed.
    ///
    /// # Errors
    /// A store error. Leases acquired earlier then stay valid until they expire.
    fn acquire_leases(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<Vec<u32>, RegistryError>>;

    /// Releases leases before they expire, so that another process can take over at once. Leases of
    /// other holders are not changed.
    ///
    /// # Errors
    /// A store error.
    fn release_leases(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// Records the times up to which drains have delivered everything. Written at most once per
    /// drain and [`DELIVERED_INTERVAL`](crate::DELIVERED_INTERVAL), however often it is called.
    ///
    /// # Errors
    /// A store error.
    fn record_delivered(&self, drains: Vec<(u32, SystemTime)>) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// The last recorded time up to which a drain had delivered everything, if any.
    ///
    /// # Errors
    /// A store error.
    fn last_delivered(&self, drain: u32) -> BoxFuture<'_, Result<Option<SystemTime>, RegistryError>>;

    /// Stores the state of drains for other processes, until the next report or the drain's
    /// removal.
    ///
    /// # Errors
    /// A store error.
    fn record_reports(&self, reports: Vec<(u32, DrainReport)>) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// The last report of a drain. `None` if no process has run it yet.
    ///
    /// # Errors
    /// A store error.
    fn drain_report(&self, drain: u32) -> BoxFuture<'_, Result<Option<DrainReport>, RegistryError>>;

    /// Creates a key. Its text is returned once and not stored.
    ///
    /// # Errors
    /// A store error.
    fn add_key(
        &self,
        email: &str,
        grants: Vec<Grant>,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<NewKey, RegistryError>>;

    /// Revokes and deletes a key.
    ///
    /// # Errors
    /// [`RegistryError::UnknownKey`], or a store error.
    fn revoke_key(&self, id: &str) -> BoxFuture<'_, Result<KeyInfo, RegistryError>>;
}
