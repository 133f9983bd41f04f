//! Reads one response from its first frame to its last.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, OptionFuture},
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use system::{clock::steady, random::random_range};
use tokio::time::{sleep_until, timeout};

use crate::{
    instance::{ContainerState, Instance},
    metrics::GaugeGuard,
    pods::instances,
    state_watch::state_changed,
};

use super::{
    follow::{Follower, LastFollow},
    follow_slots::FollowSlot,
    outcome::Outcome,
    request::{LogBody, LogRequest, LogResponse},
    rotation::{self, FileStart, RotationProbe},
    stall::{self, StallAction, StallDetector},
};

/// A plain read without a frame for this long is broken.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit for listing a pod.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for the end of the follow of a terminated container; the kubelet ends it within about
/// a second.
const FOLLOW_END_TIMEOUT: Duration = Duration::from_secs(5);

/// What a frame of a response leads to.
enum AfterFrame {
    Continue,
    CleanEnd,
    Stop(Outcome),
}

impl Follower {
    /// Reads a follow. Returns `None` if the body ended cleanly.
    pub(crate) async fn read_follow(
        &mut self,
        mut log: LogBody,
        state: ContainerState,
        slot: &FollowSlot,
    ) -> Option<Outcome> {
        let mut stall = StallDetector::new();
        let mut rotation = RotationProbe::new();
        let mut stall_probe: Option<BoxFuture<'static, bool>> = None;
        let mut rotation_probe: Option<BoxFuture<'static, Option<FileStart>>> = None;
        let _open = GaugeGuard::new(&self.metrics.followed);
        // Jitter keeps a node's follows from renewing at the same time.
        let renew_at = steady() + self.renew_after.mul_f64(random_range(0.8..=1.0));
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Outcome::Shutdown),
                () = self.stream.progress() => {}
                now = state_changed(&mut self.state) => if now.terminated || !now.present {
                    self.open_follow = Some(log);
                    return Some(Outcome::StateChanged);
                },
                Some(file_start) = OptionFuture::from(rotation_probe.as_mut()) => {
                    rotation_probe = None;
                    self.finish_rotation_probe(&mut rotation, file_start);
                }
                frame = log.next(), if self.stream.has_room() => {
                    let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()).map_or(0, Bytes::len);
                    stall.received(bytes);
                    slot.record_activity();
                    stall_probe = None;
                    match self.handle_frame(frame, state).await {
                        AfterFrame::Continue => {}
                        AfterFrame::CleanEnd => return None,
                        AfterFrame::Stop(outcome) => return Some(outcome),
                    }
                    rotation.received(bytes, self.stream.last_read());
                    if rotation_probe.is_none() && rotation.is_due() {
                        rotation.started();
                        rotation_probe = Some(self.probe_rotation());
                    }
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
    pub(crate) async fn read_snapshot(&mut self, mut log: LogBody, state: ContainerState) -> Option<Outcome> {
        let mut last_frame = steady();
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Some(Outcome::Shutdown),
                () = self.stream.progress() => {}
                frame = log.next(), if self.stream.has_room() => {
                    last_frame = steady();
                    match self.handle_frame(frame, state).await {
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
    async fn handle_frame(&mut self, frame: Option<Result<Bytes, String>>, state: ContainerState) -> AfterFrame {
        match frame {
            Some(Ok(data)) => {
                if let Some(idle_guard) = &self.idle_guard {
                    idle_guard.record_activity();
                }
                self.stream.read(&data);
                match self.handle_mismatch(state).await {
                    Some(outcome) => AfterFrame::Stop(outcome),
                    None => AfterFrame::Continue,
                }
            }
            Some(Err(reason)) => AfterFrame::Stop(Outcome::Broken(reason)),
            None => AfterFrame::CleanEnd,
        }
    }

    /// Handles a response that does not contain the resume point. It may belong to a newer instance
    /// that the watch has not reported; a gap is recorded only if it does not.
    pub(crate) async fn handle_mismatch(&mut self, state: ContainerState) -> Option<Outcome> {
        if !self.stream.is_mismatched() {
            return None;
        }
        if !self.is_same_instance(state).await {
            return Some(Outcome::Broken("the log may belong to another instance".to_owned()));
        }
        self.stream.record_mismatch();
        None
    }

    /// Returns whether a log that has started belongs to this instance: the pod must still list the
    /// instance as it was requested. Logs are requested by container name, which does not identify
    /// an instance. If the pod cannot be listed, returns false.
    pub(crate) async fn is_same_instance(&mut self, requested: ContainerState) -> bool {
        let pods = kube::Api::<Pod>::namespaced(self.client.clone(), &self.instance.namespace);
        // The collector has the permissions `list` and `watch` on pods, but not `get`.
        let one = ListParams::default().fields(&format!("metadata.name={}", self.instance.pod));
        let listed = timeout(LIST_TIMEOUT, self.stream.publish_while(pods.list(&one)));
        let Some(Ok(Ok(listed))) = self.shutdown.run_until_cancelled(listed).await else {
            return false;
        };
        let now = listed
            .items
            .iter()
            .find_map(|pod| instances::container_state(pod, &self.instance.key));
        now.is_some_and(|now| now.previous == requested.previous)
    }

    /// Returns whether a terminated container's log was rotated after its last line, which was read.
    ///
    /// *Proof*: the follow that delivered that line was open when the container terminated, and
    /// ended without another line; right after its end the kubelet, which therefore did not end it
    /// by a restart, serves an empty file.
    pub(crate) async fn has_read_rotated_log(&mut self, state: ContainerState) -> bool {
        match self.last_follow.take() {
            None => return false,
            Some(LastFollow::Ended) => {}
            Some(LastFollow::Open(mut log)) => {
                let end = timeout(FOLLOW_END_TIMEOUT, self.stream.publish_while(log.next()));
                if !matches!(self.shutdown.run_until_cancelled(end).await, Some(Ok(None))) {
                    return false;
                }
            }
        }
        // The container may have restarted meanwhile: the log is then read again as the previous
        // instance's.
        self.last_follow = Some(LastFollow::Ended);
        // Without `sinceTime`: the clock may have stepped back.
        let request = LogRequest {
            previous: state.previous,
            limit_bytes: Some(1),
            ..LogRequest::default()
        };
        let is_empty = is_empty(request, &self.client, &self.instance);
        self.stream.publish_while(is_empty).await && self.is_same_instance(state).await
    }

    /// Checks whether a plain read returns lines that the open follow did not deliver.
    fn probe_stall(&self) -> BoxFuture<'static, bool> {
        let request = LogRequest {
            since: self.stream.since(),
            ..LogRequest::default()
        };
        let search = self.stream.resume_search();
        let (client, instance) = (self.client.clone(), Arc::clone(&self.instance));
        async move { stall::has_more(request, &client, &instance, search).await }.boxed()
    }

    /// Reads the start of the current log file.
    fn probe_rotation(&self) -> BoxFuture<'static, Option<FileStart>> {
        let (client, instance) = (self.client.clone(), Arc::clone(&self.instance));
        async move { rotation::probe(&client, &instance).await }.boxed()
    }

    fn finish_rotation_probe(&mut self, rotation: &mut RotationProbe, file_start: Option<FileStart>) {
        if let Some(line) = rotation.finished(file_start) {
            self.stream.expect_line(line);
        }
        self.metrics.rotation_probes.inc();
    }
}

/// Returns whether the log is empty. Failures count as no.
async fn is_empty(request: LogRequest, client: &kube::Client, instance: &Instance) -> bool {
    let LogResponse::LogBody(mut log) = request.send(client, instance).await else {
        return false;
    };
    matches!(timeout(SNAPSHOT_TIMEOUT, log.next()).await, Ok(None))
}
