//! Reports changes in directories, by inotify on Linux.
//!
//! The `notify` crate would add a thread and a queue of paths; the `inotify` crate wraps the three
//! system calls that `rustix`, a dependency anyway, offers without unsafe code.

use std::{io, path::Path};

#[cfg(feature = "simulation")]
use std::sync::Arc;

/// A change in a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEvent {
    /// The number of the watch; meaningless for [`DirEventKind::Overflow`].
    pub watch: i32,
    /// What happened.
    pub kind: DirEventKind,
    /// The name of the file in the directory.
    pub name: String,
}

/// What happened in a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirEventKind {
    /// Data was written.
    Written,
    /// A writer closed the file.
    Closed,
    /// A name appeared, disappeared or changed.
    Renamed,
    /// The directory is gone and the watch has ended. Its number is not used again.
    Removed,
    /// Events of any directory were lost.
    Overflow,
}

/// Watches directories.
pub struct DirNotifier(Repr);

#[cfg(not(feature = "simulation"))]
type Repr = real::Notifier;

#[cfg(feature = "simulation")]
enum Repr {
    Real(real::Notifier),
    Simulated(Arc<dyn crate::simulation::DirNotifier>),
}

/// Calls the simulated notifier, or evaluates an expression with the real one.
macro_rules! on {
    ($self:ident, $call:ident($($argument:expr),*) $(.$await:ident)?) => {{
        #[cfg(feature = "simulation")]
        return match &$self.0 {
            Repr::Simulated(notifier) => notifier.$call($($argument),*)$(.$await)?,
            Repr::Real(notifier) => notifier.$call($($argument),*)$(.$await)?,
        };
        #[cfg(not(feature = "simulation"))]
        $self.0.$call($($argument),*)$(.$await)?
    }};
}

impl DirNotifier {
    /// Starts watching. Call it within a tokio runtime.
    ///
    /// # Errors
    /// inotify is not available; raise `fs.inotify.max_user_instances`.
    pub fn new() -> io::Result<Self> {
        #[cfg(feature = "simulation")]
        if let Some(machine) = crate::simulation::current() {
            return Ok(Self(Repr::Simulated(machine.disk().watch()?)));
        }
        let notifier = real::Notifier::new()?;
        #[cfg(feature = "simulation")]
        return Ok(Self(Repr::Real(notifier)));
        #[cfg(not(feature = "simulation"))]
        Ok(Self(notifier))
    }

    /// Watches a directory and returns the number of the watch. A directory has one watch.
    ///
    /// # Errors
    /// `NotFound` if it does not exist; otherwise raise `fs.inotify.max_user_watches`.
    pub fn add(&self, dir: &Path) -> io::Result<i32> {
        on!(self, add(dir))
    }

    /// Ends a watch. A watch that has ended is ignored.
    pub fn remove(&self, watch: i32) {
        on!(self, remove(watch))
    }

    /// Waits for the next event. `None`: the notifier failed, and no further events are reported.
    ///
    /// *Cancel safety*: no event is lost.
    pub async fn next(&self) -> Option<DirEvent> {
        on!(self, next().await)
    }
}

#[cfg(target_os = "linux")]
mod real {
    use std::{collections::VecDeque, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

    use parking_lot::Mutex;
    use rustix::{
        fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
        io::Errno,
    };
    use tokio::io::unix::AsyncFd;

    use super::{DirEvent, DirEventKind};

    /// Buffer for a few hundred events.
    const EVENTS_BYTES: usize = 16 << 10;

    pub struct Notifier {
        inotify: AsyncFd<OwnedFd>,
        queue: Mutex<VecDeque<DirEvent>>,
    }

    impl Notifier {
        #[expect(
            deprecated,
            reason = "the unsafe successor requires a constant descriptor, which an OwnedFd has"
        )]
        pub fn new() -> io::Result<Self> {
            let inotify = AsyncFd::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)?;
            Ok(Self {
                inotify,
                queue: Mutex::default(),
            })
        }

        pub fn add(&self, dir: &Path) -> io::Result<i32> {
            let wanted = WatchFlags::MODIFY
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::MOVE
                | WatchFlags::DELETE
                | WatchFlags::ONLYDIR;
            Ok(inotify::add_watch(self.inotify.get_ref(), dir, wanted)?)
        }

        pub fn remove(&self, watch: i32) {
            // The kernel removes the watch together with the directory.
            let _ = inotify::remove_watch(self.inotify.get_ref(), watch);
        }

        pub async fn next(&self) -> Option<DirEvent> {
            loop {
                if let Some(event) = self.queue.lock().pop_front() {
                    return Some(event);
                }
                let mut ready = self.inotify.readable().await.ok()?;
                match self.read() {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::error!(%error, "inotify failed");
                        return None;
                    }
                }
                if self.queue.lock().is_empty() {
                    ready.clear_ready();
                }
            }
        }

        /// Queues one buffer of events.
        fn read(&self) -> Result<(), Errno> {
            let mut room = [MaybeUninit::uninit(); EVENTS_BYTES];
            let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut room);
            let mut queue = self.queue.lock();
            loop {
                match events.next() {
                    Ok(event) => {
                        let name = event.file_name().and_then(|name| name.to_str().ok());
                        queue.push_back(DirEvent {
                            watch: event.wd(),
                            kind: kind(event.events()),
                            name: name.unwrap_or_default().to_owned(),
                        });
                        if events.is_buffer_empty() {
                            return Ok(());
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::WOULDBLOCK) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn kind(flags: ReadFlags) -> DirEventKind {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            DirEventKind::Overflow
        } else if flags.contains(ReadFlags::IGNORED) {
            DirEventKind::Removed
        } else if flags.contains(ReadFlags::MODIFY) {
            DirEventKind::Written
        } else if flags.contains(ReadFlags::CLOSE_WRITE) {
            DirEventKind::Closed
        } else {
            DirEventKind::Renamed
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod real {
    use std::{convert::Infallible, io, path::Path};

    use super::DirEvent;

    /// There is none without inotify.
    pub struct Notifier(Infallible);

    impl Notifier {
        pub fn new() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub fn add(&self, _: &Path) -> io::Result<i32> {
            match self.0 {}
        }

        pub fn remove(&self, _: i32) {
            match self.0 {}
        }

        pub async fn next(&self) -> Option<DirEvent> {
            match self.0 {}
        }
    }
}
