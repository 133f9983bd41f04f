//! The directory: a folder an app, and the lock that makes it ours.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use parking_lot::{Mutex, RwLock};

use super::{
    Limits,
    log::Log,
    offset::{Place, Reserved},
    subscription::Subscription,
};
use crate::{AppName, BusError};

/// All that the embedded bus keeps.
pub(super) struct Store {
    pub(super) limits: Limits,
    apps: PathBuf,
    logs: RwLock<BTreeMap<AppName, Arc<Log>>>,
    subscribed: Arc<Mutex<HashSet<PathBuf>>>,
    /// A sync failed: what the disk holds is not known any more, so nothing is accepted until a restart has looked.
    failure: OnceLock<String>,
    /// Held as long as the store is.
    _lock: File,
}

impl Store {
    pub(super) fn open(dir: &Path, limits: Limits) -> Result<Self, BusError> {
        let refused = |error: io::Error| BusError::Open {
            dir: dir.to_owned(),
            reason: error.to_string(),
        };
        let apps = dir.join("apps");
        fs::create_dir_all(&apps).map_err(refused)?;
        let lock = File::create(dir.join("lock")).map_err(refused)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BusError::InUse(dir.to_owned()),
            TryLockError::Error(error) => refused(error),
        })?;
        let logs = open_logs(&apps).map_err(refused)?;
        Ok(Self {
            limits,
            apps,
            logs: RwLock::new(logs),
            subscribed: Arc::default(),
            failure: OnceLock::new(),
            _lock: lock,
        })
    }

    /// Why nothing is accepted any more; `None` while it is.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Accepts nothing from here on. The first reason stays.
    pub(super) fn fail(&self, reason: String) {
        let _ = self.failure.set(reason);
    }

    /// The topic of an app that has one.
    pub(super) fn log(&self, app: &AppName) -> Option<Arc<Log>> {
        self.logs.read().get(app).cloned()
    }

    /// The topics, by name.
    pub(super) fn logs(&self) -> Vec<Arc<Log>> {
        self.logs.read().values().cloned().collect()
    }

    pub(super) fn apps(&self) -> Vec<AppName> {
        self.logs().iter().map(|log| log.app.clone()).collect()
    }

    /// The apps that have a durable subscription, by name.
    pub(super) fn subscribed_apps(&self) -> io::Result<Vec<AppName>> {
        let mut apps = Vec::new();
        for log in self.logs() {
            if log.has_subscriptions()? {
                apps.push(log.app.clone());
            }
        }
        Ok(apps)
    }

    /// An app's topic, made where it does not exist. For the committer.
    pub(super) fn open_log(&self, app: &AppName) -> io::Result<Arc<Log>> {
        if let Some(log) = self.log(app) {
            return Ok(log);
        }
        let log = Arc::new(Log::create(&self.apps, app)?);
        self.logs.write().insert(app.clone(), Arc::clone(&log));
        Ok(log)
    }

    /// Removes an app's topic with all it keeps. For the committer.
    pub(super) fn remove_log(&self, app: &AppName) -> io::Result<()> {
        let log = self.logs.write().remove(app);
        log.map_or(Ok(()), |log| log.delete())
    }

    /// Opens a durable subscription for one reader, where it was, or at the topic's end where it is new. Its place lasts when this returns.
    pub(super) fn subscription(&self, log: &Arc<Log>, name: &str) -> Result<Subscription, BusError> {
        let path = log.subscription_path(name);
        let reserved = Reserved::new(&path, &self.subscribed);
        let reserved = reserved.ok_or_else(|| BusError::Subscribed(name.to_owned()))?;
        let (place, floor) = Place::open(&path, reserved, *log.newest.borrow())?;
        log.sync_dir()?;
        Ok(Subscription::new(Arc::clone(log), place, floor))
    }

    /// Forgets a subscription; it is not being read.
    pub(super) fn forget_subscription(&self, app: &AppName, name: &str) -> io::Result<()> {
        let Some(log) = self.log(app) else { return Ok(()) };
        match fs::remove_file(log.subscription_path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn open_logs(apps: &Path) -> io::Result<BTreeMap<AppName, Arc<Log>>> {
    let mut logs = BTreeMap::new();
    for entry in fs::read_dir(apps)? {
        let entry = entry?;
        let app: Option<AppName> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(app) = app {
            logs.insert(app.clone(), Arc::new(Log::open(entry.path(), app)?));
        }
    }
    Ok(logs)
}
