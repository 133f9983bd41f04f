//! Watches containers' directories.
//!
//! Uses one notifier, and one watch per container whatever the number of its files.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use parking_lot::Mutex;
use system::{
    collections::HashMap,
    files::{DirEvent, DirEventKind, DirNotifier},
    task,
};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::path::{self, Name};

/// Events are collected for this long, so that many lines are read at a time.
const GATHER: Duration = Duration::from_millis(1);

/// The watched directories. Clones share them; dropping the last one stops watching.
#[derive(Clone)]
pub struct DirWatcher {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// `None`: all directories must be polled.
    source: Option<EventSource>,
    /// A failure to watch a directory is logged once.
    is_warned: AtomicBool,
    /// By watch number. The instances of one container share a directory and so a watch.
    subscriptions: Mutex<HashMap<i32, Vec<Weak<Subscription>>>>,
}

struct EventSource {
    notifier: Arc<DirNotifier>,
    /// Ends the task that dispatches the events.
    _stop: DropGuard,
}

/// Reports changes in one directory.
pub struct DirWatch {
    subscription: Arc<Subscription>,
    /// `None`: the directory cannot be watched and must be polled.
    watch: Option<i32>,
    watcher: DirWatcher,
}

struct Subscription {
    number: u32,
    notify: Notify,
    news: Mutex<DirChanges>,
}

/// Changes since the last report.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DirChanges {
    /// Files were created, removed or renamed.
    pub files_changed: bool,
    /// Rotated files that were closed by their writer.
    pub closed: Vec<Name>,
}

impl DirWatcher {
    /// Creates the watcher. If inotify is not available, all directories must be polled.
    pub fn new() -> Self {
        let notifier = match DirNotifier::new() {
            Ok(notifier) => Arc::new(notifier),
            Err(error) => {
                // Unsupported: not Linux.
                if error.kind() != io::ErrorKind::Unsupported {
                    tracing::warn!(%error, "inotify not available, polling all directories; raise fs.inotify.max_user_instances");
                }
                return Self { shared: Arc::default() };
            }
        };
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            source: Some(EventSource {
                notifier: Arc::clone(&notifier),
                _stop: stop.clone().drop_guard(),
            }),
            ..Shared::default()
        });
        let dispatch = dispatch(notifier, Arc::downgrade(&shared));
        task::spawn(async move { stop.run_until_cancelled(dispatch).await });
        Self { shared }
    }

    /// Watches the files of the instance with `number` predecessors in a directory.
    pub fn watch(&self, dir: &Path, number: u32) -> DirWatch {
        let subscription = Arc::new(Subscription {
            number,
            notify: Notify::new(),
            news: Mutex::default(),
        });
        let watch = self.shared.add(dir, &subscription);
        DirWatch {
            subscription,
            watch,
            watcher: self.clone(),
        }
    }
}

impl DirWatch {
    /// Returns whether the directory must be polled.
    pub fn is_polling(&self) -> bool {
        self.watch.is_none()
    }

    /// Returns the changes since the last call, as soon as there are any.
    ///
    /// *Cancel safety*: no change is lost.
    pub async fn changed(&self) -> DirChanges {
        self.subscription.notify.notified().await;
        std::mem::take(&mut *self.subscription.news.lock())
    }
}

impl Drop for DirWatch {
    fn drop(&mut self) {
        if let Some(watch) = self.watch {
            self.watcher.shared.remove(watch, &self.subscription);
        }
    }
}

impl Subscription {
    fn notify(&self, event: &DirEvent) {
        let Some((name, is_gz)) = path::parse(&event.name, self.number) else {
            return;
        };
        let mut news = self.news.lock();
        match event.kind {
            DirEventKind::Closed if !is_gz && !news.closed.contains(&name) => news.closed.push(name),
            DirEventKind::Renamed => news.files_changed = true,
            _ => {}
        }
        drop(news);
        self.notify.notify_one();
    }

    /// Reports a change after events were lost.
    fn notify_overflow(&self) {
        self.news.lock().files_changed = true;
        self.notify.notify_one();
    }
}

impl Shared {
    fn add(&self, dir: &Path, subscription: &Arc<Subscription>) -> Option<i32> {
        let source = self.source.as_ref()?;
        // The lock is taken first: an event may arrive before the watch is registered.
        let mut subscriptions = self.subscriptions.lock();
        match source.notifier.add(dir) {
            Ok(watch) => {
                subscriptions
                    .entry(watch)
                    .or_default()
                    .push(Arc::downgrade(subscription));
                Some(watch)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if !self.is_warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, dir = %dir.display(), "inotify watch failed, polling the directory; raise fs.inotify.max_user_watches");
                }
                None
            }
        }
    }

    fn remove(&self, watch: i32, subscription: &Arc<Subscription>) {
        let mut subscriptions = self.subscriptions.lock();
        let Some(own) = subscriptions.get_mut(&watch) else {
            return;
        };
        own.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(subscription)));
        if own.is_empty() {
            subscriptions.remove(&watch);
            if let Some(source) = &self.source {
                source.notifier.remove(watch);
            }
        }
    }

    fn dispatch(&self, event: &DirEvent) {
        let mut subscriptions = self.subscriptions.lock();
        match event.kind {
            DirEventKind::Overflow => {
                tracing::debug!("inotify queue overflowed, scanning all directories");
                subscriptions
                    .values()
                    .flatten()
                    .filter_map(Weak::upgrade)
                    .for_each(|subscription| subscription.notify_overflow());
            }
            DirEventKind::Removed => {
                subscriptions.remove(&event.watch);
            }
            DirEventKind::Written | DirEventKind::Closed | DirEventKind::Renamed => {
                let watched = subscriptions.get(&event.watch).into_iter().flatten();
                watched
                    .filter_map(Weak::upgrade)
                    .for_each(|subscription| subscription.notify(event));
            }
        }
    }
}

/// Dispatches events until the watcher is dropped or the notifier fails.
async fn dispatch(notifier: Arc<DirNotifier>, shared: Weak<Shared>) {
    let mut next = notifier.next().await;
    while let Some(event) = next {
        let Some(shared) = shared.upgrade() else { return };
        shared.dispatch(&event);
        drop(shared);
        next = match notifier.next().now_or_never() {
            Some(next) => next,
            None => {
                sleep(GATHER).await;
                notifier.next().await
            }
        };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs, io::Write, time::Duration};

    use super::*;

    /// Collects changes until `enough` is satisfied.
    async fn next_changes(dir_watch: &DirWatch, enough: impl Fn(&DirChanges) -> bool) -> DirChanges {
        let mut all = DirChanges::default();
        while !enough(&all) {
            let news = tokio::time::timeout(Duration::from_secs(30), dir_watch.changed()).await;
            let news = news.expect("within the bound");
            all.files_changed |= news.files_changed;
            all.closed.extend(news.closed);
        }
        all
    }

    #[tokio::test]
    async fn a_watch_reports_changes_and_closes_of_its_own_instance_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut file = fs::File::create(path("0.log")).unwrap();
        let watcher = DirWatcher::new();
        let (dir_watch, other) = (watcher.watch(dir.path(), 0), watcher.watch(dir.path(), 1));
        assert!(!dir_watch.is_polling() && !other.is_polling());
        file.write_all(b"x").unwrap();
        let news = tokio::time::timeout(Duration::from_secs(30), dir_watch.changed()).await;
        assert_eq!(
            news.expect("within the bound"),
            DirChanges::default(),
            "only written to"
        );
        fs::rename(path("0.log"), path("0.log.20261123-084316")).unwrap();
        assert_eq!(next_changes(&dir_watch, |news| news.files_changed).await.closed, []);
        drop(file);
        let rotated = Name::Rotated("20261123-084316".to_owned());
        assert_eq!(
            next_changes(&dir_watch, |news| !news.closed.is_empty()).await.closed,
            [rotated]
        );
        assert_eq!(*other.subscription.news.lock(), DirChanges::default());
        drop(dir_watch);
        fs::write(path("1.log"), "").unwrap();
        assert!(
            next_changes(&other, |news| news.files_changed).await.files_changed,
            "the directory is still watched"
        );
    }

    #[tokio::test]
    async fn a_missing_directory_must_be_polled() {
        let dir = tempfile::tempdir().unwrap();
        assert!(DirWatcher::new().watch(&dir.path().join("none"), 0).is_polling());
    }
}
