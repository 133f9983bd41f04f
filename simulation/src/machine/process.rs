//! A process: its clock, its randomness, and how it dies.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use system::{
    files::{DirEntry, Metadata, OpenOptions},
    simulation::{self, Acceptor, DirNotifier, Machine, OpenFile, Scoped, Socket},
};
use tokio_util::sync::CancellationToken;

use super::{clock::WallClock, disk::Disk, network::Network};

/// What processes of one host share.
#[derive(Clone)]
pub struct Host {
    /// The address.
    pub address: IpAddr,
    /// The wall clock.
    pub clock: Arc<WallClock>,
    /// The disk.
    pub disk: Arc<Disk>,
    /// The network.
    pub network: Arc<Network>,
}

/// A process.
pub struct Process {
    /// The name in traces.
    pub name: String,
    /// A number that no other process has.
    pub id: u64,
    /// Where it runs.
    pub host: Host,
    this: Weak<Self>,
    random: Mutex<StdRng>,
    latency: Mutex<StdRng>,
    is_dead: AtomicBool,
    /// Cancelled when the process is dead.
    died: CancellationToken,
    /// Polls until the process dies; 0: it does not.
    polls_left: AtomicU64,
    /// Durable steps until the process dies; 0: it does not.
    steps_left: AtomicU64,
    tasks: Mutex<BTreeMap<u64, Waker>>,
}

impl Process {
    /// Creates a process. `id` is unique, and with `seed` determines what it draws.
    pub fn new(name: impl Into<String>, id: u64, host: Host, seed: u64) -> Arc<Self> {
        let seed = seed.wrapping_add(id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Arc::new_cyclic(|this| Self {
            name: name.into(),
            id,
            host,
            this: Weak::clone(this),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            latency: Mutex::new(StdRng::seed_from_u64(!seed)),
            is_dead: AtomicBool::new(false),
            died: CancellationToken::new(),
            polls_left: AtomicU64::new(0),
            steps_left: AtomicU64::new(0),
            tasks: Mutex::default(),
        })
    }

    /// Returns a future that runs on this process.
    pub fn run<F: Future>(&self, future: F) -> Scoped<F> {
        let machine = self.this.upgrade().map(|this| this as Arc<dyn Machine>);
        Scoped::new(machine, future)
    }

    /// Starts a task on this process.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.run(future))
    }

    /// Runs code on this process.
    pub fn enter<R>(&self, code: impl FnOnce() -> R) -> R {
        let machine = self.this.upgrade().map(|this| this as Arc<dyn Machine>);
        simulation::enter(machine.as_ref(), code)
    }

    /// Returns whether the process is dead.
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    /// Waits until the process is dead. Then call [`kill`](Self::kill), which ends what the kernel
    /// ends.
    pub async fn died(&self) {
        self.died.cancelled().await;
    }

    /// Kills the process: nothing of it runs any more, and the kernel closes its sockets and
    /// releases its locks.
    pub fn kill(&self) {
        self.mark_dead();
        self.host.network.close_all(self.id);
        self.host.disk.unlock_all(self.id);
        for waker in std::mem::take(&mut *self.tasks.lock()).into_values() {
            waker.wake();
        }
    }

    /// Kills the process before its `polls`-th next poll.
    pub fn kill_after_polls(&self, polls: u64) {
        self.polls_left.store(polls, Ordering::Relaxed);
    }

    /// Kills the process at its `steps`-th next durable step, which has no effect then.
    pub fn kill_after_steps(&self, steps: u64) {
        self.steps_left.store(steps, Ordering::Relaxed);
    }

    fn mark_dead(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
        self.died.cancel();
    }

    /// Counts a durable step.
    ///
    /// # Errors
    /// The process is dead, and the step has no effect.
    pub(super) fn durable_step(&self) -> io::Result<()> {
        self.check_alive()?;
        if counts_down(&self.steps_left) {
            self.mark_dead();
        }
        self.check_alive()
    }

    /// # Errors
    /// The process is dead.
    pub(super) fn check_alive(&self) -> io::Result<()> {
        if self.is_dead() {
            return Err(io::Error::other("the process was killed"));
        }
        Ok(())
    }

    fn this(&self) -> io::Result<Arc<Self>> {
        self.check_alive()?;
        self.this
            .upgrade()
            .ok_or_else(|| io::Error::other("the process has ended"))
    }
}

/// Counts down to 0, and returns whether this call reached it.
fn counts_down(left: &AtomicU64) -> bool {
    let before = left.load(Ordering::Relaxed);
    if before > 0 {
        left.store(before - 1, Ordering::Relaxed);
    }
    before == 1
}

impl Machine for Process {
    fn name(&self) -> &str {
        &self.name
    }

    fn wall(&self) -> Duration {
        self.host.clock.now()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.random.lock().fill_bytes(bytes);
    }

    fn io_delay(&self) -> Duration {
        let micros = self.latency.lock().random_range(20..2000u64);
        Duration::from_micros(micros) + self.host.disk.slowness()
    }

    fn begin_poll(&self, task: u64, waker: &Waker) -> bool {
        if counts_down(&self.polls_left) {
            self.mark_dead();
        }
        if self.is_dead() {
            return false;
        }
        let mut tasks = self.tasks.lock();
        match tasks.get_mut(&task) {
            Some(known) => known.clone_from(waker),
            None => drop(tasks.insert(task, waker.clone())),
        }
        true
    }

    fn end_task(&self, task: u64) {
        self.tasks.lock().remove(&task);
    }

    fn disk(&self) -> &dyn simulation::Disk {
        self
    }

    fn network(&self) -> &dyn simulation::Network {
        self
    }
}

impl simulation::Disk for Process {
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<Arc<dyn OpenFile>> {
        if options.create || options.create_new || options.truncate {
            self.durable_step()?;
        }
        self.host.disk.open(path, options, &self.this()?)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.check_alive()?;
        self.host.disk.metadata(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.check_alive()?;
        self.host.disk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.durable_step()?;
        self.host.disk.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.durable_step()?;
        self.host.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.durable_step()?;
        self.host.disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.durable_step()?;
        self.host.disk.remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.durable_step()?;
        self.host.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.durable_step()?;
        self.host.disk.sync_dir(dir)
    }

    fn watch(&self) -> io::Result<Arc<dyn DirNotifier>> {
        self.check_alive()?;
        Ok(self.host.disk.watch())
    }
}

impl simulation::Network for Process {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Socket>>> {
        let process = self.this();
        async move {
            let process = process?;
            let socket = self.host.network.connect(&process, to).await?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        }
        .boxed()
    }

    fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        Ok(Box::new(self.host.network.bind(&self.this()?, at)?))
    }

    fn lookup(&self, host: &str) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        let answer = self.host.network.lookup(host);
        async move { answer }.boxed()
    }
}
