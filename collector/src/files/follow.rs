//! Reads one container instance's log files into one stream per output.

mod excluded;
mod gaps;

use std::{future, io, path::PathBuf, time::Duration};

use bus::{Fd, GapReason};
use futures::future::OptionFuture;
use system::clock::{since, steady};
use tokio::{
    sync::watch,
    task,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    assemble::LineAssembler,
    checkpointer::FileCheckpointer,
    path,
    reading::ReadState,
    tail::{Opened, ReadOutcome, Tail},
    watch::{DirChanges, DirWatch, DirWatcher},
};
use crate::{
    idle_metrics::IdleGuard,
    instance::ContainerState,
    metrics::Metrics,
    progress::Progress,
    publish::checkpoint::CheckpointStore,
    report::ContainerReport,
    state_watch::{state_changed, wait_until_absent},
    stream::Stream,
};
use gaps::PendingGap;

/// Interval between attempts to open a missing file, at first and later.
const MISSING_FIRST: Duration = Duration::from_millis(100);
const MISSING_LATER: Duration = Duration::from_secs(2);

/// After this time a terminated container is assumed to have no file, and a missing file of a
/// running one is logged.
const MISSING_LONG: Duration = Duration::from_secs(5);

/// Location of an instance's files.
pub struct Files {
    /// `None`: the directory of the pod is gone.
    pub dir: Option<PathBuf>,
    /// The number of earlier instances.
    pub number: u32,
}

/// Reads one container instance's files to their end.
pub struct FileFollower {
    state: watch::Receiver<ContainerState>,
    /// The container started after the collector did, or after one before it: the first line is
    /// expected, and a missing log is a gap.
    expect_first_line: bool,
    /// The container had started, but there was no file: the first one has been removed.
    was_missing: bool,
    stdout: Stream,
    stderr: Stream,
    tail: Option<Tail>,
    assembler: LineAssembler,
    gap: Option<PendingGap>,
    /// Standard error has a notice, or lines.
    uses_stderr: bool,
    dir_watch: Option<DirWatch>,
    dir_watcher: DirWatcher,
    checkpointer: FileCheckpointer,
    /// Counts the container in the idle metrics.
    idle_guard: Option<IdleGuard>,
    metrics: Metrics,
    report: Option<ContainerReport>,
    progress: Progress,
    /// The pod is excluded: what it prints is read and dropped.
    is_excluded: bool,
    shutdown: CancellationToken,
}

/// Shared objects that a follower needs.
pub struct FollowerContext {
    pub dir_watcher: DirWatcher,
    pub checkpoints: CheckpointStore,
    pub metrics: Metrics,
    /// `None`: the pod is gone.
    pub report: Option<ContainerReport>,
    pub progress: Progress,
    pub shutdown: CancellationToken,
}

/// Result of waiting for the files.
enum OpenOutcome {
    Found,
    FilesGone,
    Shutdown,
}

impl FileFollower {
    /// Creates a follower whose streams are at their checkpoints.
    pub fn new(
        files: Files,
        streams: (Stream, Stream),
        state: watch::Receiver<ContainerState>,
        expect_first_line: bool,
        context: FollowerContext,
    ) -> Self {
        let (stdout, stderr) = streams;
        Self {
            state,
            expect_first_line,
            was_missing: false,
            stdout,
            stderr,
            tail: files.dir.map(|dir| Tail::new(dir, files.number)),
            assembler: LineAssembler::default(),
            gap: None,
            uses_stderr: false,
            dir_watch: None,
            dir_watcher: context.dir_watcher,
            checkpointer: FileCheckpointer::new(context.checkpoints),
            idle_guard: None,
            metrics: context.metrics,
            report: context.report,
            is_excluded: false,
            progress: context.progress,
            shutdown: context.shutdown,
        }
    }

    /// Reads until the ends of the streams are on the bus and the pod no longer lists the instance.
    /// Returns false if the collector shuts down first.
    pub async fn run(mut self) -> bool {
        tracing::info!(stream = %self.stdout.id(), "container files opened");
        let is_over = self.stdout.is_finished() || self.read_files().await;
        (self.idle_guard, self.report) = (None, None);
        if is_over && self.is_excluded && self.stdout.has_no_lines() && !self.has_stderr() {
            // Nothing of an excluded pod is published.
            return wait_until_absent(self.state, self.shutdown).await;
        }
        // Standard output comes last: its checkpoint marks the end of both.
        if !is_over {
            if self.has_stderr() {
                self.stderr.drain_or_keep().await;
            }
            self.stdout.drain_or_keep().await;
            self.save_last_position();
            return false;
        }
        if !self.drain_stderr().await || !self.stdout.drain_until(&self.shutdown).await {
            return false;
        }
        tracing::info!(stream = %self.stdout.id(), "stream ended");
        let Self { state, shutdown, .. } = self;
        wait_until_absent(state, shutdown).await
    }

    /// Returns whether the end of the files was reached, rather than shutdown.
    async fn read_files(&mut self) -> bool {
        let (tail, state) = match self.open_files().await {
            (OpenOutcome::Shutdown, _, _) => return false,
            (OpenOutcome::Found, Some(tail), state) => (tail, state),
            (_, _, state) => return self.give_up(state).await,
        };
        self.set_excluded(state.excluded);
        let mut reading = ReadState::new(tail, state);
        loop {
            let has_room = self.stdout.has_room() && self.stderr.has_room();
            let ends_at = reading.ends_at();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.tail = Some(reading.tail);
                    return false;
                }
                () = self.stdout.progress() => {}
                () = self.stderr.progress() => {}
                now = state_changed(&mut self.state) => {
                    self.set_excluded(now.excluded);
                    reading.set_state(now);
                }
                changes = dir_changed(&self.dir_watch) => reading.apply_changes(changes),
                () = sleep_until(reading.next_scan) => {
                    self.watch_dir(&reading.tail);
                    reading.scan_now(self.is_polling());
                }
                () = task::yield_now(), if reading.may_have_data && has_room => self.read_next(&mut reading),
                Some(()) = OptionFuture::from(reading.complete_at.map(sleep_until)) => reading.wake(),
                Some(()) = OptionFuture::from(ends_at.map(sleep_until)) => {
                    // A final scan, independent of inotify events.
                    reading.scan_now(self.is_polling());
                    self.read_next(&mut reading);
                    if reading.is_idle {
                        return self.finish(reading).await;
                    }
                }
            }
            self.checkpointer.save(&self.stdout, &self.stderr);
        }
    }

    /// Waits until there are files to read.
    async fn open_files(&mut self) -> (OpenOutcome, Option<Tail>, ContainerState) {
        let started = steady();
        let mut is_warned = false;
        loop {
            let state = *self.state.borrow_and_update();
            let Some(mut tail) = self.tail.take() else {
                return (OpenOutcome::FilesGone, None, state);
            };
            let opened = self.open(&mut tail);
            if !matches!(opened, Ok(Opened::Missing) | Err(_)) {
                self.watch_dir(&tail);
                self.idle_guard = Some(self.metrics.idle.track());
                self.recovered();
                return (OpenOutcome::Found, Some(tail), state);
            }
            // The runtime creates the file before the container starts.
            self.was_missing |= matches!(opened, Ok(Opened::Missing));
            let is_late = since(started) > MISSING_LONG;
            let has_pod = tail.dir().parent().is_some_and(path::is_dir);
            let has_no_files = opened.is_ok() && has_pod && is_late;
            if !state.present || state.terminated && has_no_files {
                return (OpenOutcome::FilesGone, None, state);
            }
            let reason = opened
                .err()
                .map_or_else(|| "there is no file".to_owned(), |error| error.to_string());
            if !state.terminated {
                self.failed(&reason);
            }
            if is_late && !is_warned {
                is_warned = true;
                tracing::warn!(stream = %self.stdout.id(), dir = %tail.dir().display(), reason, "log file missing, check --pod-log-dir");
            }
            self.tail = Some(tail);
            let wait = sleep(if is_late { MISSING_LATER } else { MISSING_FIRST });
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return (OpenOutcome::Shutdown, None, state),
                () = self.stdout.publish_while(async { tokio::select! { () = wait => {}, _ = state_changed(&mut self.state) => {} } }) => {}
            }
        }
    }

    /// Opens the files at the checkpoint and resumes the streams there; otherwise opens the oldest
    /// file.
    fn open(&mut self, tail: &mut Tail) -> io::Result<Opened> {
        let resume = self.checkpointer.load(&self.stdout, &self.stderr);
        let is_fresh = self.stdout.has_no_lines() && self.stderr.has_no_lines();
        let opened = tail.open(resume.as_ref().map(|resume| &resume.position), steady())?;
        match (&opened, resume) {
            (Opened::Missing, _) => {}
            (Opened::Found, Some(resume)) => {
                for (stream, lines) in [
                    (&mut self.stdout, resume.out_lines),
                    (&mut self.stderr, resume.err_lines),
                ] {
                    stream.doubt_position();
                    stream.resume_after(lines);
                }
                self.checkpointer.resumed(&self.stdout, &self.stderr);
            }
            (Opened::PositionGone, Some(resume)) => {
                self.gap = Some(PendingGap::PositionGone {
                    out_read: resume.out_lines > 0,
                    err_read: resume.err_lines > 0,
                });
            }
            (_, None) if !is_fresh => {
                // Where the last lines are is unknown: the files are read again.
                self.stdout.doubt_position();
                self.stderr.doubt_position();
                self.gap = Some(PendingGap::PositionGone {
                    out_read: true,
                    err_read: true,
                });
            }
            (_, None) => {
                let is_suspected = self.was_missing || self.expect_first_line && tail.may_lack_first();
                self.gap = is_suspected.then_some(PendingGap::Suspected);
            }
        }
        Ok(opened)
    }

    fn watch_dir(&mut self, tail: &Tail) {
        if self.is_polling() {
            self.dir_watch = Some(self.dir_watcher.watch(tail.dir(), tail.number()));
        }
    }

    fn is_polling(&self) -> bool {
        self.dir_watch.as_ref().is_none_or(DirWatch::is_polling)
    }

    fn read_next(&mut self, reading: &mut ReadState) {
        reading.is_idle = false;
        let outcome = reading.tail.read_next(&mut self.assembler, steady());
        self.flush_frames(&mut reading.tail);
        if self.is_position_wrong(reading) {
            return self.read_again(reading);
        }
        match outcome {
            Ok(ReadOutcome::Read) => {
                reading.quiet_since = steady();
                if let Some(idle_guard) = &self.idle_guard {
                    idle_guard.record_activity();
                }
                self.recovered();
                self.propose_checkpoint(&mut reading.tail, false);
            }
            Ok(ReadOutcome::WaitingForClose(until)) => {
                (reading.may_have_data, reading.complete_at) = (false, Some(until))
            }
            Ok(ReadOutcome::Next { after_gap }) => {
                if after_gap {
                    tracing::warn!(stream = %self.stdout.id(), "gap suspected, log files may have been removed before they were read");
                    self.interrupt(PendingGap::Suspected, reading);
                }
                // The node may remove the file of the stored checkpoint.
                self.checkpointer.request_soon();
                // Opens files beyond the limit of held ones.
                reading.scan();
                reading.quiet_since = steady();
            }
            Ok(ReadOutcome::Unreadable) => {
                tracing::warn!(stream = %self.stdout.id(), "gap detected, log file unreadable");
                self.interrupt(PendingGap::Unreadable, reading);
                self.checkpointer.request_soon();
                reading.scan();
                reading.quiet_since = steady();
            }
            Ok(ReadOutcome::Idle) => {
                (reading.may_have_data, reading.is_idle) = (false, true);
                self.recovered();
                self.assembler.shrink();
            }
            Err(error) => {
                tracing::warn!(stream = %self.stdout.id(), %error, "log file read failed");
                self.failed(&error.to_string());
            }
        }
        // The end may decide it as well.
        if self.is_position_wrong(reading) {
            self.read_again(reading);
        } else if reading.is_idle {
            // The container may print nothing for long.
            self.record_gap_at_end();
        }
    }

    /// Returns whether the stream of standard error exists.
    fn has_stderr(&self) -> bool {
        self.uses_stderr || !self.stderr.is_empty()
    }

    /// Passes the frames to the streams, after the gap that precedes them.
    fn flush_frames(&mut self, tail: &mut Tail) {
        let is_empty = |fd| self.assembler.frame(fd).is_empty();
        if is_empty(Fd::Out) && is_empty(Fd::Err) {
            return;
        }
        if self.is_excluded {
            return self.drop_frames(tail);
        }
        self.record_pending_gap(self.assembler.first_time());
        let bytes = self.assembler.frame(Fd::Out).len() + self.assembler.frame(Fd::Err).len();
        self.checkpointer.record_read(bytes, tail, &self.stdout, &self.stderr);
        for (fd, stream) in [(Fd::Out, &mut self.stdout), (Fd::Err, &mut self.stderr)] {
            let before = stream.id().clone();
            stream.read(self.assembler.frame(fd));
            if *stream.id() != before {
                self.checkpointer.request_soon();
            }
        }
        let unrecognized = self.assembler.unrecognized_lines();
        if unrecognized > 0 {
            tracing::warn!(stream = %self.stdout.id(), lines = unrecognized, "lines not in the runtime's format, published unchanged");
            self.progress.add_unrecognized_lines(unrecognized);
        }
        self.assembler.clear();
    }

    /// Publishes standard error completely; skipped if it has no data. Returns false on shutdown.
    async fn drain_stderr(&mut self) -> bool {
        !self.has_stderr() || self.stderr.drain_until(&self.shutdown).await
    }

    /// Ends both streams at the end of the files; an open line counts as the last. Returns false if
    /// the collector shuts down before standard error is published.
    async fn finish(&mut self, mut reading: ReadState) -> bool {
        reading.tail.finish_rest(&mut self.assembler);
        self.assembler.close();
        self.flush_frames(&mut reading.tail);
        // What a stream has searched for is not in the log.
        for stream in [&mut self.stdout, &mut self.stderr] {
            if stream.is_searching() {
                stream.end_resume_search();
            }
            stream.record_mismatch();
        }
        let unread = reading.tail.is_broken().then_some(PendingGap::Unreadable);
        if let Some(gap) = self.gap.take().or(unread).filter(|_| !self.is_excluded) {
            self.record_gap(gap, None);
        }
        if self.has_stderr() {
            self.stderr.complete();
        }
        if !self.drain_stderr().await {
            return false;
        }
        self.stdout.complete();
        true
    }

    /// Ends the streams of files that no longer exist. Returns false as [`finish`](Self::finish)
    /// does.
    async fn give_up(&mut self, state: ContainerState) -> bool {
        // Nothing is known to be missing from the first instance of a container that was replaced
        // before it was read.
        let was_never_read = self.stdout.has_no_lines() && state.previous && !self.expect_first_line;
        if was_never_read || state.excluded {
            self.stdout.end_unread(None);
            return true;
        }
        self.uses_stderr = true;
        self.stderr.end_unread(Some(GapReason::Suspected));
        if !self.stderr.drain_until(&self.shutdown).await {
            return false;
        }
        self.stdout.end_unread(Some(GapReason::Suspected));
        true
    }

    /// Stores the position for the next start; everything before it is on the bus.
    fn save_last_position(&mut self) {
        if let Some(mut tail) = self.tail.take() {
            self.propose_checkpoint(&mut tail, true);
            self.checkpointer.save(&self.stdout, &self.stderr);
        }
    }

    /// A position after a gap is not stored before the gap is recorded.
    fn propose_checkpoint(&mut self, tail: &mut Tail, is_last: bool) {
        if self.gap.is_none() {
            self.checkpointer
                .propose(&self.assembler, tail, &self.stdout, &self.stderr, is_last);
        }
    }
}

/// Resolves on the next directory change; never without a watch.
async fn dir_changed(dir_watch: &Option<DirWatch>) -> DirChanges {
    match dir_watch {
        Some(dir_watch) => dir_watch.changed().await,
        None => future::pending().await,
    }
}
