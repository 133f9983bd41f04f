//! Watched directories, as inotify reports them.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use system::{
    files::{DirEvent, DirEventKind},
    simulation::DirNotifier,
};
use tokio::sync::Notify;

#[derive(Default)]
pub struct Watches {
    notifiers: Mutex<Vec<Weak<Notifier>>>,
}

#[derive(Default)]
struct Notifier {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    last_watch: i32,
    watches: Vec<(i32, PathBuf)>,
    events: VecDeque<DirEvent>,
}

impl Watches {
    pub fn notifier(&self) -> Arc<dyn DirNotifier> {
        let notifier = Arc::new(Notifier::default());
        self.notifiers.lock().push(Arc::downgrade(&notifier));
        notifier
    }

    /// Reports a change of a file.
    pub fn emit(&self, path: &Path, kind: DirEventKind) {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        self.each(|notifier| notifier.push(dir, kind, &name.to_string_lossy()));
    }

    /// Reports that a directory is gone.
    pub fn remove_dir(&self, dir: &Path) {
        self.each(|notifier| {
            notifier.push(dir, DirEventKind::Removed, "");
            notifier.state.lock().watches.retain(|(_, watched)| watched != dir);
        });
    }

    fn each(&self, act: impl Fn(&Notifier)) {
        self.notifiers.lock().retain(|notifier| match notifier.upgrade() {
            Some(notifier) => {
                act(&notifier);
                true
            }
            None => false,
        });
    }
}

impl Notifier {
    fn push(&self, dir: &Path, kind: DirEventKind, name: &str) {
        let mut state = self.state.lock();
        let Some(watch) = state.watches.iter().find(|(_, watched)| watched == dir) else {
            return;
        };
        let event = DirEvent {
            watch: watch.0,
            kind,
            name: name.to_owned(),
        };
        // The kernel merges equal events that follow each other.
        if state.events.back() != Some(&event) {
            state.events.push_back(event);
            self.changed.notify_one();
        }
    }
}

impl DirNotifier for Notifier {
    fn add(&self, dir: &Path) -> io::Result<i32> {
        if let Some(machine) = system::simulation::current() {
            let is_dir = machine.disk().metadata(dir).map(|metadata| metadata.is_dir);
            if !is_dir? {
                return Err(ErrorKind::NotADirectory.into());
            }
        }
        let mut state = self.state.lock();
        if let Some((watch, _)) = state.watches.iter().find(|(_, watched)| watched == dir) {
            return Ok(*watch);
        }
        state.last_watch += 1;
        let watch = state.last_watch;
        state.watches.push((watch, dir.to_owned()));
        Ok(watch)
    }

    fn remove(&self, watch: i32) {
        self.state.lock().watches.retain(|(known, _)| *known != watch);
    }

    fn next(&self) -> BoxFuture<'_, Option<DirEvent>> {
        async move {
            loop {
                if let Some(event) = self.state.lock().events.pop_front() {
                    return Some(event);
                }
                self.changed.notified().await;
            }
        }
        .boxed()
    }
}
