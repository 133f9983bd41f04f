//! [`FileRegistry`]: drains and keys in one file, leases and reports in another.
//!
//! `PATH` holds drains and keys. `PATH.leases` holds leases, delivery times and reports, which
//! change often and have no watchers. Each file is replaced atomically: a new file is written,
//! synced and renamed. Processes serialize changes with a lock on `PATH.lock`.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use system::{clock, task};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    content::Content,
    locked_file::{FileVersion, LockedFile},
};
use crate::{
    drain::{Drain, DrainReport, DrainUrl, Drains},
    error::RegistryError,
    key::{Grant, KeyInfo, Keys, NewKey},
    lease::{Leases, ObservedLeases},
    registry::Registry,
};

/// The interval at which the file is checked for changes of other processes, which must become
/// visible within a second.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Drains and keys in a file.
pub struct FileRegistry {
    shared: Arc<Shared>,
    _polling: DropGuard,
}

/// The file and the state that is published to watchers.
struct Shared {
    file: LockedFile,
    /// Locked while the file is read or changed, so that watchers never see an older state after a
    /// newer one.
    last: Mutex<(Option<FileVersion>, Content)>,
    observed: Mutex<ObservedLeases>,
    drains: watch::Sender<Arc<Drains>>,
    keys: watch::Sender<Arc<Keys>>,
}

impl FileRegistry {
    /// Opens the file, or creates it, and polls it for changes until the registry is dropped.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`RegistryError::Corrupt`] if a file is truncated or not a registry, [`RegistryError::Io`]
    /// if it cannot be read or written.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        let file = LockedFile::new(path.into());
        let opened = file.clone();
        let content = blocking(move || {
            // Reading needs no lock, because files are replaced atomically; the directory may be
            // read-only.
            let content = match opened.read()? {
                Some(content) => content,
                None => opened.update(Content::new, |_| Ok(((), true)))?.1,
            };
            // Reports a corrupt file at the start.
            opened.sibling("leases").read::<Leases>()?;
            Ok(content)
        })
        .await?;
        let shared = Arc::new(Shared {
            file,
            drains: watch::Sender::new(Arc::new(content.drains.clone())),
            keys: watch::Sender::new(Arc::new(content.keys())),
            last: Mutex::new((None, content)),
            observed: Mutex::default(),
        });
        let stop = CancellationToken::new();
        task::spawn(stop.clone().run_until_cancelled_owned(poll(Arc::clone(&shared))));
        Ok(Self {
            shared,
            _polling: stop.drop_guard(),
        })
    }

    /// Changes drains or keys and publishes the change.
    fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Content) -> Result<T, RegistryError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let shared = Arc::clone(&self.shared);
        let update = move || {
            let mut last = shared.last.lock();
            let change = |content: &mut Content| change(content).map(|result| (result, true));
            let (result, content) = shared.file.update(Content::new, change)?;
            shared.publish(&mut last.1, content);
            Ok(result)
        };
        blocking(update).boxed()
    }

    /// Changes the leases; `change` returns its result and whether the file must be written.
    fn update_leases<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Leases, &Drains) -> (T, bool) + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let (shared, file) = (Arc::clone(&self.shared), self.shared.file.sibling("leases"));
        let drains = Arc::clone(&self.shared.drains.borrow());
        let update = move || {
            let change = |leases: &mut Leases| {
                let removed = leases.remove_stale(&drains, &mut shared.observed.lock(), clock::steady());
                let (result, changed) = change(leases, &drains);
                Ok((result, changed || removed))
            };
            file.update(Leases::default, change).map(|(result, _)| result)
        };
        blocking(update).boxed()
    }
}

/// Reads the leases without the lock.
fn read_leases<T: Send + 'static>(
    shared: &Shared,
    read: impl FnOnce(&Leases) -> T + Send + 'static,
) -> BoxFuture<'static, Result<T, RegistryError>> {
    let file = shared.file.sibling("leases");
    let drains = Arc::clone(&shared.drains.borrow());
    let read = move || {
        let mut leases: Leases = file.read()?.unwrap_or_default();
        leases.remove_stale(&drains, &mut ObservedLeases::default(), clock::steady());
        Ok(read(&leases))
    };
    blocking(read).boxed()
}

impl Shared {
    /// Publishes what changed.
    fn publish(&self, last: &mut Content, content: Content) {
        if content.drains != last.drains {
            self.drains.send_replace(Arc::new(content.drains.clone()));
        }
        if !content.has_same_keys(last) {
            self.keys.send_replace(Arc::new(content.keys()));
        }
        *last = content;
    }

    /// Reads the file if its version changed. If it is missing or corrupt, the last state stays.
    fn refresh(&self) -> Result<(), RegistryError> {
        let mut last = self.last.lock();
        let version = self.file.version()?;
        if last.0 != Some(version) {
            // Set before the file is read, so that a corrupt version is reported once.
            last.0 = Some(version);
            if let Some(content) = self.file.read()? {
                self.publish(&mut last.1, content);
            }
        }
        Ok(())
    }
}

/// Picks up changes of other processes.
async fn poll(shared: Arc<Shared>) {
    let mut is_failing = false;
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let polled = Arc::clone(&shared);
        match blocking(move || polled.refresh()).await {
            Ok(()) => is_failing = false,
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::error!(%error, "registry read failed, keeping the last state");
            }
            Err(_) => {}
        }
    }
}

/// Runs file operations on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    match task::blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and drops this future.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Registry for FileRegistry {
    fn drains(&self) -> watch::Receiver<Arc<Drains>> {
        self.shared.drains.subscribe()
    }

    fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.shared.keys.subscribe()
    }

    fn add_drain(&self, app: &str, url: &DrainUrl, max: usize) -> BoxFuture<'_, Result<Drain, RegistryError>> {
        let (app, url) = (app.to_owned(), url.clone());
        self.update(move |content| {
            let of_app = content.drains.values().filter(|drain| drain.app == app);
            Drain::check_new(of_app, url.as_str(), max)?;
            let drain = Drain::new(&app, url.as_str(), |id| content.drains.contains_key(&id));
            content.drains.insert(drain.id, drain.clone());
            Ok(drain)
        })
    }

    fn remove_drain(&self, app: &str, id: u32) -> BoxFuture<'_, Result<(), RegistryError>> {
        let app = app.to_owned();
        self.update(move |content| {
            let is_of_app = content.drains.get(&id).is_some_and(|drain| drain.app == app);
            let removed = is_of_app.then(|| content.drains.remove(&id)).flatten();
            removed.map(drop).ok_or(RegistryError::UnknownDrain)
        })
    }

    fn acquire_leases(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<Vec<u32>, RegistryError>> {
        let (holder, wanted, now) = (holder.to_owned(), drains.to_vec(), clock::wall_time());
        let shared = Arc::clone(&self.shared);
        self.update_leases(move |leases, drains| {
            let observed = shared.observed.lock();
            let acquired = leases.acquire(&holder, &wanted, drains, &observed, (now, clock::steady()));
            let changed = !acquired.is_empty();
            (acquired, changed)
        })
    }

    fn release_leases(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<(), RegistryError>> {
        let (holder, released) = (holder.to_owned(), drains.to_vec());
        self.update_leases(move |leases, _| (leases.release(&holder, &released), true))
    }

    fn record_delivered(&self, delivered: Vec<(u32, SystemTime)>) -> BoxFuture<'_, Result<(), RegistryError>> {
        self.update_leases(move |leases, drains| {
            let mut due = false;
            for (drain, at) in delivered {
                due |= drains.contains_key(&drain) && leases.record_delivered(drain, at);
            }
            ((), due)
        })
    }

    fn last_delivered(&self, drain: u32) -> BoxFuture<'_, Result<Option<SystemTime>, RegistryError>> {
        read_leases(&self.shared, move |leases| leases.last_delivered(drain))
    }

    fn record_reports(&self, reports: Vec<(u32, DrainReport)>) -> BoxFuture<'_, Result<(), RegistryError>> {
        self.update_leases(move |leases, drains| {
            let mut changed = false;
            for (drain, report) in reports {
                changed |= drains.contains_key(&drain) && leases.record_report(drain, report);
            }
            ((), changed)
        })
    }

    fn drain_report(&self, drain: u32) -> BoxFuture<'_, Result<Option<DrainReport>, RegistryError>> {
        read_leases(&self.shared, move |leases| leases.report(drain))
    }

    fn add_key(
        &self,
        email: &str,
        grants: Vec<Grant>,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<NewKey, RegistryError>> {
        let email = email.to_owned();
        self.update(move |content| {
            let (key, stored) = NewKey::generate(content.secret(), &email, grants, lifetime);
            content.keys.push(stored);
            Ok(key)
        })
    }

    fn revoke_key(&self, id: &str) -> BoxFuture<'_, Result<KeyInfo, RegistryError>> {
        let id = id.to_owned();
        self.update(move |content| {
            let at = content.keys.iter().position(|key| key.info.id == id);
            let at = at.ok_or(RegistryError::UnknownKey)?;
            Ok(content.keys.remove(at).info)
        })
    }
}
