//! Tasks. In a simulation a task belongs to the machine of the task that starts it, and ends with
//! it.

#![allow(clippy::disallowed_methods, reason = "the only place that starts tasks and threads")]

use std::io;

use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet};
use tokio_util::task::TaskTracker;

/// Starts a task.
#[inline]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(scoped(future))
}

/// Wraps a future for other types that start tasks.
#[cfg(not(feature = "simulation"))]
#[inline]
pub fn scoped<F: Future>(future: F) -> F {
    future
}

/// Wraps a future for other types that start tasks.
#[cfg(feature = "simulation")]
pub fn scoped<F: Future>(future: F) -> crate::simulation::Scoped<F> {
    crate::simulation::Scoped::new(crate::simulation::current(), future)
}

/// Starts a task in a set.
#[inline]
pub fn spawn_in<F>(set: &mut JoinSet<F::Output>, future: F) -> AbortHandle
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    set.spawn(scoped(future))
}

/// Starts a task that a tracker waits for.
#[inline]
pub fn spawn_tracked<F>(tracker: &TaskTracker, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tracker.spawn(scoped(future))
}

/// Starts tasks on one machine, whichever machine the caller runs on.
#[derive(Clone, Default)]
pub struct Spawner {
    #[cfg(feature = "simulation")]
    machine: Option<std::sync::Arc<dyn crate::simulation::Machine>>,
}

impl Spawner {
    /// Returns the spawner of the machine that the current task runs on.
    #[must_use]
    pub fn current() -> Self {
        Self {
            #[cfg(feature = "simulation")]
            machine: crate::simulation::current(),
        }
    }

    /// Starts a task.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.run(|| spawn(future))
    }

    /// Starts a task that a tracker waits for.
    pub fn spawn_tracked<F>(&self, tracker: &TaskTracker, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.run(|| spawn_tracked(tracker, future))
    }

    /// Runs code on the machine.
    #[inline]
    pub fn run<R>(&self, code: impl FnOnce() -> R) -> R {
        #[cfg(feature = "simulation")]
        return crate::simulation::enter(self.machine.as_ref(), code);
        #[cfg(not(feature = "simulation"))]
        code()
    }
}

/// Runs code that blocks, on a thread for such code.
///
/// *Cancel safety*: the code runs to its end even if the call is dropped.
///
/// # Errors
/// The code panicked, or the runtime is shutting down.
#[inline]
pub async fn blocking<F, R>(code: F) -> Result<R, JoinError>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulation::current() {
        let run = async move {
            tokio::time::sleep(machine.io_delay()).await;
            let result = code();
            tokio::time::sleep(machine.io_delay()).await;
            result
        };
        return spawn(run).await;
    }
    tokio::task::spawn_blocking(code).await
}

/// Runs code that blocks within a [`Dedicated`] future, whose thread may block.
#[inline]
pub async fn io<R>(code: impl FnOnce() -> R) -> R {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulation::current() {
        tokio::time::sleep(machine.io_delay()).await;
        let result = code();
        tokio::time::sleep(machine.io_delay()).await;
        return result;
    }
    code()
}

/// A future that runs on a thread of its own, which it may block.
///
/// Dropping it waits for the end of the future: the future must end by itself once its inputs are
/// closed. In a simulation the drop does not wait.
#[derive(Debug)]
pub struct Dedicated {
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Dedicated {
    /// Starts a thread with this name and runs the future on it. Call it within a tokio runtime,
    /// whose timers the future uses.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        #[cfg(feature = "simulation")]
        if crate::simulation::current().is_some() {
            drop(spawn(future));
            return Ok(Self { thread: None });
        }
        let runtime = tokio::runtime::Handle::current();
        let run = move || runtime.block_on(future);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { thread: Some(thread) })
    }
}

impl Drop for Dedicated {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic.
            let _ = thread.join();
        }
    }
}
