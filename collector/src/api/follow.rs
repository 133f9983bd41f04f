//! Follows the log of one container instance from its first line to its last.

use std::{sync::Arc, time::Duration};

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

/// Delay before the first retry. A kubelet that restarts serves logs again within about a second.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// Longest delay between retries while the API or the kubelet is unavailable.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A log that stays open this long proves that the API and the kubelet work.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Fallback delay for a container that has not started; its start is a state change, which ends the
/// wait.
const NOT_STARTED_WAIT: Duration = Duration::from_secs(10);

/// Poll interval of a container without a follow slot while it writes; doubles while it does not.
const POLL_FIRST: Duration = Duration::from_secs(1);

/// Longest poll interval. A kubelet rotates every 10 s at most.
const POLL_MAX: Duration = Duration::from_secs(5);

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
}

/// A follow that was open when its container terminated.
pub enum LastFollow {
    Open(LogBody),
    /// It ended without another line, and no request has failed since.
    Ended,
}

/// What to do after a read.
enum NextStep {
    Shutdown,
    /// The log can no longer be read.
    EndUnread,
    /// The log was read to its end.
    Complete,
    ReadAgain,
    ReadAfter(Duration),
}

/// Delays between reads, and how the last response ended.
struct Retries {
    backoff: Backoff,
    poll_backoff: Backoff,
    last_tail: TailFingerprint,
}

impl Retries {
    fn new() -> Self {
        Self {
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            poll_backoff: Backoff::new(POLL_FIRST, POLL_MAX),
            last_tail: TailFingerprint::default(),
        }
    }
}

impl Follower {
    /// Reads until the end of the stream is on the bus and the pod no longer lists the instance.
    /// Returns false if the collector shuts down first.
    pub async fn run(mut self) -> bool {
        tracing::info!(stream = %self.stream.id(), app = %self.instance.app, process = self.instance.process, "following container");
        if self.stream.is_finished() || self.read_log().await {
            self.idle_guard = None;
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
        // A body that ends cleanly before the anchor may be truncated: the end is accepted only
        // twice in a row.
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
            if opened.is_some_and(|opened: Instant| since(opened) > STABLE_AFTER) {
                // The connection was stable, so the next failure is a new one.
                retries.backoff.reset();
            }
            if let Some(reason) = outcome.reconnect_reason() {
                self.metrics.reconnected(reason);
            }
            match self.next_step(outcome, state, &mut retries) {
                NextStep::Shutdown => return false,
                NextStep::EndUnread => {
                    self.read_remaining().await;
                    self.end_unread(state);
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

    /// Decides what to do after an outcome.
    fn next_step(&mut self, outcome: Outcome, state: ContainerState, retries: &mut Retries) -> NextStep {
        let backoff = &mut retries.backoff;
        let delay = match outcome {
            Outcome::Shutdown => return NextStep::Shutdown,
            Outcome::PodGone => return NextStep::EndUnread,
            Outcome::Ended { new_lines: 0, tail } if state.terminated && tail == retries.last_tail => {
                return NextStep::Complete;
            }
            Outcome::Ended { new_lines, tail } => {
                retries.last_tail = tail;
                if new_lines > 0 {
                    backoff.reset();
                }
                backoff.next_delay()
            }
            Outcome::StateChanged => {
                retries.last_tail = self.stream.tail();
                backoff.reset();
                return NextStep::ReadAgain;
            }
            Outcome::Renewed => return NextStep::ReadAgain,
            Outcome::Polled { new_lines } => {
                self.is_active = new_lines > 0;
                if self.is_active {
                    retries.poll_backoff.reset();
                }
                retries.poll_backoff.next_delay()
            }
            Outcome::NoFollow | Outcome::SlotRevoked => {
                self.is_active = false;
                RETRY_FIRST
            }
            Outcome::Busy(delay) => delay.max(backoff.next_delay()),
            Outcome::NotStarted => NOT_STARTED_WAIT,
            Outcome::Stalled => {
                tracing::debug!(stream = %self.stream.id(), "follow stalled, reopening it");
                backoff.next_delay()
            }
            Outcome::Refused(reason) => {
                self.refusals.warn(&self.instance, &reason);
                backoff.next_delay()
            }
            Outcome::Broken(reason) => {
                tracing::debug!(stream = %self.stream.id(), reason, "log read failed, retrying");
                backoff.next_delay()
            }
        };
        NextStep::ReadAfter(delay)
    }

    /// Reads once: follows the log of a running container, reads that of a terminated one to its
    /// end. Sets `opened` when the response starts.
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
        if !matches!(response, LogResponse::LogBody(_)) {
            self.last_follow = None;
        }
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
        // The watch may lag behind, so the pod is checked after the log was opened.
        if self.stream.resume_search().is_none() && !self.is_same_instance(state).await {
            return Outcome::Broken("the log may belong to another instance".to_owned());
        }
        self.last_follow = self
            .open_follow
            .take()
            .filter(|_| self.stream.is_caught_up())
            .map(LastFollow::Open)
            .or(self.last_follow.take());
        *opened = Some(steady());
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

    /// Reports a refused follow to the slots, and maps the clean end of a poll to
    /// [`Outcome::Polled`].
    fn release_slot(&self, slot: Option<FollowSlot>, outcome: Outcome, state: ContainerState) -> Outcome {
        match (slot, outcome) {
            (Some(slot), Outcome::NoFollow) => {
                tracing::debug!(stream = %self.stream.id(), "follow limit of the node reached, polling");
                slot.report_limit();
                Outcome::NoFollow
            }
            (None, Outcome::Ended { new_lines, .. }) if !state.terminated => Outcome::Polled { new_lines },
            (_, outcome) => outcome,
        }
    }

    /// Interprets a clean end, which carries no reason.
    async fn response_ended(&mut self, state: ContainerState, ended_early: &mut bool) -> Outcome {
        if let Some(text) = self.stream.untimestamped_rest() {
            if is_follow_limit(text) {
                return Outcome::NoFollow;
            }
            let kubelets = is_kubelet_error(text);
            let reason = if kubelets {
                "the kubelet cannot read the log"
            } else {
                "truncated within a timestamp"
            };
            return Outcome::Broken(reason.to_owned());
        }
        if self.stream.is_searching() {
            if !state.terminated || !std::mem::replace(ended_early, true) {
                return Outcome::Broken("ended before the resume point".to_owned());
            }
            if self.stream.holds_nothing() && self.has_read_rotated_log(state).await {
                self.stream.cancel_resume_search();
            } else {
                self.stream.end_resume_search();
                if let Some(outcome) = self.handle_mismatch(state).await {
                    return outcome;
                }
            }
        }
        *ended_early = false;
        let (new_lines, tail) = self.stream.response_ended();
        Outcome::Ended { new_lines, tail }
    }

    /// Reads what the open follow of a deleted pod still holds.
    async fn read_remaining(&mut self) {
        let Some(mut log) = self.open_follow.take() else { return };
        let deadline = steady() + REMAINING_TIMEOUT;
        while let Ok(Some(Ok(data))) = timeout(deadline - steady(), self.stream.publish_while(log.next())).await {
            self.stream.read(&data);
            if self.stream.is_mismatched() {
                // The instance can no longer be verified; the gap is recorded by `end_unread`.
                return;
            }
            if !self.stream.has_room() {
                self.stream.progress().await;
            }
        }
    }

    /// Ends the stream of a log that can no longer be read.
    fn end_unread(&mut self, state: ContainerState) {
        // Nothing is known to be missing from the first instance of a container that was replaced
        // before it was read.
        let was_never_read = self.stream.has_no_lines() && state.previous && !self.expect_first_line;
        self.stream.end_unread(!was_never_read);
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
