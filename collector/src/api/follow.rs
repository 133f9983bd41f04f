//! One container instance, from its first line to its last.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    idle_metrics::IdleGuard,
    instance::{ContainerState, Instance},
    metrics::{GaugeGuard, Metrics},
    retry::Backoff,
    state_watch::{state_changed, wait_until_absent},
    stream::{Stream, TailFingerprint},
};

use super::{
    follow_slots::{FollowSlot, FollowSlots},
    outcome::Outcome,
    refusals::RefusalLog,
    request::{LogBody, LogRequest, LogResponse, is_follow_limit, is_kubelet_error},
};

/// The first wait before a log is asked for again: a follow that ended because the kubelet restarted finds it back in about a second.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest: what is waited for then is the API, or the kubelet.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A log that was open for so long found API and kubelet well.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// A container that is not started yet says so by a new state; this is only the safety net.
const NOT_STARTED_WAIT: Duration = Duration::from_secs(10);

/// A container that cannot be followed is polled this often while it says something, and ever rarer while it does not.
const POLL_FIRST: Duration = Duration::from_secs(1);

/// The rarest: a kubelet rotates every 10 s at the most.
const POLL_MAX: Duration = Duration::from_secs(5);

/// What is left in an open follow of a pod that is gone is read for so long at most: the kubelet ends it within about 2 s.
const REMAINING_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads one container instance to its end.
pub struct Follower {
    pub client: kube::Client,
    pub instance: Arc<Instance>,
    pub state: watch::Receiver<ContainerState>,
    pub stream: Stream,
    /// An instance of its container was recorded before it: of this one too something was to be had.
    pub expect_first_line: bool,
    pub shutdown: CancellationToken,
    pub metrics: Metrics,
    pub slots: FollowSlots,
    pub refusals: RefusalLog,
    /// After this, at the latest, a follow is renewed.
    pub renew_after: Duration,
    /// Tells how long it has been silent, while it runs.
    pub idle_guard: Option<IdleGuard>,
    /// It was polled, and had something to say.
    pub is_active: bool,
    /// A follow that was open when its container terminated: what it still holds is wanted only where the plain read fails.
    pub open_follow: Option<LogBody>,
}

impl Follower {
    /// Reads until the stream's end is on the bus and the instance is shown no more, or the collector stops. Returns whether it is the former.
    pub async fn run(mut self) -> bool {
        tracing::info!(stream = %self.stream.id(), app = %self.instance.app, process = self.instance.process, "following");
        if self.stream.is_finished() || self.read_log().await {
            self.idle_guard = None;
            if !self.stream.drain_until(&self.shutdown).await {
                return false;
            }
            tracing::info!(stream = %self.stream.id(), "ended");
            let Self { state, shutdown, .. } = self;
            wait_until_absent(state, shutdown).await
        } else {
            self.stream.drain_or_keep().await;
            false
        }
    }

    /// Whether it came to the stream's end, rather than to the collector's.
    async fn read_log(&mut self) -> bool {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut poll_backoff = Backoff::new(POLL_FIRST, POLL_MAX);
        let mut last_tail = TailFingerprint::default();
        // A body that ends cleanly before the anchor may have been cut off: only twice in a row is it believed.
        let mut ended_early = false;
        loop {
            let state = *self.state.borrow_and_update();
            if !state.present {
                self.read_remaining().await;
                self.end_unread(state);
                return true;
            }
            let mut opened = None;
            let outcome = self.read(state, &mut ended_early, &mut opened).await;
            if opened.is_some_and(|opened: Instant| opened.elapsed() > STABLE_AFTER) {
                // What ends it now is another trouble than what was waited for before.
                backoff.reset();
            }
            if let Some(reason) = outcome.reconnect_reason() {
                self.metrics.reconnected(reason);
            }
            let wait = match outcome {
                Outcome::Shutdown => return false,
                Outcome::PodGone => {
                    self.read_remaining().await;
                    self.end_unread(state);
                    return true;
                }
                Outcome::Ended { new_lines: 0, tail } if state.terminated && tail == last_tail => {
                    self.stream.complete();
                    return true;
                }
                Outcome::Ended { new_lines, tail } => {
                    last_tail = tail;
                    if new_lines > 0 {
                        backoff.reset();
                    }
                    backoff.next_delay()
                }
                Outcome::StateChanged => {
                    last_tail = self.stream.tail();
                    backoff.reset();
                    continue;
                }
                Outcome::Renewed => continue,
                Outcome::Polled { new_lines } => {
                    self.is_active = new_lines > 0;
                    if self.is_active {
                        poll_backoff.reset();
                    }
                    poll_backoff.next_delay()
                }
                Outcome::NoFollow | Outcome::SlotRevoked => {
                    self.is_active = false;
                    RETRY_FIRST
                }
                Outcome::Busy(wait) => wait.max(backoff.next_delay()),
                Outcome::NotStarted => NOT_STARTED_WAIT,
                Outcome::Stalled => {
                    tracing::debug!(stream = %self.stream.id(), "log silent, though there are lines");
                    backoff.next_delay()
                }
                Outcome::Refused(reason) => {
                    self.refusals.warn(&self.instance, &reason);
                    backoff.next_delay()
                }
                Outcome::Broken(reason) => {
                    tracing::debug!(stream = %self.stream.id(), reason, "log to be asked for again");
                    backoff.next_delay()
                }
            };
            if !self.wait(wait).await {
                return false;
            }
        }
    }

    /// Reads once: a running container's log as it is written, a terminated one's to its end. Notes when it was `opened`.
    async fn read(&mut self, state: ContainerState, ended_early: &mut bool, opened: &mut Option<Instant>) -> Outcome {
        let slot = if state.terminated {
            self.idle_guard = None;
            None
        } else {
            let idle = &self.metrics.idle;
            self.idle_guard.get_or_insert_with(|| idle.track());
            self.slots.acquire(&self.instance.node, self.is_active)
        };
        let request = LogRequest {
            follow: slot.is_some(),
            previous: state.previous,
            since: self.stream.since(),
            limit_bytes: None,
        };
        let response = tokio::select! {
            () = self.shutdown.cancelled() => return Outcome::Shutdown,
            response = self.stream.publish_while(request.send(&self.client, &self.instance)) => response,
        };
        let log = match response {
            LogResponse::LogBody(log) => log,
            LogResponse::NotStarted => return Outcome::NotStarted,
            LogResponse::PodGone => return Outcome::PodGone,
            LogResponse::NoPrevious => return Outcome::Broken("no previous instance".to_owned()),
            LogResponse::Busy(wait) => return Outcome::Busy(wait),
            LogResponse::Refused(reason) => return Outcome::Refused(reason),
            LogResponse::Failed(reason) => return Outcome::Broken(reason),
        };
        let _polled = (!state.terminated && slot.is_none()).then(|| GaugeGuard::new(&self.metrics.polled));
        // However soon after it was shown: a watch may show it late.
        if self.stream.seek().is_none() && !self.is_same_instance(state).await {
            return Outcome::Broken("perhaps another instance's".to_owned());
        }
        self.open_follow = None;
        *opened = Some(Instant::now());
        self.stream.start_response();
        let outcome = match &slot {
            Some(slot) => self.read_follow(log, state, slot).await,
            None => self.read_snapshot(log, state).await,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => self.response_ended(state, ended_early).await,
        };
        self.release_slot(slot, outcome, state)
    }

    /// What a refusal says of the node, and an end of a poll.
    fn release_slot(&self, slot: Option<FollowSlot>, outcome: Outcome, state: ContainerState) -> Outcome {
        match (slot, outcome) {
            (Some(slot), Outcome::NoFollow) => {
                tracing::debug!(stream = %self.stream.id(), "no follow left on its node: polled");
                slot.report_limit();
                Outcome::NoFollow
            }
            (None, Outcome::Ended { new_lines, .. }) if !state.terminated => Outcome::Polled { new_lines },
            (_, outcome) => outcome,
        }
    }

    /// What a clean end means: nothing about why, only that the kubelet said no more.
    async fn response_ended(&mut self, state: ContainerState, ended_early: &mut bool) -> Outcome {
        if let Some(text) = self.stream.untimestamped_rest() {
            if is_follow_limit(text) {
                return Outcome::NoFollow;
            }
            let kubelets = is_kubelet_error(text);
            let reason = if kubelets {
                "the kubelet cannot read it"
            } else {
                "torn within a timestamp"
            };
            return Outcome::Broken(reason.to_owned());
        }
        if self.stream.is_searching() {
            if !state.terminated || !std::mem::replace(ended_early, true) {
                return Outcome::Broken("ended before the line to go on from".to_owned());
            }
            self.stream.end_resume_search();
            if let Some(outcome) = self.handle_mismatch(state).await {
                return outcome;
            }
        }
        *ended_early = false;
        let (new_lines, tail) = self.stream.response_ended();
        Outcome::Ended { new_lines, tail }
    }

    /// Reads what an open follow still holds of a pod that is gone.
    async fn read_remaining(&mut self) {
        let Some(mut log) = self.open_follow.take() else { return };
        let deadline = Instant::now() + REMAINING_TIMEOUT;
        while let Ok(Some(Ok(data))) = timeout(deadline - Instant::now(), self.stream.publish_while(log.next())).await {
            self.stream.read(&data);
            if self.stream.is_mismatched() {
                // Whose it is can be asked no more; that lines are missing is told anyway.
                return;
            }
            if !self.stream.has_room() {
                self.stream.progress().await;
            }
        }
    }

    /// The log's end can be read no more.
    fn end_unread(&mut self, state: ContainerState) {
        // A container's first that was seen, followed by another and never read: of it nothing is known to be missing.
        let was_never_read = self.stream.has_no_lines() && state.previous && !self.expect_first_line;
        self.stream.end_unread(!was_never_read);
    }

    /// Waits, until the instance changes at most. False: the collector stops.
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
