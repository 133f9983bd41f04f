//! One container instance's files, from the first line to the last, into a stream for each output.

use std::{future, io, path::PathBuf, time::Duration};

use bus::{Fd, GapReason, Timestamp};
use futures::future::OptionFuture;
use tokio::{
    sync::watch,
    task,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    assemble::Joiner,
    checkpointer::Bases,
    reading::Reading,
    tail::{Opened, Tail, Turn},
    watch::{Bell, News, Watches},
};
use crate::{
    idle_metrics::Ear,
    instance::Known,
    metrics::Metrics,
    publish::checkpoint::Checkpoints,
    state_watch::{changed, park},
    status::Status,
    stream::Stream,
};

/// A container that runs has a file; one that is not there yet is looked for this often at first, and later less.
const MISSING_FIRST: Duration = Duration::from_millis(100);
const MISSING_LATER: Duration = Duration::from_secs(2);

/// After so long without a file, what ended has none any more, and what runs is told.
const MISSING_LONG: Duration = Duration::from_secs(5);

/// Where an instance's files are.
pub struct Files {
    /// `None`: its pod's directory is gone.
    pub dir: Option<PathBuf>,
    /// How many instances came before.
    pub number: u32,
}

/// Reads one container instance's files to their end.
pub struct FileFollower {
    known: watch::Receiver<Known>,
    /// An instance of its container was recorded before it: of this one too something was to be had.
    expected: bool,
    out: Stream,
    err: Stream,
    tail: Option<Tail>,
    joiner: Joiner,
    hole: Option<Hole>,
    bell: Option<Bell>,
    watches: Watches,
    bases: Bases,
    /// Knows how long nothing was heard of it.
    ear: Option<Ear>,
    metrics: Metrics,
    status: Status,
    shutdown: CancellationToken,
}

/// What the collector as a whole gives a follower.
pub struct Surroundings {
    pub watches: Watches,
    pub checkpoints: Checkpoints,
    pub metrics: Metrics,
    pub status: Status,
    pub shutdown: CancellationToken,
}

/// What is not read lies before the next line.
#[derive(Clone, Copy, Debug)]
enum Hole {
    /// It came about while the collector was away: new streams begin.
    Away,
    /// The node removed what was not read: the streams go on behind it.
    Rotated,
}

/// What looking for the files came to.
enum Begun {
    There,
    Gone,
    Shutdown,
}

impl FileFollower {
    /// Of an instance whose streams stand where their records do.
    pub fn new(
        files: Files,
        streams: (Stream, Stream),
        known: watch::Receiver<Known>,
        expected: bool,
        around: Surroundings,
    ) -> Self {
        let (out, err) = streams;
        Self {
            known,
            expected,
            out,
            err,
            tail: files.dir.map(|dir| Tail::new(dir, files.number)),
            joiner: Joiner::default(),
            hole: None,
            bell: None,
            watches: around.watches,
            bases: Bases::new(around.checkpoints),
            ear: None,
            metrics: around.metrics,
            status: around.status,
            shutdown: around.shutdown,
        }
    }

    /// Reads until the streams' ends are on the bus and the instance is shown no more, or the collector stops. Returns whether it is the former.
    pub async fn run(mut self) -> bool {
        tracing::info!(stream = %self.out.id(), "reading files");
        let is_over = self.out.is_finished() || self.follow().await;
        self.ear = None;
        // Standard output last: its record says that all is over.
        if !is_over {
            if !self.err.is_untouched() {
                self.err.drain_or_keep().await;
            }
            self.out.drain_or_keep().await;
            self.note_last_base();
            return false;
        }
        if !self.drain_err().await || !self.out.drain_until(&self.shutdown).await {
            return false;
        }
        tracing::info!(stream = %self.out.id(), "ended");
        let Self { known, shutdown, .. } = self;
        park(known, shutdown).await
    }

    /// Whether it came to the files' end, rather than to the collector's.
    async fn follow(&mut self) -> bool {
        let (tail, known) = match self.begin().await {
            (Begun::Shutdown, _, _) => return false,
            (Begun::There, Some(tail), known) => (tail, known),
            (_, _, known) => return self.give_up(known).await,
        };
        let mut reading = Reading::new(tail, known);
        loop {
            let has_room = self.out.has_room() && self.err.has_room();
            let ends = reading.ends();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.tail = Some(reading.tail);
                    return false;
                }
                () = self.out.progress() => {}
                () = self.err.progress() => {}
                now = changed(&mut self.known) => reading.is_told(now),
                news = rung(&self.bell) => reading.hears(news),
                () = sleep_until(reading.look) => {
                    self.listen(&reading.tail);
                    reading.looks(self.is_deaf());
                }
                () = task::yield_now(), if reading.is_hungry && has_room => self.turn(&mut reading),
                Some(()) = OptionFuture::from(reading.settled.map(sleep_until)) => reading.wakes(),
                Some(()) = OptionFuture::from(ends.map(sleep_until)) => {
                    // A last look, whatever the kernel told.
                    reading.looks(self.is_deaf());
                    self.turn(&mut reading);
                    if reading.is_idle {
                        return self.finish(reading).await;
                    }
                }
            }
            self.bases.save(&self.out, &self.err);
        }
    }

    /// Waits until there are files to read.
    async fn begin(&mut self) -> (Begun, Option<Tail>, Known) {
        let since = Instant::now();
        let mut is_told = false;
        loop {
            let known = *self.known.borrow_and_update();
            let Some(mut tail) = self.tail.take() else {
                return (Begun::Gone, None, known);
            };
            let opened = self.open(&mut tail);
            if !matches!(opened, Ok(Opened::Missing) | Err(_)) {
                self.listen(&tail);
                self.ear = Some(self.metrics.heard.listen());
                return (Begun::There, Some(tail), known);
            }
            let is_late = since.elapsed() > MISSING_LONG;
            let has_pod = tail.dir().parent().is_some_and(|dir| dir.is_dir());
            let has_none = opened.is_ok() && has_pod && is_late;
            if !known.present || known.terminated && has_none {
                return (Begun::Gone, None, known);
            }
            if is_late && !is_told {
                is_told = true;
                let reason = opened
                    .err()
                    .map_or_else(|| "there is none".to_owned(), |error| error.to_string());
                tracing::warn!(stream = %self.out.id(), dir = %tail.dir().display(), reason, "no log file to read (--pod-log-dir)");
            }
            self.tail = Some(tail);
            let wait = sleep(if is_late { MISSING_LATER } else { MISSING_FIRST });
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return (Begun::Shutdown, None, known),
                () = self.out.publish_while(async { tokio::select! { () = wait => {}, _ = changed(&mut self.known) => {} } }) => {}
            }
        }
    }

    /// Opens the files where the base is, and has the streams go on there; where it is gone, from the oldest that is left.
    fn open(&mut self, tail: &mut Tail) -> io::Result<Opened> {
        let base = self.bases.on_record(&self.out, &self.err);
        let is_fresh = self.out.is_blank() && self.err.is_blank();
        match tail.open(base.map(|base| base.place).as_ref(), Instant::now())? {
            Opened::There if base.is_some() => {
                self.out.resume_from(base.map_or(0, |base| base.out.seq));
                self.err.resume_from(base.map_or(0, |base| base.err.seq));
                self.bases.joined();
                Ok(Opened::There)
            }
            Opened::Missing => Ok(Opened::Missing),
            _ => {
                self.hole = (!is_fresh).then_some(Hole::Away);
                Ok(Opened::There)
            }
        }
    }

    fn listen(&mut self, tail: &Tail) {
        if self.is_deaf() {
            self.bell = Some(self.watches.watch(tail.dir(), tail.number()));
        }
    }

    fn is_deaf(&self) -> bool {
        self.bell.as_ref().is_none_or(Bell::is_deaf)
    }

    fn turn(&mut self, reading: &mut Reading) {
        reading.is_idle = false;
        let turn = reading.tail.turn(&mut self.joiner, Instant::now());
        self.hand_over(&mut reading.tail);
        match turn {
            Ok(Turn::Read) => {
                reading.quiet_since = Instant::now();
                if let Some(ear) = &self.ear {
                    ear.heard();
                }
                self.note_base(&mut reading.tail, false);
            }
            Ok(Turn::Settling(until)) => (reading.is_hungry, reading.settled) = (false, Some(until)),
            Ok(Turn::Next { after_hole }) => {
                if after_hole {
                    tracing::warn!(stream = %self.out.id(), "files were removed before they were read");
                    self.joiner.close();
                    self.hand_over(&mut reading.tail);
                    self.hole = self.hole.or(Some(Hole::Rotated));
                }
                // Those past the number that is held open.
                reading.scan();
                reading.quiet_since = Instant::now();
            }
            Ok(Turn::Idle) => {
                (reading.is_hungry, reading.is_idle) = (false, true);
                self.joiner.shrink();
            }
            Err(error) => {
                tracing::warn!(stream = %self.out.id(), %error, "a log file cannot be read on");
            }
        }
    }

    /// Hands what was read to the streams, behind the word of what was not.
    fn hand_over(&mut self, tail: &mut Tail) {
        let is_empty = |fd| self.joiner.frame(fd).is_empty();
        if is_empty(Fd::Out) && is_empty(Fd::Err) {
            return;
        }
        if let Some(hole) = self.hole.take() {
            self.tell(hole, self.joiner.first());
            self.bases.parted();
        }
        let bytes = self.joiner.frame(Fd::Out).len() + self.joiner.frame(Fd::Err).len();
        self.bases.hand_over(bytes, tail, &self.out, &self.err);
        for (fd, stream) in [(Fd::Out, &mut self.out), (Fd::Err, &mut self.err)] {
            stream.read(self.joiner.frame(fd));
            if stream.is_absent() {
                stream.part();
                self.bases.outdated();
            }
        }
        let foreign = self.joiner.foreign_lines();
        if foreign > 0 {
            tracing::warn!(stream = %self.out.id(), lines = foreign, "lines are not in the runtime's format: taken as they stand");
            self.status.add_foreign_lines(foreign);
        }
        self.joiner.clear();
    }

    /// Tells a hole, in each stream that something was had of, or at least in one.
    fn tell(&mut self, hole: Hole, next: Option<Timestamp>) {
        let only_out = self.err.is_untouched();
        let told = [
            (!only_out, &mut self.err),
            (only_out || !self.out.is_untouched(), &mut self.out),
        ];
        for (_, stream) in told.into_iter().filter(|(is_told, _)| *is_told) {
            match hole {
                Hole::Away => stream.part_at(next),
                Hole::Rotated => stream.miss(GapReason::Rotated, next.unwrap_or_else(Timestamp::now)),
            }
        }
    }

    /// Publishes all of standard error; what is not touched has nothing. False: the collector stopped first.
    async fn drain_err(&mut self) -> bool {
        self.err.is_untouched() || self.err.drain_until(&self.shutdown).await
    }

    /// Everything was read: what is open is the last line. False: the collector stopped before all of standard error was on its way.
    async fn finish(&mut self, mut reading: Reading) -> bool {
        reading.tail.finish_rest(&mut self.joiner);
        self.joiner.close();
        self.hand_over(&mut reading.tail);
        let unread = reading.tail.is_broken().then_some(Hole::Rotated);
        if let Some(hole) = self.hole.take().or(unread) {
            self.tell(hole, None);
        }
        if !self.err.is_untouched() {
            self.err.complete();
        }
        if !self.drain_err().await {
            return false;
        }
        self.out.complete();
        true
    }

    /// There are no files to be read any more. False as for [`finish`](Self::finish).
    async fn give_up(&mut self, known: Known) -> bool {
        if !self.err.is_blank() {
            self.err.gone(true);
            if !self.err.drain_until(&self.shutdown).await {
                return false;
            }
        }
        // A container's first that was seen, followed by another and never read: of it nothing is known to be missing.
        let missed = self.out.is_blank() && known.previous && !self.expected;
        self.out.gone(!missed);
        true
    }

    /// Notes the place for the next start: everything before it is on the bus.
    fn note_last_base(&mut self) {
        if let Some(mut tail) = self.tail.take() {
            self.note_base(&mut tail, true);
            self.bases.save(&self.out, &self.err);
        }
    }

    /// A place behind a hole is none to go on from before the hole is told.
    fn note_base(&mut self, tail: &mut Tail, is_last: bool) {
        if self.hole.is_none() {
            self.bases.note(&self.joiner, tail, &self.out, &self.err, is_last);
        }
    }
}

/// The next news. Never where there is no bell.
async fn rung(bell: &Option<Bell>) -> News {
    match bell {
        Some(bell) => bell.rung().await,
        None => future::pending().await,
    }
}
