//! One response, from its first frame to its last.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{instance::Known, metrics::GaugeGuard, pods::instances, state_watch::changed};

use super::{
    follow::Follower,
    follow_slots::Seat,
    outcome::Outcome,
    request::{Log, LogRequest},
    rotation::{self, Beginning, Rotation},
    stall::{self, Due, Silence},
};

/// A plain read that brings nothing for so long is broken.
const PLAIN_SILENCE: Duration = Duration::from_secs(30);

/// A pod is listed within this, or it is not known how it is.
const LIST_WAIT: Duration = Duration::from_secs(10);

impl Follower {
    /// `None`: the body ended cleanly.
    pub(crate) async fn copy_follow(&mut self, mut log: Log, known: Known, seat: &Seat) -> Option<Outcome> {
        let mut silence = Silence::new();
        let mut rotation = Rotation::new();
        let (mut probe, mut look) = (None, None);
        let _open = GaugeGuard::new(&self.metrics.follows);
        // Jittered, so that a node's follows are not all renewed at once.
        let renewed = Instant::now() + self.renew_after.mul_f64(rand::random_range(0.8..=1.0));
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Outcome::Shutdown),
                () = self.stream.progress() => {}
                now = changed(&mut self.known) => if now.terminated || !now.present {
                    self.open = Some(log);
                    return Some(Outcome::Changed);
                },
                beginning = answered(&mut look), if look.is_some() => {
                    look = None;
                    self.saw(&mut rotation, beginning);
                }
                frame = log.next(), if self.stream.has_room() => {
                    let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()).map_or(0, Bytes::len);
                    silence.broken(bytes);
                    seat.heard();
                    probe = None;
                    if let Some(ended) = self.take(frame, known).await {
                        return ended;
                    }
                    rotation.came(bytes, self.stream.last_read());
                    if look.is_none() && rotation.is_due() {
                        rotation.look();
                        look = Some(self.look());
                    }
                }
                missed = answered(&mut probe), if probe.is_some() => {
                    probe = None;
                    silence.probed(missed);
                }
                () = sleep_until(silence.until()), if probe.is_none() && self.stream.has_room() => match silence.due() {
                    Due::Probe => probe = Some(self.probe()),
                    Due::Replace => return Some(Outcome::Silent),
                },
                () = seat.wanted() => return Some(Outcome::Yielded),
                () = sleep_until(renewed) => return Some(Outcome::Renewed),
            }
        }
    }

    /// `None`: the body ended cleanly.
    pub(crate) async fn copy_plain(&mut self, mut log: Log, known: Known) -> Option<Outcome> {
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Outcome::Shutdown),
                () = self.stream.progress() => {}
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
                if let Some(ear) = &self.ear {
                    ear.heard();
                }
                self.stream.read(&data);
                self.part_if_absent(known).await.map(Some)
            }
            Some(Err(reason)) => Some(Some(Outcome::Broken(reason))),
            None => Some(None),
        }
    }

    /// A log without the line to go on from may be a newer instance's that the watch has not shown yet: only where it is not, lines are missing.
    pub(crate) async fn part_if_absent(&mut self, known: Known) -> Option<Outcome> {
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
    pub(crate) async fn is_ours(&mut self, asked: Known) -> bool {
        let pods = kube::Api::<Pod>::namespaced(self.client.clone(), &self.instance.namespace);
        // Only list and watch are needed of pods elsewhere: the right to get one is not asked for here either.
        let one = ListParams::default().fields(&format!("metadata.name={}", self.instance.pod));
        let listed = timeout(LIST_WAIT, self.stream.publish_while(pods.list(&one)));
        let Some(Ok(Ok(listed))) = self.shutdown.run_until_cancelled(listed).await else {
            return false;
        };
        let now = listed
            .items
            .iter()
            .find_map(|pod| instances::known(pod, &self.instance.key));
        now.is_some_and(|now| now.previous == asked.previous)
    }

    /// Asks whether a plain read finds lines that an open, silent follow did not bring. Where it cannot be told: no.
    fn probe(&self) -> BoxFuture<'static, bool> {
        let request = LogRequest {
            since: self.stream.since(),
            ..LogRequest::default()
        };
        let seek = self.stream.seek();
        let (client, instance) = (self.client.clone(), Arc::clone(&self.instance));
        async move { stall::has_more(request, &client, &instance, seek).await }.boxed()
    }

    /// Looks at how the current file begins.
    fn look(&self) -> BoxFuture<'static, Option<Beginning>> {
        let (client, instance) = (self.client.clone(), Arc::clone(&self.instance));
        async move { rotation::look(&client, &instance).await }.boxed()
    }

    fn saw(&mut self, rotation: &mut Rotation, beginning: Option<Beginning>) {
        if let Some(mark) = rotation.saw(beginning) {
            self.stream.expect(mark);
        }
        self.metrics.looks.inc();
    }
}

/// What was asked beside a follow. Never where nothing was.
async fn answered<T>(asked: &mut Option<BoxFuture<'static, T>>) -> T {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}
