//! Follows the log of one container instance from its first line to its last.

use std::{sync::Arc, time::Duration};

use bus::{GapReason, Timestamp};
use system::clock::{Instant, since, steady};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    idle_metrics::IdleGuard,
    instance::{ContainerState, Instance},
    metrics::{GaugeGuard, Metrics},
    publish::checkpoint::CheckpointStore,
    report::ContainerReport,
    state_watch::{state_changed, wait_until_absent},
    stream::{Stream, resume_search::Extent},
};

use super::{
    follow_slots::{FollowSlot, FollowSlots},
    identity::{Owner, Predecessor},
    next_step::{NextStep, Retries},
    outcome::Outcome,
    refusals::RefusalLog,
    request::{LogBody, LogRequest, LogResponse},
    rotation::Lag,
    scan::{Scan, TAIL_LINES},
};

/// A log that was empty is rotated at most once within this time, and not before it has lines.
const INTACT_FOR: Duration = Duration::from_secs(3);

/// A log that stays open this long proves that the API and the kubelet work.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Time limit for reading the open follow of a deleted pod; the kubelet ends it within about 2 s.
const REMAINING_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads one container instance to its end.
pub struct Follower {
    pub client: kube::Client,
    pub instance: Arc<Instance>,
    pub state: watch::Receiver<ContainerState>,
    pub stream: Stream,
    /// An earlier instance of the container has a checkpoint, so a missing log is a gap.
    pub expect_first_line: bool,
    pub shutdown: CancellationToken,
    pub metrics: Metrics,
    pub report: ContainerReport,
    pub slots: FollowSlots,
    pub refusals: RefusalLog,
    /// Maximum age of a follow before it is renewed.
    pub renew_after: Duration,
    /// Counts the container in the idle metrics while it runs.
    pub idle_guard: Option<IdleGuard>,
    /// The last poll returned new lines.
    pub is_active: bool,
    /// The follow that was open when the container terminated; read only if the plain read fails.
    pub open_follow: Option<LogBody>,
    /// The same while the log of the terminated container is read, if the follow had delivered all
    /// that was known.
    pub last_follow: Option<LastFollow>,
    /// What the next request must find out.
    pub scan: Scan,
    /// Follows begin with the whole file, because its end does not show where to continue.
    pub follows_file: bool,
    /// The pod is or was excluded, and the log was not read since.
    pub is_paused: bool,
    /// The log ends with an empty file, and only the follow shows that nothing precedes it.
    pub suspects_end: bool,
    /// The skipped part of the log may contain lines that were not read.
    pub skips_unread: bool,
    /// The kubelet serves the log as that of the previous instance, whatever the pod's status says.
    pub is_replaced: bool,
    /// The instance before, if it has a checkpoint.
    pub predecessor: Option<Predecessor>,
    /// Contains the checkpoint of the instance before.
    pub checkpoints: CheckpointStore,
    /// How late lines arrive.
    pub lag: Lag,
    /// When the start of the log was last known to be in it, while no line was read: the container
    /// had just started, or the log was empty.
    pub intact_at: Option<Instant>,
    /// When the container started, in whole seconds of the node's clock, until the log is opened.
    /// `None` if its start was not waited for.
    pub started_at: Option<Timestamp>,
    /// The log was never read: if its start may be missing, that is recorded even if it has no line.
    pub is_unread: bool,
    /// Since when the log may belong to another instance, and whether it was requested as that of the
    /// previous one.
    pub in_doubt: Option<(bool, Instant)>,
    /// The last follow ended, as it does when the container ends; its status may lag.
    pub may_have_ended: bool,
    /// The log of the previous instance is known to be empty.
    pub is_previous_empty: bool,
}

/// A follow that was open when its container terminated.
pub enum LastFollow {
    Open(LogBody),
    /// It ended without another line, and no request has failed since.
    Ended,
}

impl Follower {
    /// Reads until the end of the stream is on the bus and the pod no longer lists the instance.
    /// Returns false if the collector shuts down first.
    pub async fn run(mut self) -> bool {
        tracing::info!(stream = %self.stream.id(), app = %self.instance.app, process = self.instance.process, "following container");
        if self.stream.is_finished() || self.read_log().await {
            self.idle_guard = None;
            if self.is_paused && self.stream.has_no_lines() {
                // Nothing of an excluded pod is published.
                return true;
            }
            if !self.stream.drain_until(&self.shutdown).await {
                return false;
            }
            tracing::info!(stream = %self.stream.id(), "stream ended");
            let Self { state, shutdown, .. } = self;
            wait_until_absent(state, shutdown).await
        } else {
            self.stream.drain_or_keep().await;
            false
        }
    }

    /// Returns whether the end of the log was reached, rather than shutdown.
    async fn read_log(&mut self) -> bool {
        let mut retries = Retries::new();
        loop {
            let state = self.current_state();
            if !state.present {
                self.end_unread(state).await;
                return true;
            }
            if state.excluded {
                if !self.pause().await {
                    return false;
                }
                continue;
            }
            let mut opened = None;
            let outcome = self.read(state, &mut opened).await;
            if opened.is_some_and(|opened: Instant| since(opened) > STABLE_AFTER) {
                // The connection was stable, so the next failure is a new one.
                retries.backoff.reset();
            }
            if let Some(reason) = outcome.reconnect_reason() {
                self.metrics.reconnected(reason);
            }
            if let Some(reason) = outcome.failure().filter(|_| opened.is_none() && !state.terminated) {
                self.report.failed(reason);
            }
            match self.next_step(outcome, state, &mut retries) {
                NextStep::Shutdown => return false,
                NextStep::EndUnread => {
                    self.end_unread(state).await;
                    return true;
                }
                NextStep::Complete if self.suspects_end => {
                    self.stream.end_unread(Some(GapReason::Suspected));
                    return true;
                }
                NextStep::Complete => {
                    self.stream.complete();
                    return true;
                }
                NextStep::ReadAgain => {}
                NextStep::ReadAfter(delay) => {
                    if !self.wait(delay).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits while the pod is excluded; what it prints meanwhile is skipped. Returns false on
    /// shutdown.
    async fn pause(&mut self) -> bool {
        tracing::info!(stream = %self.stream.id(), "pod excluded, collection paused");
        if !self.stream.is_empty() {
            self.report.excluded();
        }
        (self.open_follow, self.last_follow, self.idle_guard, self.intact_at) = (None, None, None, None);
        (self.scan, self.skips_unread, self.is_paused) = (Scan::Skipped, false, true);
        let mut state = self.state.clone();
        let included = async {
            let mut now = *state.borrow_and_update();
            while now.excluded && now.present {
                now = state_changed(&mut state).await;
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            () = self.stream.publish_while(included) => true,
        }
    }

    /// Returns the state of the instance. The kubelet may be ahead of the pod's status.
    fn current_state(&mut self) -> ContainerState {
        let state = *self.state.borrow_and_update();
        ContainerState {
            terminated: state.terminated || self.is_replaced,
            previous: state.previous || self.is_replaced,
            ..state
        }
    }

    /// Reads once: follows the log of a running container, reads that of a terminated one to its
    /// end. Sets `opened` when the response starts.
    async fn read(&mut self, state: ContainerState, opened: &mut Option<Instant>) -> Outcome {
        let slot = if state.terminated {
            self.idle_guard = None;
            None
        } else {
            let idle = &self.metrics.idle;
            self.idle_guard.get_or_insert_with(|| idle.track());
            self.slots.acquire(&self.instance.node, self.is_active)
        };
        let scan = self.scan;
        let is_whole = self.follows_file && scan == Scan::None;
        let wants_tail = self.stream.must_resume() && matches!(scan, Scan::None | Scan::Tail) && !is_whole;
        let request = LogRequest {
            follow: slot.is_some() && scan == Scan::None,
            previous: state.previous,
            tail_lines: wants_tail.then_some(TAIL_LINES),
            limit_bytes: None,
        };
        let (client, instance, slots) = (&self.client, &self.instance, &self.slots);
        let send = async {
            let connection = if request.follow { None } else { slots.snapshot().await };
            (request.send(client, instance).await, connection)
        };
        let (response, _connection) = tokio::select! {
            () = self.shutdown.cancelled() => return Outcome::Shutdown,
            sent = self.stream.publish_while(send) => sent,
        };
        let responded_at = steady();
        if !matches!(response, LogResponse::LogBody(_)) {
            self.last_follow = None;
        }
        let log = match response {
            LogResponse::LogBody(log) => log,
            LogResponse::NotStarted => return Outcome::NotStarted,
            LogResponse::PodGone => return Outcome::PodGone,
            LogResponse::NoPrevious => return Outcome::Unreadable,
            LogResponse::Busy(wait) => return Outcome::Busy(wait),
            LogResponse::Refused(reason) => return Outcome::Refused(reason),
            LogResponse::Failed(reason) => return Outcome::Broken(reason),
        };
        let _polled = (!state.terminated && slot.is_none()).then(|| GaugeGuard::new(&self.metrics.polled));
        // The watch may lag behind, so the pod is checked after the log was opened.
        if !self.stream.must_resume() && self.log_owner(state).await != Owner::Instance {
            return Outcome::Broken("the log may belong to another instance".to_owned());
        }
        self.last_follow = self
            .open_follow
            .take()
            .filter(|_| self.stream.is_caught_up())
            .map(LastFollow::Open)
            .or(self.last_follow.take());
        *opened = Some(steady());
        self.report.recovered();
        if let Some(started_at) = self.started_at.take() {
            self.stream.open_first(started_at, responded_at);
        }
        let is_intact = |at: Instant| responded_at.duration_since(at) <= INTACT_FOR;
        if self.intact_at.is_some_and(|at| !is_intact(at)) {
            self.stream.suspect_start();
        }
        let extent = if is_whole { Extent::File } else { scan.extent() };
        self.stream.start_response(extent);
        let outcome = match &slot {
            Some(slot) if request.follow => self.read_follow(log, slot).await,
            _ => self.read_snapshot(log).await,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => self.response_ended(state).await,
        };
        if request.follow {
            let has_ended = matches!(outcome, Outcome::Ended { .. }) && !state.terminated;
            // The follow of a container that has ended does not stay open.
            let was_stable = opened.is_some_and(|opened| since(opened) >= STABLE_AFTER);
            let has_run = was_stable && !self.stream.is_searching();
            self.may_have_ended = has_ended || (self.may_have_ended && !has_run);
        }
        let is_proof = match &outcome {
            Outcome::Stalled | Outcome::Unreadable => false,
            Outcome::Broken(_) => request.follow,
            _ => true,
        };
        if is_proof {
            self.is_unread &= self.stream.suspects_empty_log();
            // A follow without a line proves that there was none while it was open.
            self.intact_at = self.stream.is_empty().then(steady);
        }
        self.release_slot(slot, request.follow, outcome, state)
    }

    /// Reports a refused follow to the slots, and maps the clean end of a plain read of a running
    /// container.
    fn release_slot(
        &self,
        slot: Option<FollowSlot>,
        is_follow: bool,
        outcome: Outcome,
        state: ContainerState,
    ) -> Outcome {
        match (slot, outcome) {
            (Some(slot), Outcome::NoFollow) => {
                tracing::debug!(stream = %self.stream.id(), "follow limit of the node reached, polling");
                slot.report_limit();
                Outcome::NoFollow
            }
            (None, Outcome::Ended { new_lines, .. }) if !state.terminated => Outcome::Polled { new_lines },
            (Some(_), Outcome::Ended { .. }) if !is_follow => Outcome::Resumed,
            (_, outcome) => outcome,
        }
    }

    /// Reads what the open follow of a deleted pod still holds. Returns whether it delivered the
    /// whole log: it ended by itself, as it does when the containers of the pod have ended.
    async fn read_remaining(&mut self) -> bool {
        let Some(mut log) = self.open_follow.take() else {
            return false;
        };
        if self.stream.is_searching() {
            return false;
        }
        let deadline = steady() + REMAINING_TIMEOUT;
        loop {
            match timeout(deadline - steady(), self.stream.publish_while(log.next())).await {
                Ok(Some(Ok(data))) => self.stream.read(&data),
                Ok(None) => return self.stream.untimestamped_rest().is_none() && !self.stream.expects_file(),
                Ok(Some(Err(_))) | Err(_) => return false,
            }
            if !self.stream.has_room() {
                self.stream.progress().await;
            }
        }
    }

    /// Ends the stream of a log that can no longer be read.
    async fn end_unread(&mut self, state: ContainerState) {
        if self.is_paused {
            if !self.stream.has_no_lines() {
                self.stream.end_unread(None);
            }
            return;
        }
        if self.read_remaining().await {
            return self.stream.complete();
        }
        // Nothing is known to be missing from the first instance of a container that was replaced
        // before it was read.
        let was_never_read = self.stream.has_no_lines() && state.previous && !self.expect_first_line;
        // Nothing proves that its last lines were read, or that they were not.
        self.stream
            .end_unread((!was_never_read).then_some(GapReason::Suspected));
    }

    /// Waits for `wait` or for a state change. Returns false on shutdown.
    async fn wait(&mut self, wait: Duration) -> bool {
        let new_lines = async {
            tokio::select! {
                () = sleep(wait) => {}
                _ = state_changed(&mut self.state) => {}
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            () = self.stream.publish_while(new_lines) => true,
        }
    }
}
