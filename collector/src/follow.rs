//! One container instance, from its first line to its last.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    instance::{self, Instance, Known},
    request::{Answer, Log, LogRequest, is_kubelets},
    silence::{self, Due, Silence},
    stream::{Rest, Stream},
};

/// The first wait before a log is asked for again: a follow that ended because the kubelet restarted finds it back in about a second.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest: what is waited for then is the API, or the kubelet.
const RETRY_MOST: Duration = Duration::from_secs(5);

/// A container that is not started yet says so by a new state; this is only the safety net.
const NOT_YET_WAIT: Duration = Duration::from_secs(10);

/// A plain read that brings nothing for so long is broken.
const PLAIN_SILENCE: Duration = Duration::from_secs(30);

/// What is left in an open follow of a pod that is gone is read for so long at most: the kubelet ends it within about 2 s.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(10);

/// A container is started again this long after its end at the least (about 1 s, halved): within it from being shown, its log can be no other's.
const RESTART_LEAST: Duration = Duration::from_millis(500);

/// A pod is listed within this, or it is not known how it is.
const LIST_WAIT: Duration = Duration::from_secs(10);

/// Reads one container instance to its end.
pub struct Follower {
    pub client: kube::Client,
    pub instance: Arc<Instance>,
    pub known: watch::Receiver<Known>,
    pub stream: Stream,
    /// An instance of its container was recorded before it: of this one too something was to be had.
    pub expected: bool,
    pub shutdown: CancellationToken,
    /// A follow that was open when its container terminated: what it still holds is wanted only where the plain read fails.
    pub open: Option<Log>,
    /// When it was first shown.
    pub since: Instant,
}

/// How one reading ended.
#[derive(Debug)]
enum Outcome {
    /// Cleanly, after so many new lines.
    Ended { news: u64, rest: Rest },
    /// To be tried again.
    Broken(String),
    /// There is no log yet.
    NotYet,
    /// The pod is gone, and with it the log.
    PodGone,
    /// The instance terminated, or is shown no more.
    Changed,
    /// The collector stops.
    Shutdown,
}

impl Follower {
    /// Reads until the stream's end is on the bus and the instance is shown no more, or the collector stops. Returns whether it is the former.
    pub async fn run(mut self) -> bool {
        tracing::info!(stream = %self.stream.id(), app = %self.instance.app, process = self.instance.process, "following");
        if self.follow().await {
            self.stream.drain().await;
            tracing::info!(stream = %self.stream.id(), "ended");
            let Self { known, shutdown, .. } = self;
            park(known, shutdown).await
        } else {
            self.stream.drain().await;
            false
        }
    }

    /// Whether it came to the stream's end, rather than to the collector's.
    async fn follow(&mut self) -> bool {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
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
            let began = Instant::now();
            let outcome = self.read(known, &mut cut_short).await;
            if began.elapsed() > RETRY_MOST {
                // It went well for longer than there is ever waited.
                backoff.reset();
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
                    backoff.next()
                }
                Outcome::Changed => {
                    last_rest = self.stream.rest();
                    backoff.reset();
                    continue;
                }
                Outcome::NotYet => NOT_YET_WAIT,
                Outcome::Broken(reason) => {
                    tracing::debug!(stream = %self.stream.id(), reason, "log to be asked for again");
                    backoff.next()
                }
            };
            if !self.pause(wait).await {
                return false;
            }
        }
    }

    /// Reads once: a running container's log as it is written, a terminated one's to its end.
    async fn read(&mut self, known: Known, cut_short: &mut bool) -> Outcome {
        let request = LogRequest {
            follow: !known.terminated,
            previous: known.previous,
            since: self.stream.since(),
        };
        let answer = tokio::select! {
            () = self.shutdown.cancelled() => return Outcome::Shutdown,
            answer = publishing(&mut self.stream, request.send(&self.client, &self.instance)) => answer,
        };
        let log = match answer {
            Answer::Log(log) => log,
            Answer::NotYet => return Outcome::NotYet,
            Answer::PodGone => return Outcome::PodGone,
            Answer::NoPrevious => return Outcome::Broken("no previous instance".to_owned()),
            Answer::Trouble(reason) => return Outcome::Broken(reason),
        };
        let is_fresh = self.stream.seek().is_none() && self.since.elapsed() > RESTART_LEAST;
        if is_fresh && !self.is_ours(known).await {
            return Outcome::Broken("perhaps another instance's".to_owned());
        }
        self.open = None;
        self.stream.begin();
        let outcome = if request.follow {
            self.copy_follow(log, known).await
        } else {
            self.copy_plain(log, known).await
        };
        match outcome {
            Some(outcome) => outcome,
            None => self.ended(known, cut_short).await,
        }
    }

    /// `None`: the body ended cleanly.
    async fn copy_follow(&mut self, mut log: Log, known: Known) -> Option<Outcome> {
        let mut silence = Silence::new();
        let mut probe = None;
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Outcome::Shutdown),
                () = self.stream.progress() => {}
                now = changed(&mut self.known) => if now.terminated || !now.present {
                    self.open = Some(log);
                    return Some(Outcome::Changed);
                },
                frame = log.next(), if self.stream.has_room() => {
                    silence.broken();
                    probe = None;
                    if let Some(ended) = self.take(frame, known).await {
                        return ended;
                    }
                }
                missed = answered(&mut probe), if probe.is_some() => {
                    probe = None;
                    silence.probed(missed);
                }
                () = sleep_until(silence.until()), if probe.is_none() && self.stream.has_room() => match silence.due() {
                    Due::Probe => probe = Some(self.probe()),
                    Due::Replace => return Some(Outcome::Broken("silent, though there are lines".to_owned())),
                }
            }
        }
    }

    /// `None`: the body ended cleanly.
    async fn copy_plain(&mut self, mut log: Log, known: Known) -> Option<Outcome> {
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Outcome::Shutdown),
                () = self.stream.progress() => heard = Instant::now(),
                frame = log.next(), if self.stream.has_room() => {
                    heard = Instant::now();
                    if let Some(ended) = self.take(frame, known).await {
                        return ended;
                    }
                }
                () = sleep_until(heard + PLAIN_SILENCE), if self.stream.has_room() => {
                    return Some(Outcome::Broken("a plain read fell silent".to_owned()));
                }
            }
        }
    }

    /// Takes a frame in. `Some(None)`: the body ended cleanly.
    async fn take(&mut self, frame: Option<Result<Bytes, String>>, known: Known) -> Option<Option<Outcome>> {
        match frame {
            Some(Ok(data)) => {
                self.stream.read(&data);
                self.part_if_absent(known).await.map(Some)
            }
            Some(Err(reason)) => Some(Some(Outcome::Broken(reason))),
            None => Some(None),
        }
    }

    /// A log without the line to go on from may be a newer instance's that the watch has not shown yet: only where it is not, lines are missing.
    async fn part_if_absent(&mut self, known: Known) -> Option<Outcome> {
        if !self.stream.is_absent() {
            return None;
        }
        if !self.is_ours(known).await {
            return Some(Outcome::Broken("perhaps another instance's".to_owned()));
        }
        self.stream.part();
        None
    }

    /// Whether a log that was asked for as this was, and has begun, is this instance's: the pod still says now what it was asked by. A log is asked for
    /// by the container's name, which says nothing of the instance. Where it cannot be told: no.
    async fn is_ours(&mut self, asked: Known) -> bool {
        let pods = kube::Api::<Pod>::namespaced(self.client.clone(), &self.instance.namespace);
        // Only list and watch are needed of pods elsewhere: the right to get one is not asked for here either.
        let one = ListParams::default().fields(&format!("metadata.name={}", self.instance.pod));
        let listed = timeout(LIST_WAIT, publishing(&mut self.stream, pods.list(&one)));
        let Some(Ok(Ok(listed))) = self.shutdown.run_until_cancelled(listed).await else {
            return false;
        };
        let now = listed
            .items
            .iter()
            .find_map(|pod| instance::known(pod, &self.instance.key));
        now.is_some_and(|now| now.previous == asked.previous)
    }

    /// What a clean end means: nothing about why, only that the kubelet said no more.
    async fn ended(&mut self, known: Known, cut_short: &mut bool) -> Outcome {
        if let Some(text) = self.stream.foreign_rest() {
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

    /// Asks whether a plain read finds lines that an open, silent follow did not bring. Where it cannot be told: no.
    fn probe(&self) -> BoxFuture<'static, bool> {
        let request = LogRequest {
            follow: false,
            previous: false,
            since: self.stream.since(),
        };
        let seek = self.stream.seek();
        let (client, instance) = (self.client.clone(), Arc::clone(&self.instance));
        async move { silence::has_more(request, &client, &instance, seek).await }.boxed()
    }

    /// Reads what an open follow still holds of a pod that is gone.
    async fn read_last_words(&mut self) {
        let Some(mut log) = self.open.take() else { return };
        let deadline = Instant::now() + LAST_WORDS_WAIT;
        while let Ok(Some(Ok(data))) =
            timeout(deadline - Instant::now(), publishing(&mut self.stream, log.next())).await
        {
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
            () = publishing(&mut self.stream, news) => true,
        }
    }
}

/// Waits until an instance whose end is on the bus is shown no more: until then its record tells that it is not to be read again. False: the collector stops.
pub async fn park(mut known: watch::Receiver<Known>, shutdown: CancellationToken) -> bool {
    let gone = async {
        while known.borrow_and_update().present {
            changed(&mut known).await;
        }
    };
    shutdown.run_until_cancelled(gone).await.is_some()
}

/// A probe's answer. Never where there is none.
async fn answered(probe: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

/// Goes on publishing until something else is done.
pub async fn publishing<T>(stream: &mut Stream, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = stream.progress() => {}
        }
    }
}

/// The instance's new state. Never where nobody tells it any more: then the collector stops.
pub async fn changed(known: &mut watch::Receiver<Known>) -> Known {
    if known.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *known.borrow_and_update()
}
