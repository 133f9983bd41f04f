//! The registry of one machine: a file.
//!
//! `PATH` holds drains and keys, `PATH.leases` who reads which drain and what was delivered: that changes all the time, and concerns no reader. Each is replaced as a
//! whole: written beside, synced, renamed; so whoever reads it has it as it was or as it is. A change happens under a lock (`PATH.lock`) that processes share.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Drain, DrainReport, DrainUrl, Drains, Grant, KeyInfo, Keys, NewKey, Registry, RegistryError,
    file::{
        content::Content,
        locked_file::{Place, Seen},
    },
    leases::Leases,
};

/// How often the file is looked at. Another process's change has to be seen within a second.
const LOOK: Duration = Duration::from_millis(250);

/// Drains and keys in a file.
pub struct FileRegistry {
    shown: Arc<Shown>,
    _looking: DropGuard,
}

/// What readers are shown, and where it comes from.
struct Shown {
    place: Place,
    /// Held while the file is read or changed, so that nobody is shown what is older after what is newer.
    last: Mutex<(Option<Seen>, Content)>,
    drains: watch::Sender<Arc<Drains>>,
    keys: watch::Sender<Arc<Keys>>,
}

impl FileRegistry {
    /// Opens it, or begins it where there is none, and looks after it until it is dropped.
    ///
    /// To be called within a runtime.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] where the file is torn or not ours, [`RegistryError::Store`] where the system does not let us.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        let place = Place::new(path.into());
        let opened = place.clone();
        let content = blocking(move || {
            let begun = opened.look().is_err();
            let ((), content) = opened.change(Content::begin, |_| Ok(((), begun)))?;
            // Looked at now, so that a torn one is told at the start.
            opened.beside("leases").read::<Leases>()?;
            Ok(content)
        })
        .await?;
        let shown = Arc::new(Shown {
            place,
            drains: watch::Sender::new(Arc::new(content.drains.clone())),
            keys: watch::Sender::new(Arc::new(content.keys())),
            last: Mutex::new((None, content)),
        });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(look_after(Arc::clone(&shown))));
        Ok(Self {
            shown,
            _looking: stop.drop_guard(),
        })
    }

    /// Changes drains or keys, and shows the change.
    fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Content) -> Result<T, RegistryError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let shown = Arc::clone(&self.shown);
        let changed = move || {
            let mut last = shown.last.lock();
            let change = |content: &mut Content| change(content).map(|done| (done, true));
            let (done, content) = shown.place.change(Content::begin, change)?;
            shown.show(&mut last.1, content);
            Ok(done)
        };
        blocking(changed).boxed()
    }

    /// Changes what is known of the readers of the drains that there are; `change` says what came of it, and whether it is to be written.
    fn change_leases<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Leases, &Drains) -> (T, bool) + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let place = self.shown.place.beside("leases");
        let drains = Arc::clone(&self.shown.drains.borrow());
        let changed = move || {
            let change = |leases: &mut Leases| {
                let forgot = leases.keep(&drains, SystemTime::now());
                let (done, changed) = change(leases, &drains);
                Ok((done, changed || forgot))
            };
            place.change(Leases::default, change).map(|(done, _)| done)
        };
        blocking(changed).boxed()
    }
}

impl Shown {
    /// Shows what is new.
    fn show(&self, last: &mut Content, content: Content) {
        if content.drains != last.drains {
            self.drains.send_replace(Arc::new(content.drains.clone()));
        }
        if !content.same_keys(last) {
            self.keys.send_replace(Arc::new(content.keys()));
        }
        *last = content;
    }

    /// Reads the file where it is another than last time. One that is gone or torn changes nothing: what was good stays so.
    fn look(&self) -> Result<(), RegistryError> {
        let mut last = self.last.lock();
        let seen = self.place.look()?;
        if last.0 != Some(seen) {
            // Before it is read: a torn one is told once.
            last.0 = Some(seen);
            if let Some(content) = self.place.read()? {
                self.show(&mut last.1, content);
            }
        }
        Ok(())
    }
}

/// Sees what other processes change.
async fn look_after(shown: Arc<Shown>) {
    let mut failed = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let looked = Arc::clone(&shown);
        match blocking(move || looked.look()).await {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                tracing::error!(%error, "the registry cannot be read: what was last read of it holds");
            }
            Err(_) => {}
        }
    }
}

/// Runs what waits for a disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and nobody waits any more.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Registry for FileRegistry {
    fn drains(&self) -> watch::Receiver<Arc<Drains>> {
        self.shown.drains.subscribe()
    }

    fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.shown.keys.subscribe()
    }

    fn add_drain(&self, app: &str, url: &DrainUrl, most: usize) -> BoxFuture<'_, Result<Drain, RegistryError>> {
        let (app, url) = (app.to_owned(), url.clone());
        self.change(move |content| {
            let of_app = content.drains.values().filter(|drain| drain.app == app);
            Drain::fits(of_app, url.as_str(), most)?;
            let drain = Drain::new(&app, url.as_str(), |id| content.drains.contains_key(&id));
            content.drains.insert(drain.id, drain.clone());
            Ok(drain)
        })
    }

    fn remove_drain(&self, app: &str, id: u32) -> BoxFuture<'_, Result<(), RegistryError>> {
        let app = app.to_owned();
        self.change(move |content| {
            let theirs = content.drains.get(&id).is_some_and(|drain| drain.app == app);
            let removed = theirs.then(|| content.drains.remove(&id)).flatten();
            removed.map(drop).ok_or(RegistryError::UnknownDrain)
        })
    }

    fn lease(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<Vec<u32>, RegistryError>> {
        let (holder, wanted, now) = (holder.to_owned(), drains.to_vec(), SystemTime::now());
        self.change_leases(move |leases, drains| {
            let had = leases.take(&holder, &wanted, drains, now);
            let changed = !had.is_empty();
            (had, changed)
        })
    }

    fn release(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<(), RegistryError>> {
        let (holder, released) = (holder.to_owned(), drains.to_vec());
        self.change_leases(move |leases, _| (leases.release(&holder, &released), true))
    }

    fn delivered(&self, delivered: Vec<(u32, SystemTime)>) -> BoxFuture<'_, Result<(), RegistryError>> {
        self.change_leases(move |leases, drains| {
            let mut due = false;
            for (drain, at) in delivered {
                due |= drains.contains_key(&drain) && leases.deliver(drain, at);
            }
            ((), due)
        })
    }

    fn last_delivered(&self, drain: u32) -> BoxFuture<'_, Result<Option<SystemTime>, RegistryError>> {
        self.change_leases(move |leases, _| (leases.delivered(drain), false))
    }

    fn report(&self, reports: Vec<(u32, DrainReport)>) -> BoxFuture<'_, Result<(), RegistryError>> {
        self.change_leases(move |leases, drains| {
            let mut changed = false;
            for (drain, report) in reports {
                changed |= drains.contains_key(&drain) && leases.report(drain, report);
            }
            ((), changed)
        })
    }

    fn report_of(&self, drain: u32) -> BoxFuture<'_, Result<Option<DrainReport>, RegistryError>> {
        self.change_leases(move |leases, _| (leases.report_of(drain), false))
    }

    fn add_key(
        &self,
        email: &str,
        grants: Vec<Grant>,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<NewKey, RegistryError>> {
        let email = email.to_owned();
        self.change(move |content| {
            let (key, stored) = NewKey::make(content.secret(), &email, grants, lifetime);
            content.keys.push(stored);
            Ok(key)
        })
    }

    fn revoke_key(&self, id: &str) -> BoxFuture<'_, Result<KeyInfo, RegistryError>> {
        let id = id.to_owned();
        self.change(move |content| {
            let at = content.keys.iter().position(|key| key.info.id == id);
            let at = at.ok_or(RegistryError::UnknownKey)?;
            Ok(content.keys.remove(at).info)
        })
    }
}
