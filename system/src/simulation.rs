//! What a simulation puts in the machine's place.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::files::{DirEntry, DirEvent, Metadata, OpenOptions};

/// A simulated machine, or one process on it.
pub trait Machine: Send + Sync {
    /// Returns the name in traces.
    fn name(&self) -> &str;

    /// Returns the time of the wall clock since 1970.
    fn wall(&self) -> Duration;

    /// Fills the buffer with random bytes.
    fn fill_random(&self, bytes: &mut [u8]);

    /// Returns how long a read or write blocks, drawn anew each time.
    fn io_delay(&self) -> Duration;

    /// Called before each poll of a task. Returns `false` once the process was killed; the task then
    /// never runs again and its future is dropped.
    fn begin_poll(&self, task: u64, waker: &Waker) -> bool;

    /// Called when a task ends.
    fn end_task(&self, task: u64);

    /// Returns the disk.
    fn disk(&self) -> &dyn Disk;

    /// Returns the network.
    fn network(&self) -> &dyn Network;
}

/// A disk.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<Arc<dyn OpenFile>>;
    /// Returns the metadata of a file or directory.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Lists a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Creates a directory and its parents.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and its content.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Starts watching directories.
    fn watch(&self) -> io::Result<Arc<dyn DirNotifier>>;
}

/// An open file.
pub trait OpenFile: Send + Sync {
    /// Reads at an offset; fewer bytes than asked for only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset, all of it or an unknown part with an error.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Appends, all of it or an unknown part with an error.
    fn append(&self, slices: &[io::IoSlice<'_>]) -> io::Result<()>;
    /// Sets the length.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&self) -> io::Result<()>;
    /// Returns the metadata.
    fn metadata(&self) -> io::Result<Metadata>;
    /// Locks the file for this process; `false` if another one has locked it.
    fn try_lock(&self) -> io::Result<bool>;
}

/// Reports changes in directories.
pub trait DirNotifier: Send + Sync {
    /// Watches a directory and returns the watch's number.
    fn add(&self, dir: &Path) -> io::Result<i32>;
    /// Ends a watch.
    fn remove(&self, watch: i32);
    /// Waits for the next event; `None` after the notifier failed.
    fn next(&self) -> BoxFuture<'_, Option<DirEvent>>;
}

/// A network.
pub trait Network: Send + Sync {
    /// Connects to an address.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Socket>>>;
    /// Listens on an address.
    fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Acceptor>>;
    /// Resolves a host name.
    fn lookup(&self, host: &str) -> BoxFuture<'_, io::Result<Vec<IpAddr>>>;
}

/// A connection.
pub trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Returns the address of this side.
    fn local_addr(&self) -> SocketAddr;
    /// Returns the address of the other side.
    fn peer_addr(&self) -> SocketAddr;
    /// Returns a function that counts the bytes that the other side's kernel has not acknowledged.
    fn unacknowledged(&self) -> Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;
}

/// A listening socket.
pub trait Acceptor: Send + Sync {
    /// Returns the address.
    fn local_addr(&self) -> SocketAddr;
    /// Waits for a connection.
    fn accept(&self) -> BoxFuture<'_, io::Result<Box<dyn Socket>>>;
}

thread_local! {
    static PROBES: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
    static CURRENT: RefCell<Option<Arc<dyn Machine>>> = const { RefCell::new(None) };
}

/// Records that a probe was reached; see [`probe!`](crate::probe).
pub fn reach(name: &'static str) {
    PROBES.with_borrow_mut(|probes| probes.insert(name));
}

/// Returns the probes that this thread has reached since the last call.
pub fn take_probes() -> BTreeSet<&'static str> {
    PROBES.take()
}

/// Returns the machine that the current task runs on; `None` outside a simulation.
pub fn current() -> Option<Arc<dyn Machine>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs code on a machine.
pub fn enter<R>(machine: Option<&Arc<dyn Machine>>, code: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<dyn Machine>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(machine.cloned()));
    code()
}

static NEXT_TASK: AtomicU64 = AtomicU64::new(0);

/// A future that runs on a machine.
pub struct Scoped<F: Future> {
    machine: Option<Arc<dyn Machine>>,
    task: u64,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Scoped<F> {
    /// Creates it. Without a machine it runs where it is polled.
    pub fn new(machine: Option<Arc<dyn Machine>>, future: F) -> Self {
        Self {
            machine,
            task: NEXT_TASK.fetch_add(1, Ordering::Relaxed),
            future: Some(Box::pin(future)),
        }
    }

    fn drop_future(&mut self) {
        if let Some(future) = self.future.take() {
            enter(self.machine.as_ref(), || drop(future));
        }
        if let Some(machine) = &self.machine {
            machine.end_task(self.task);
        }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let Some(future) = &mut this.future else {
            return Poll::Pending;
        };
        let Some(machine) = &this.machine else {
            return future.as_mut().poll(cx);
        };
        if !machine.begin_poll(this.task, cx.waker()) {
            this.drop_future();
            return Poll::Pending;
        }
        let polled = enter(Some(machine), || future.as_mut().poll(cx));
        if polled.is_ready() {
            this.drop_future();
        }
        polled
    }
}

impl<F: Future> Drop for Scoped<F> {
    fn drop(&mut self) {
        self.drop_future();
    }
}
