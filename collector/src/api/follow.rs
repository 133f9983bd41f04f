//! One container instance, from its first line to its last.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    idle_metrics::Ear,
    instance::{Instance, Known},
    metrics::{GaugeGuard, Metrics},
    retry::Backoff,
    state_watch::{changed, park},
    stream::{Rest, Stream},
};

use super::{
    follow_slots::{Follows, Seat},
    outcome::Outcome,
    refusals::Refusals,
    request::{Answer, Log, LogRequest, has_no_follow, is_kubelets},
};

/// The first wait before a log is asked for again: a follow that ended because the kubelet restarted finds it back in about a second.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest: what is waited for then is the API, or the kubelet.
const RETRY_MOST: Duration = Duration::from_secs(5);

/// A log that was open for so long found API and kubelet well.
const WENT_WELL: Duration = Duration::from_secs(1);

/// A container that is not started yet says so by a new state; this is only the safety net.
const NOT_YET_WAIT: Duration = Duration::from_secs(10);

/// A container that cannot be followed is polled this often while it says something, and ever rarer while it does not.
const POLL_FIRST: Duration = Duration::from_secs(1);

/// The rarest: a kubelet rotates every 10 s at the most.
const POLL_MOST: Duration = Duration::from_secs(5);

/// What is left in an open follow of a pod that is gone is read for so long at most: the kubelet ends it within about 2 s.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(10);

/// Reads one container instance to its end.
pub struct Follower {
    pub client: kube::Client,
    pub instance: Arc<Instance>,
    pub known: watch::Receiver<Known>,
    pub stream: Stream,
    /// An instance of its container was recorded before it: of this one too something was to be had.
    pub expected: bool,
    pub shutdown: CancellationToken,
    pub metrics: Metrics,
    pub follows: Follows,
    pub refusals: Refusals,
    /// After this, at the latest, a follow is renewed.
    pub renew_after: Duration,
    /// Tells how long it has been silent, while it runs.
    pub ear: Option<Ear>,
    /// It was polled, and had something to say.
    pub loud: bool,
    /// A follow that was open when its container terminated: what it still holds is wanted only where the plain read fails.
    pub open: Option<Log>,
}

impl Follower {
    /// Reads until the stream's end is on the bus and the instance is shown no more, or the collector stops. Returns whether it is the former.
    pub async fn run(mut self) -> bool {
        tracing::info!(stream = %self.stream.id(), app = %self.instance.app, process = self.instance.process, "following");
        if self.stream.is_finished() || self.follow().await {
            self.ear = None;
            if !self.stream.drain_until(&self.shutdown).await {
                return false;
            }
            tracing::info!(stream = %self.stream.id(), "ended");
            let Self { known, shutdown, .. } = self;
            park(known, shutdown).await
        } else {
            self.stream.drain_or_keep().await;
            false
        }
    }

    /// Whether it came to the stream's end, rather than to the collector's.
    async fn follow(&mut self) -> bool {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut polls = Backoff::new(POLL_FIRST, POLL_MOST);
        let mut last_rest = Rest::default();
        // A body that ends cleanly before the anchor may have been cut off: only twice in a row is it believed.
        let mut cut_short = false;
        loop {
            let known = *self.known.borrow_and_update();
            if !known.present {
                self.read_last_words().await;
                self.give_up(known);
                return true;
            }
            let mut opened = None;
            let outcome = self.read(known, &mut cut_short, &mut opened).await;
            if opened.is_some_and(|opened: Instant| opened.elapsed() > WENT_WELL) {
                // What ends it now is another trouble than what was waited for before.
                backoff.reset();
            }
            if let Some(reason) = outcome.again() {
                self.metrics.asked_again(reason);
            }
            let wait = match outcome {
                Outcome::Shutdown => return false,
                Outcome::PodGone => {
                    self.read_last_words().await;
                    self.give_up(known);
                    return true;
                }
                Outcome::Ended { news: 0, rest } if known.terminated && rest == last_rest => {
                    self.stream.complete();
                    return true;
                }
                Outcome::Ended { news, rest } => {
                    last_rest = rest;
                    if news > 0 {
                        backoff.reset();
                    }
                    backoff.next_delay()
                }
                Outcome::Changed => {
                    last_rest = self.stream.rest();
                    backoff.reset();
                    continue;
                }
                Outcome::Renewed => continue,
                Outcome::Polled { news } => {
                    self.loud = news > 0;
                    if self.loud {
                        polls.reset();
                    }
                    polls.next_delay()
                }
                Outcome::NoFollow | Outcome::Yielded => {
                    self.loud = false;
                    RETRY_FIRST
                }
                Outcome::Busy(wait) => wait.max(backoff.next_delay()),
                Outcome::NotYet => NOT_YET_WAIT,
                Outcome::Silent => {
                    tracing::debug!(stream = %self.stream.id(), "log silent, though there are lines");
                    backoff.next_delay()
                }
                Outcome::Refused(reason) => {
                    self.refusals.saw(&self.instance, &reason);
                    backoff.next_delay()
                }
                Outcome::Broken(reason) => {
                    tracing::debug!(stream = %self.stream.id(), reason, "log to be asked for again");
                    backoff.next_delay()
                }
            };
            if !self.pause(wait).await {
                return false;
            }
        }
    }

    /// Reads once: a running container's log as it is written, a terminated one's to its end. Notes when it was `opened`.
    async fn read(&mut self, known: Known, cut_short: &mut bool, opened: &mut Option<Instant>) -> Outcome {
        let seat = if known.terminated {
            self.ear = None;
            None
        } else {
            let heard = &self.metrics.heard;
            self.ear.get_or_insert_with(|| heard.listen());
            self.follows.seat(&self.instance.node, self.loud)
        };
        let request = LogRequest {
            follow: seat.is_some(),
            previous: known.previous,
            since: self.stream.since(),
            limit_bytes: None,
        };
        let answer = tokio::select! {
            () = self.shutdown.cancelled() => return Outcome::Shutdown,
            answer = self.stream.publish_while(request.send(&self.client, &self.instance)) => answer,
        };
        let log = match answer {
            Answer::Log(log) => log,
            Answer::NotYet => return Outcome::NotYet,
            Answer::PodGone => return Outcome::PodGone,
            Answer::NoPrevious => return Outcome::Broken("no previous instance".to_owned()),
            Answer::Busy(wait) => return Outcome::Busy(wait),
            Answer::Refused(reason) => return Outcome::Refused(reason),
            Answer::Trouble(reason) => return Outcome::Broken(reason),
        };
        let _polled = (!known.terminated && seat.is_none()).then(|| GaugeGuard::new(&self.metrics.polled));
        // However soon after it was shown: a watch may show it late.
        if self.stream.seek().is_none() && !self.is_ours(known).await {
            return Outcome::Broken("perhaps another instance's".to_owned());
        }
        self.open = None;
        *opened = Some(Instant::now());
        self.stream.begin();
        let outcome = match &seat {
            Some(seat) => self.copy_follow(log, known, seat).await,
            None => self.copy_plain(log, known).await,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => self.ended(known, cut_short).await,
        };
        self.settle_seat(seat, outcome, known)
    }

    /// What a refusal says of the node, and an end of a poll.
    fn settle_seat(&self, seat: Option<Seat>, outcome: Outcome, known: Known) -> Outcome {
        match (seat, outcome) {
            (Some(seat), Outcome::NoFollow) => {
                tracing::debug!(stream = %self.stream.id(), "no follow left on its node: polled");
                seat.refused();
                Outcome::NoFollow
            }
            (None, Outcome::Ended { news, .. }) if !known.terminated => Outcome::Polled { news },
            (_, outcome) => outcome,
        }
    }

    /// What a clean end means: nothing about why, only that the kubelet said no more.
    async fn ended(&mut self, known: Known, cut_short: &mut bool) -> Outcome {
        if let Some(text) = self.stream.foreign_rest() {
            if has_no_follow(text) {
                return Outcome::NoFollow;
            }
            let kubelets = is_kubelets(text);
            let reason = if kubelets {
                "the kubelet cannot read it"
            } else {
                "torn within a timestamp"
            };
            return Outcome::Broken(reason.to_owned());
        }
        if self.stream.is_seeking() {
            if !known.terminated || !std::mem::replace(cut_short, true) {
                return Outcome::Broken("ended before the line to go on from".to_owned());
            }
            self.stream.give_up_joining();
            if let Some(outcome) = self.part_if_absent(known).await {
                return outcome;
            }
        }
        *cut_short = false;
        let (news, rest) = self.stream.ended();
        Outcome::Ended { news, rest }
    }

    /// Reads what an open follow still holds of a pod that is gone.
    async fn read_last_words(&mut self) {
        let Some(mut log) = self.open.take() else { return };
        let deadline = Instant::now() + LAST_WORDS_WAIT;
        while let Ok(Some(Ok(data))) = timeout(deadline - Instant::now(), self.stream.publish_while(log.next())).await {
            self.stream.read(&data);
            if self.stream.is_absent() {
                // Whose it is can be asked no more; that lines are missing is told anyway.
                return;
            }
            if !self.stream.has_room() {
                self.stream.progress().await;
            }
        }
    }

    /// The log's end can be read no more.
    fn give_up(&mut self, known: Known) {
        // A container's first that was seen, followed by another and never read: of it nothing is known to be missing.
        let missed = self.stream.is_blank() && known.previous && !self.expected;
        self.stream.gone(!missed);
    }

    /// Waits, until the instance changes at most. False: the collector stops.
    async fn pause(&mut self, wait: Duration) -> bool {
        let news = async {
            tokio::select! {
                () = sleep(wait) => {}
                _ = changed(&mut self.known) => {}
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            () = self.stream.publish_while(news) => true,
        }
    }
}
