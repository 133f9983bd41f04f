//! Watches containers' directories with inotify.
//!
//! Uses one inotify instance, and one watch per container whatever the number of its files. The
//! `notify` crate would add a thread and a queue of paths; the `inotify` crate wraps the three
//! system calls that `rustix`, a dependency anyway, offers without unsafe code.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Weak},
};

#[cfg(target_os = "linux")]
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::path::{self, Name};

/// The watched directories. Clones share them; dropping the last one stops watching.
#[derive(Clone)]
pub struct DirWatcher {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    #[cfg(target_os = "linux")]
    kernel: Option<linux::Kernel>,
    /// A failure to watch a directory is logged once.
    #[cfg(target_os = "linux")]
    is_warned: AtomicBool,
    /// By watch descriptor. The instances of one container share a directory and so a watch.
    subscriptions: Mutex<HashMap<i32, Vec<Weak<Subscription>>>>,
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
        Self { shared: open_watcher() }
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
    fn notify(&self, dispatch: FileEvent, name: &str) {
        let Some((name, is_gz)) = path::parse(name, self.number) else {
            return;
        };
        let mut news = self.news.lock();
        match dispatch {
            FileEvent::Written => {}
            FileEvent::Closed if is_gz || news.closed.contains(&name) => {}
            FileEvent::Closed => news.closed.push(name),
            FileEvent::Renamed => news.files_changed = true,
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

#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "no events without inotify"))]
enum FileEvent {
    /// Data was written.
    Written,
    /// A writer closed the file.
    Closed,
    /// A name appeared or disappeared.
    Renamed,
}

#[cfg(not(target_os = "linux"))]
fn open_watcher() -> Arc<Shared> {
    Arc::default()
}

#[cfg(not(target_os = "linux"))]
impl Shared {
    fn add(&self, _: &Path, _: &Arc<Subscription>) -> Option<i32> {
        None
    }

    fn remove(&self, watch: i32, _: &Arc<Subscription>) {
        self.subscriptions.lock().remove(&watch);
    }
}

#[cfg(target_os = "linux")]
use linux::open_watcher;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        mem::MaybeUninit,
        os::fd::OwnedFd,
        path::Path,
        sync::{Arc, atomic::Ordering},
        time::Duration,
    };

    use rustix::{
        fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
        io::Errno,
    };
    use tokio::io::unix::AsyncFd;
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::{FileEvent, Shared, Subscription, Weak};

    /// Events are collected for this long, so that many lines are read at a time.
    const GATHER: Duration = Duration::from_millis(1);

    /// Buffer for a few hundred events.
    const EVENTS_BYTES: usize = 16 << 10;

    pub struct Kernel {
        inotify: Arc<AsyncFd<OwnedFd>>,
        _stop: DropGuard,
    }

    pub fn open_watcher() -> Arc<Shared> {
        let inotify = match init_inotify() {
            Ok(inotify) => Arc::new(inotify),
            Err(error) => {
                tracing::warn!(%error, "inotify not available, polling all directories; raise fs.inotify.max_user_instances");
                return Arc::default();
            }
        };
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            kernel: Some(Kernel {
                inotify: Arc::clone(&inotify),
                _stop: stop.clone().drop_guard(),
            }),
            ..Shared::default()
        });
        let notify = notify(inotify, Arc::downgrade(&shared));
        tokio::spawn(async move { stop.run_until_cancelled(notify).await });
        shared
    }

    #[expect(
        deprecated,
        reason = "the unsafe successor requires a constant descriptor, which an OwnedFd has"
    )]
    fn init_inotify() -> std::io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)
    }

    /// Dispatches events until the watcher is dropped.
    async fn notify(inotify: Arc<AsyncFd<OwnedFd>>, shared: Weak<Shared>) {
        let mut room = [MaybeUninit::uninit(); EVENTS_BYTES];
        loop {
            let Ok(mut ready) = inotify.readable().await else {
                return;
            };
            let mut events = inotify::Reader::new(inotify.get_ref(), &mut room);
            loop {
                match events.next() {
                    Ok(event) => {
                        let Some(shared) = shared.upgrade() else { return };
                        let name = event.file_name().and_then(|name| name.to_str().ok());
                        shared.dispatch(event.wd(), event.events(), name.unwrap_or_default());
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::WOULDBLOCK) => break,
                    Err(error) => {
                        tracing::error!(%error, "inotify failed, polling all directories");
                        return;
                    }
                }
            }
            ready.clear_ready();
            tokio::time::sleep(GATHER).await;
        }
    }

    impl Shared {
        pub fn add(&self, dir: &Path, subscription: &Arc<Subscription>) -> Option<i32> {
            let kernel = self.kernel.as_ref()?;
            let wanted = WatchFlags::MODIFY
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::MOVE
                | WatchFlags::DELETE
                | WatchFlags::ONLYDIR;
            // The lock is taken first: an event may arrive before the watch is registered.
            let mut subscriptions = self.subscriptions.lock();
            match inotify::add_watch(kernel.inotify.get_ref(), dir, wanted) {
                Ok(watch) => {
                    subscriptions
                        .entry(watch)
                        .or_default()
                        .push(Arc::downgrade(subscription));
                    Some(watch)
                }
                Err(Errno::NOENT) => None,
                Err(error) => {
                    if !self.is_warned.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, dir = %dir.display(), "inotify watch failed, polling the directory; raise fs.inotify.max_user_watches");
                    }
                    None
                }
            }
        }

        pub fn remove(&self, watch: i32, subscription: &Arc<Subscription>) {
            let mut subscriptions = self.subscriptions.lock();
            let Some(own) = subscriptions.get_mut(&watch) else {
                return;
            };
            own.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(subscription)));
            if own.is_empty() {
                subscriptions.remove(&watch);
                if let Some(kernel) = &self.kernel {
                    // The kernel removes the watch together with the directory.
                    let _ = inotify::remove_watch(kernel.inotify.get_ref(), watch);
                }
            }
        }

        fn dispatch(&self, watch: i32, what: ReadFlags, name: &str) {
            let mut subscriptions = self.subscriptions.lock();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                tracing::debug!("inotify queue overflowed, scanning all directories");
                return subscriptions
                    .values()
                    .flatten()
                    .filter_map(Weak::upgrade)
                    .for_each(|subscription| subscription.notify_overflow());
            }
            if what.contains(ReadFlags::IGNORED) {
                // The directory is gone. Its descriptor is not reused.
                subscriptions.remove(&watch);
                return;
            }
            let dispatch = if what.contains(ReadFlags::MODIFY) {
                FileEvent::Written
            } else if what.contains(ReadFlags::CLOSE_WRITE) {
                FileEvent::Closed
            } else {
                FileEvent::Renamed
            };
            let subscription = subscriptions.get(&watch).into_iter().flatten();
            subscription
                .filter_map(Weak::upgrade)
                .for_each(|subscription| subscription.notify(dispatch, name));
        }
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
