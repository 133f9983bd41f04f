//! Reads one response from its first frame to its last.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, OptionFuture},
};
use system::{
    clock::{Instant, steady},
    random::random_range,
};
use tokio::time::sleep_until;

use crate::{metrics::GaugeGuard, state_watch::state_changed};

use super::{
    follow::Follower,
    follow_slots::FollowSlot,
    outcome::Outcome,
    request::{LogBody, LogRequest},
    rotation::{self, Finished, Place, ProbeResult, RotationProbe, Silence},
    scan::Scan,
    stall::{self, StallAction, StallDetector},
};

/// A plain read without a frame for this long is broken.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// A follow without the last line read after this long probably reads another file.
const RESUME_TIMEOUT: Duration = Duration::from_secs(1);

/// A follow without a line for this long is that of an empty log.
const EMPTY_AFTER: Duration = Duration::from_secs(1);

/// Lines of the log's end that a stall probe reads. The last may be incomplete.
const STALL_PROBE_LINES: u32 = 2;

/// What a frame of a response leads to.
enum AfterFrame {
    Continue,
    CleanEnd,
    Stop(Outcome),
}

impl Follower {
    /// Reads a follow. Returns `None` if the body ended cleanly.
    pub(crate) async fn read_follow(&mut self, log: LogBody, slot: &FollowSlot) -> Option<Outcome> {
        let mut rotation = RotationProbe::new(self.lag);
        let outcome = self.follow(log, slot, &mut rotation).await;
        if let Some(seq) = rotation.unanswered() {
            self.stream.suspect_jump(seq);
        }
        outcome
    }

    async fn follow(&mut self, mut log: LogBody, slot: &FollowSlot, rotation: &mut RotationProbe) -> Option<Outcome> {
        let mut stall = StallDetector::new();
        let mut stall_probe: Option<BoxFuture<'static, bool>> = None;
        let mut rotation_probe: Option<BoxFuture<'static, Option<ProbeResult>>> = None;
        let resume_until = steady() + RESUME_TIMEOUT;
        let empty_at = steady() + EMPTY_AFTER;
        let _open = GaugeGuard::new(&self.metrics.followed);
        // Jitter keeps a node's follows from renewing at the same time.
        let renew_at = steady() + self.renew_after.mul_f64(random_range(0.8..=1.0));
        loop {
            let probe_at = self.rotation_probe_due(rotation, rotation_probe.is_some());
            let is_searching = self.stream.is_searching();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Outcome::Shutdown),
                () = self.stream.progress() => {}
                now = state_changed(&mut self.state) => {
                    if now.excluded {
                        return Some(Outcome::StateChanged);
                    }
                    if now.terminated || !now.present {
                        self.open_follow = Some(log);
                        return Some(Outcome::StateChanged);
                    }
                }
                Some(result) = OptionFuture::from(rotation_probe.as_mut()) => {
                    rotation_probe = None;
                    let was_expected = self.stream.expects_file();
                    self.finish_rotation_probe(rotation, result);
                    if was_expected && rotation.is_silent() {
                        return Some(Outcome::Stalled);
                    }
                }
                Some(()) = OptionFuture::from(probe_at.map(sleep_until)) => {
                    let position = rotation.start(self.stream.confirmed(), self.stream.reached_file());
                    rotation_probe = Some(rotation::probe(self.client.clone(), Arc::clone(&self.instance), position).boxed());
                }
                frame = log.next(), if self.stream.has_room() => {
                    let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()).map_or(0, Bytes::len);
                    stall.received(bytes);
                    slot.record_activity();
                    stall_probe = None;
                    let before = Silence {
                        last: self.stream.confirmed().map(|confirmed| confirmed.anchor),
                        next_seq: self.stream.next_unread_seq(),
                    };
                    let data = frame.as_ref().and_then(|frame| frame.as_ref().ok());
                    let first_time = data.filter(|_| rotation.follows_silence()).and_then(|data| first_time(data));
                    match self.handle_frame(frame) {
                        AfterFrame::Continue => {}
                        AfterFrame::CleanEnd => return None,
                        AfterFrame::Stop(outcome) => return Some(outcome),
                    }
                    let last_time = self.stream.last_read().map(|time| time.0);
                    rotation.received(bytes, first_time, last_time, before);
                    self.lag = rotation.lag();
                }
                () = sleep_until(resume_until), if is_searching => {
                    self.scan = Scan::Tail;
                    // The end of a log whose lines all have one time does not show where it continues.
                    self.follows_file = !self.follows_file;
                    return Some(Outcome::Stalled);
                }
                () = sleep_until(empty_at), if self.is_unread && self.stream.suspects_empty_log() => {
                    self.stream.record_suspected_start();
                }
                Some(has_more) = OptionFuture::from(stall_probe.as_mut()) => {
                    stall_probe = None;
                    stall.probe_finished(has_more);
                }
                () = sleep_until(stall.deadline()), if stall_probe.is_none() && self.stream.has_room() => match stall.action() {
                    StallAction::Probe => stall_probe = Some(self.probe_stall()),
                    StallAction::Replace => return Some(Outcome::Stalled),
                },
                () = slot.revoked() => return Some(Outcome::SlotRevoked),
                () = sleep_until(renew_at) => return Some(Outcome::Renewed),
            }
        }
    }

    /// Reads a response without follow. Returns `None` if the body ended cleanly.
    pub(crate) async fn read_snapshot(&mut self, mut log: LogBody) -> Option<Outcome> {
        let mut last_frame = steady();
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Outcome::Shutdown),
                () = self.stream.progress() => {}
                now = state_changed(&mut self.state) => if now.excluded {
                    return Some(Outcome::StateChanged);
                },
                frame = log.next(), if self.stream.has_room() => {
                    last_frame = steady();
                    match self.handle_frame(frame) {
                        AfterFrame::Continue => {}
                        AfterFrame::CleanEnd => return None,
                        AfterFrame::Stop(outcome) => return Some(outcome),
                    }
                }
                () = sleep_until(last_frame + SNAPSHOT_TIMEOUT), if self.stream.has_room() => {
                    return Some(Outcome::Broken("a plain read timed out".to_owned()));
                }
            }
        }
    }

    /// Passes a frame to the stream.
    fn handle_frame(&mut self, frame: Option<Result<Bytes, String>>) -> AfterFrame {
        match frame {
            Some(Ok(data)) => {
                if let Some(idle_guard) = &self.idle_guard {
                    idle_guard.record_activity();
                }
                self.stream.read(&data);
                self.search_decided().map_or(AfterFrame::Continue, AfterFrame::Stop)
            }
            Some(Err(reason)) => AfterFrame::Stop(Outcome::Broken(reason)),
            None => AfterFrame::CleanEnd,
        }
    }

    /// Checks whether a plain read ends with another line than the open follow delivered.
    fn probe_stall(&self) -> BoxFuture<'static, bool> {
        let request = LogRequest {
            tail_lines: Some(STALL_PROBE_LINES),
            ..LogRequest::default()
        };
        let last = self.stream.confirmed().map(|confirmed| confirmed.anchor);
        let (client, instance) = (self.client.clone(), Arc::clone(&self.instance));
        async move { stall::has_more(request, &client, &instance, last).await }.boxed()
    }

    fn rotation_probe_due(&self, rotation: &RotationProbe, is_probing: bool) -> Option<Instant> {
        if is_probing || self.stream.is_searching() {
            return None;
        }
        rotation.due_at(self.stream.expects_file())
    }

    fn finish_rotation_probe(&mut self, rotation: &mut RotationProbe, result: Option<ProbeResult>) {
        let Finished {
            follows_silence,
            unproved,
        } = rotation.finish(result.as_ref());
        if let Some(seq) = unproved {
            self.stream.suspect_jump(seq);
        }
        match result {
            Some(ProbeResult {
                start,
                place: Place::Behind,
            }) => self.stream.expect_file(start, follows_silence),
            Some(ProbeResult {
                start,
                place: Place::Reached { first_seq },
            }) => {
                self.stream.reach_file(&start, first_seq, follows_silence);
            }
            Some(ProbeResult {
                place: Place::Unchanged,
                ..
            })
            | None => {}
        }
        self.metrics.rotation_probes.inc();
    }
}

/// Returns the time of the line that a frame begins with; `None` if it begins within a line.
fn first_time(frame: &[u8]) -> Option<i64> {
    let line = frame.split(|byte| *byte == b'\n').next()?;
    bus::Timestamp::split_line(line).map(|(time, _)| time.0)
}
