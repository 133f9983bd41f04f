//! The store's directory: a subdirectory per app, and a lock file.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use system::{
    collections::HashSet,
    files::{self, File, OpenOptions, Outage},
    task,
};

use super::{
    log::Log,
    offset::{Offset, Reservation},
    settings::EmbeddedSettings,
    subscription::Subscription,
};
use crate::{AppName, BusError};

/// The store of the embedded bus.
pub(super) struct Store {
    pub(super) settings: EmbeddedSettings,
    apps: PathBuf,
    logs: RwLock<BTreeMap<AppName, Arc<Log>>>,
    reservations: Arc<Mutex<HashSet<PathBuf>>>,
    /// Why batches are rejected; `None` while they are accepted. What a failed sync leaves on the
    /// disk is unknown: its batches are rejected, and later ones go to another segment.
    outage: Mutex<Outage>,
    dir: PathBuf,
    /// Locked while the store is open.
    _lock: File,
}

impl Store {
    pub(super) fn open(dir: &Path, settings: EmbeddedSettings) -> Result<Self, BusError> {
        let failed = |error: io::Error| BusError::Open {
            dir: dir.to_owned(),
            reason: error.to_string(),
        };
        let apps = dir.join("apps");
        create_dir(&apps).map_err(failed)?;
        let lock = OpenOptions::new().write(true).create(true).open(&dir.join("lock"));
        let lock = lock.map_err(failed)?;
        if !lock.try_lock().map_err(failed)? {
            return Err(BusError::InUse(dir.to_owned()));
        }
        let logs = open_logs(&apps).map_err(failed)?;
        Ok(Self {
            settings,
            apps,
            logs: RwLock::new(logs),
            reservations: Arc::default(),
            outage: Mutex::default(),
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// Returns why batches are rejected; `None` while they are accepted.
    pub(super) fn failure(&self) -> Option<String> {
        self.outage.lock().reason().map(str::to_owned)
    }

    /// Sets why batches are rejected. A failure that lasts is logged once a minute.
    pub(super) fn set_failure(&self, reason: Option<String>) {
        let mut outage = self.outage.lock();
        let Some(reason) = reason else {
            if let Some(ended) = outage.record_success() {
                tracing::info!(failures = ended.failures, "write succeeded, batches accepted again");
            }
            return;
        };
        if outage.record_failure(reason.clone()) {
            tracing::error!(%reason, failures = outage.failures(), dir = %self.dir.display(), "write failed, batches rejected");
        }
    }

    /// Finds out whether the disk accepts writes again.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn probe(&self) -> io::Result<()> {
        files::probe(&self.dir)
    }

    /// Returns an app's topic, if it exists.
    pub(super) fn log(&self, app: &AppName) -> Option<Arc<Log>> {
        self.logs.read().get(app).cloned()
    }

    /// Returns all topics, sorted by app.
    pub(super) fn logs(&self) -> Vec<Arc<Log>> {
        self.logs.read().values().cloned().collect()
    }

    pub(super) fn apps(&self) -> Vec<AppName> {
        self.logs().iter().map(|log| log.app.clone()).collect()
    }

    /// Lists the apps with a durable subscription, sorted by name.
    pub(super) fn apps_with_subscriptions(&self) -> io::Result<Vec<AppName>> {
        let mut apps = Vec::new();
        for log in self.logs() {
            if log.has_subscriptions()? {
                apps.push(log.app.clone());
            }
        }
        Ok(apps)
    }

    /// Returns an app's topic, which is created if it does not exist. Only the committer calls it.
    pub(super) async fn open_log(&self, app: &AppName) -> io::Result<Arc<Log>> {
        if let Some(log) = self.log(app) {
            return Ok(log);
        }
        let log = Arc::new(Log::create(&self.apps, app).await?);
        self.logs.write().insert(app.clone(), Arc::clone(&log));
        Ok(log)
    }

    /// Deletes an app's topic. Only the committer calls it.
    pub(super) async fn remove_log(&self, app: &AppName) -> io::Result<()> {
        let log = self.logs.write().remove(app);
        match log {
            Some(log) => task::io(|| log.delete()).await,
            None => Ok(()),
        }
    }

    /// Opens a durable subscription for one reader, at its stored offset, at the topic's end if it
    /// is new, or at its beginning if the offset is damaged or missing. The offset is durable when this returns.
    pub(super) fn subscription(&self, log: &Arc<Log>, name: &str) -> Result<Subscription, BusError> {
        let path = log.subscription_path(name);
        let reservation = Reservation::new(&path, &self.reservations);
        let reservation = reservation.ok_or_else(|| BusError::SubscriptionInUse(name.to_owned()))?;
        let is_known = log.knows_subscription(&path);
        let (offset, acked) = Offset::open(&path, reservation, is_known, *log.newest.borrow())?;
        log.sync_dir()?;
        log.list_subscription(&path, true)?;
        Ok(Subscription::new(Arc::clone(log), offset, acked))
    }

    /// Deletes a subscription that is not being read.
    pub(super) fn delete_subscription(&self, app: &AppName, name: &str) -> io::Result<()> {
        let Some(log) = self.log(app) else { return Ok(()) };
        let path = log.subscription_path(name);
        log.list_subscription(&path, false)?;
        match files::remove_file(&path) {
            Ok(()) => log.sync_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Creates a directory and its parents, durably.
fn create_dir(dir: &Path) -> io::Result<()> {
    let is_missing = |dir: &&Path| **dir != *Path::new("") && files::metadata(dir).is_err();
    let missing: Vec<_> = dir.ancestors().take_while(is_missing).collect();
    files::create_dir_all(dir)?;
    for created in missing {
        let parent = created.parent().filter(|parent| *parent != Path::new(""));
        files::sync_dir(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn open_logs(apps: &Path) -> io::Result<BTreeMap<AppName, Arc<Log>>> {
    let mut logs = BTreeMap::new();
    for entry in files::list(apps)? {
        if let Ok(app) = entry.name.parse::<AppName>() {
            logs.insert(app.clone(), Arc::new(Log::open(apps.join(entry.name), app)?));
        }
    }
    Ok(logs)
}
