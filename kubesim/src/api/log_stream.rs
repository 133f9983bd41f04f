//! The body of a log response: existing lines, then new ones in a follow, until the follow ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use system::clock::{Instant, since};
use tokio::sync::watch::Receiver;
use tokio::time::sleep;

use super::log_options::{LogOptions, Since};
use super::response::StreamBroken;
use crate::logs::clock::format_second;
use crate::logs::container_log::ContainerLog;
use crate::logs::reader::{self, LogReader, ReadStart};
use crate::simulation::{FollowSlot, Interrupt, Simulation};

/// The body of one log response.
pub(super) struct LogStream {
    sim: Arc<Simulation>,
    reader: LogReader,
    progress: Receiver<Option<Instant>>,
    interrupt: Receiver<Interrupt>,
    follow: bool,
    /// `None` in a follow without a free slot, which ends with an error text after the existing
    /// lines.
    slot: Option<FollowSlot>,
    stalled: Receiver<bool>,
    strand: Receiver<()>,
    bytes_left: Option<u64>,
    ended: bool,
}

impl LogStream {
    /// Opens the log at the position that the options ask for.
    pub(super) fn open(sim: &Arc<Simulation>, log: Arc<ContainerLog>, options: &LogOptions) -> Self {
        let progress = log.progress();
        // The log of an exited container is read to its end without waiting.
        let follow = options.follow && progress.borrow().is_none();
        let start = ReadStart {
            since: options.since.map(|since| first_time(sim, since)),
            tail: options.tail_lines,
        };
        Self {
            progress,
            interrupt: sim.interrupts.follows.subscribe(),
            follow,
            slot: follow.then(|| sim.state.acquire_follow_slot()).flatten(),
            stalled: sim.state.follows_stalled.subscribe(),
            strand: sim.interrupts.strand.subscribe(),
            reader: LogReader::open(log, start, options.timestamps, follow),
            sim: Arc::clone(sim),
            bytes_left: options.limit_bytes,
            ended: false,
        }
    }

    /// Returns the next piece of the body.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, StreamBroken>> {
        loop {
            if self.ended || self.bytes_left == Some(0) {
                return None;
            }
            if self.interrupt.has_changed().unwrap_or(true) {
                return self.interrupted();
            }
            if self.strand.has_changed().unwrap_or(false) && self.follow {
                self.reader.miss_rotations();
            }
            if self.follow && *self.stalled.borrow_and_update() {
                tokio::select! {
                    biased;
                    _ = self.stalled.changed() => continue,
                    _ = self.interrupt.changed() => return self.interrupted(),
                }
            }
            let delay = *self.sim.state.log_delay.lock();
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let exited = *self.progress.borrow_and_update();
            if let Some(data) = self.reader.read() {
                return Some(Ok(self.limit(data)));
            }
            if !self.follow {
                return None;
            }
            if self.slot.is_none() {
                self.ended = true;
                return Some(Ok(Bytes::from_static(NO_INOTIFY)));
            }
            let lag = exited.map(|exited| EXIT_TO_END.saturating_sub(since(exited)));
            if lag == Some(Duration::ZERO) {
                return None;
            }
            let stop = self.sim.stop.clone();
            tokio::select! {
                biased;
                _ = self.progress.changed() => {}
                _ = self.interrupt.changed() => return self.interrupted(),
                _ = self.stalled.changed() => {}
                _ = self.strand.changed() => self.reader.miss_rotations(),
                () = sleep(lag.unwrap_or(FAR)) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    fn interrupted(&mut self) -> Option<Result<Bytes, StreamBroken>> {
        self.ended = true;
        (*self.interrupt.borrow() == Interrupt::Break).then_some(Err(StreamBroken))
    }

    fn limit(&mut self, mut data: Bytes) -> Bytes {
        if let Some(left) = &mut self.bytes_left {
            data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= data.len() as u64;
        }
        data
    }
}

/// Returns the first second to include; the kubelet counts `sinceSeconds` from its own time.
fn first_time(sim: &Simulation, since: Since) -> reader::Since {
    let second = match since {
        Since::Time(time) => time.as_second(),
        Since::Seconds(seconds) => sim.clock.now().as_second().saturating_sub(seconds),
    };
    let second = u64::try_from(second).unwrap_or(0);
    reader::Since {
        nanos: second.saturating_mul(1_000_000_000),
        text: format_second(second),
    }
}

/// Time from a container's exit until its follows end; the kubelet polls once per second.
const EXIT_TO_END: Duration = Duration::from_millis(700);
/// Stands for no deadline.
const FAR: Duration = Duration::from_secs(3600);
/// Text that a kubelet without a free inotify instance appends to the log.
const NO_INOTIFY: &[u8] = b"failed to create fsnotify watcher: too many open files";
