//! The tasks of container instances.

use std::{io, sync::Arc, time::Duration};

use bus::{Fd, GapReason, StreamMetadata, Timestamp};
use futures::FutureExt;
use system::{clock::steady, task::spawn_in};
use tokio::{
    task::{self, JoinError},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{Supervisor, TrackedInstance};
use crate::{
    api::{follow::Follower, identity::Predecessor, rotation::Lag, scan::Scan},
    instance::{ContainerState, Instance, InstanceKey},
    publish::{
        checkpoint::{Checkpoint, UnseenInstances},
        outbox::Outbox,
        spool::StreamSpool,
    },
    state_watch::wait_until_absent,
    stream::{Stream, metadata::new_metadata},
};

impl Supervisor {
    /// Resumes an instance at its checkpoint, or starts a new one. `is_awaited`: its pod is collected
    /// since the pod exists.
    pub(super) fn start_instance(&mut self, instance: Instance, is_awaited: bool) {
        let key = instance.key.clone();
        let claimed = self.unclaimed.as_mut().and_then(|unclaimed| unclaimed.remove(&key));
        let claimed = claimed.or_else(|| self.context.checkpoints.get(&key));
        if let Some(unclaimed) = self.unclaimed.as_mut().filter(|_| key.fd().is_some()) {
            unclaimed.remove(&key.with_fd(Fd::Err));
        }
        // The log was not read since the container started.
        let is_first_list = self.unclaimed.is_some() && self.has_listed;
        let is_unread = claimed.is_none();
        let suspects_start = !is_unread || is_first_list || self.is_late;
        // The stream of a running container was ended when the source changed.
        let is_left = |checkpoint: &Checkpoint| checkpoint.ended && !instance.state.terminated;
        let mut checkpoint = match claimed.filter(|checkpoint| checkpoint.metadata().is_some() && !is_left(checkpoint))
        {
            Some(checkpoint) => checkpoint,
            None => match new_metadata(&instance) {
                Ok(metadata) => self.new_checkpoint(&instance, &metadata),
                Err(error) => return tracing::warn!(%error, "container skipped, invalid stream id"),
            },
        };
        checkpoint.restarts = Some(instance.state.restarts);
        let predecessor = self.last_seen.older(&key, instance.state.restarts);
        let predecessor = predecessor.map(|(key, _)| {
            let task = self.instances.get(&key);
            Predecessor {
                sent: self.context.checkpoints.get(&key).and_then(|older| older.last_sent()),
                log_end: task.map(|task| task.log_end.clone()).unwrap_or_default(),
                key,
            }
        });
        self.context.checkpoints.save(&key, &checkpoint);
        if let Some(older) = self.last_seen.insert(&key, checkpoint.restarts)
            && older != key
        {
            self.delete_checkpoint(&older);
        }
        // What a log held before the first list was never promised.
        let starts_are_seen = self.unclaimed.is_none();
        let tracked = TrackedInstance {
            predecessor,
            suspects_start,
            is_unread,
            started_at: instance.started_at.filter(|_| starts_are_seen && is_awaited),
            seen_at: starts_are_seen.then(steady),
            ..TrackedInstance::new(instance.state, Some(Arc::new(instance)))
        };
        self.instances.insert(key.clone(), tracked);
        self.spawn_task(key, checkpoint, Duration::ZERO);
    }

    fn new_checkpoint(&self, instance: &Instance, metadata: &StreamMetadata) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(metadata);
        // Its checkpoint may be lost. A later instance is new.
        checkpoint.doubtful = self.unclaimed.is_some() && self.context.checkpoints.is_in_doubt();
        let restarts = instance.state.restarts;
        if let Some((key, older)) = self.last_seen.older(&instance.key, restarts) {
            checkpoint.expected = true;
            if restarts - older > 1 {
                tracing::warn!(stream = %metadata.stream, instances = restarts - older - 1, "gap detected, container instances never seen");
                let last = self.context.checkpoints.get(&key).and_then(|older| older.last_sent());
                checkpoint.unseen = Some(UnseenInstances {
                    from: last.map(|last| last.anchor.time).filter(|time| *time != i64::MIN),
                    to: Timestamp::now().0,
                });
            }
        }
        checkpoint
    }

    /// Ends the stream of an instance that is gone. `is_last`: its pod is gone, and no later instance
    /// was seen.
    pub(super) fn end_orphan(&mut self, key: InstanceKey, checkpoint: Checkpoint, is_last: bool) {
        let restarts = checkpoint.restarts.unwrap_or_default();
        // Without files, the end of a stream that goes on is suspected as well.
        let lacks_later = is_last && self.may_lack_later(&key, None, restarts, checkpoint.ended);
        if checkpoint.ended || checkpoint.metadata().is_none() {
            if lacks_later {
                self.report_unseen(key);
            } else if !self.last_seen.is_newest(&key) {
                self.context.checkpoints.delete(&key);
            }
            return;
        }
        let tracked = TrackedInstance {
            lacks_later,
            ..TrackedInstance::new(gone(restarts), None)
        };
        self.instances.insert(key.clone(), tracked);
        self.spawn_task(key, checkpoint, Duration::ZERO);
    }

    /// Spawns the task of a tracked instance after a delay.
    pub(super) fn spawn_task(&mut self, key: InstanceKey, checkpoint: Checkpoint, wait: Duration) {
        let (Some(tracked), Some(metadata)) = (self.instances.get(&key), checkpoint.metadata()) else {
            return;
        };
        let shutdown = self.shutdown.clone();
        if checkpoint.ended {
            let task = spawn_in(&mut self.tasks, wait_until_absent(tracked.state.subscribe(), shutdown));
            self.keys.insert(task.id(), key);
            return;
        }
        let (mut stream, err) = match self.open_streams(&key, metadata, &checkpoint) {
            Ok(streams) => streams,
            Err(error) => return self.spawn_task_later(key, checkpoint, &error),
        };
        stream.share_end(tracked.log_end.clone());
        let work = match (err, &tracked.instance) {
            (Some(err), _) => {
                let follower = self.file_follower(tracked, &key, (stream, err), &checkpoint);
                follower.run().boxed()
            }
            (None, None) => end_stream(stream, shutdown.clone()).boxed(),
            (None, Some(instance)) => {
                if tracked.suspects_start {
                    stream.suspect_start();
                }
                let scan = if stream.must_resume() {
                    Scan::File { was_missing: false }
                } else {
                    Scan::None
                };
                let follower = Follower {
                    client: self.client.clone(),
                    instance: Arc::clone(instance),
                    state: tracked.state.subscribe(),
                    stream,
                    expect_first_line: checkpoint.expected,
                    shutdown: shutdown.clone(),
                    metrics: self.context.metrics.clone(),
                    report: self.context.report(instance),
                    slots: self.slots.clone(),
                    refusals: self.refusals.clone(),
                    renew_after: self.config.renew_after,
                    idle_guard: None,
                    is_active: false,
                    open_follow: None,
                    last_follow: None,
                    scan,
                    follows_file: false,
                    is_paused: false,
                    suspects_end: false,
                    skips_unread: false,
                    is_replaced: false,
                    predecessor: tracked.predecessor.clone(),
                    checkpoints: self.context.checkpoints.clone(),
                    intact_at: tracked.seen_at,
                    is_unread: tracked.is_unread,
                    started_at: tracked.started_at,
                    lag: Lag::new(),
                    in_doubt: None,
                    may_have_ended: false,
                    is_previous_empty: false,
                };
                follower.run().boxed()
            }
        };
        let span = tracked.instance.as_ref().map_or_else(Span::none, |instance| {
            tracing::info_span!("container", app = %instance.app, process = instance.process, node = instance.node)
        });
        let work = async move {
            shutdown.run_until_cancelled(sleep(wait)).await;
            work.await
        };
        let task = spawn_in(&mut self.tasks, work.instrument(span));
        self.keys.insert(task.id(), key);
    }

    /// Tries again to spawn a task whose spool cannot be read now: without it, reading would begin at
    /// the wrong line.
    fn spawn_task_later(&mut self, key: InstanceKey, checkpoint: Checkpoint, error: &io::Error) {
        let Some(tracked) = self.instances.get_mut(&key) else {
            return;
        };
        let wait = tracked.backoff.next_delay();
        tracing::error!(%error, pod_uid = key.pod_uid, container = key.container, "spool open failed, retrying");
        spawn_in(&mut self.delayed, async move {
            sleep(wait).await;
            (key, checkpoint)
        });
    }

    /// Opens the stream of an instance; if its files are read, also that of standard error.
    ///
    /// # Errors
    /// A spool cannot be read now.
    fn open_streams(
        &self,
        key: &InstanceKey,
        metadata: StreamMetadata,
        checkpoint: &Checkpoint,
    ) -> io::Result<(Stream, Option<Stream>)> {
        let spool = self.context.spool.stream_spool(key, checkpoint)?;
        let err = if self.reads_files(key) {
            Some(self.open_stderr(key, &metadata, checkpoint.doubtful)?)
        } else {
            None
        };
        Ok((self.stream(key, metadata, checkpoint, spool), err))
    }

    pub(super) fn stream(
        &self,
        key: &InstanceKey,
        metadata: StreamMetadata,
        checkpoint: &Checkpoint,
        spool: StreamSpool,
    ) -> Stream {
        let outbox = Outbox::new(self.context.clone(), key.clone(), checkpoint.clone(), spool);
        Stream::new(key.clone(), metadata, checkpoint, outbox)
    }

    /// The checkpoint of a container's newest instance is kept.
    pub(super) fn task_ended(&mut self, id: task::Id, is_over: bool) {
        let Some(key) = self.keys.remove(&id) else { return };
        let lacks_later = self.instances.remove(&key).is_some_and(|tracked| tracked.lacks_later);
        if is_over && lacks_later {
            return self.report_unseen(key);
        }
        if is_over && !self.last_seen.is_newest(&key) {
            self.context.checkpoints.delete(&key);
        }
    }

    pub(super) fn task_failed(&mut self, error: &JoinError) {
        let Some(key) = self.keys.remove(&error.id()) else {
            return;
        };
        tracing::error!(%error, pod_uid = key.pod_uid, container = key.container, "task failed, restarting it");
        let checkpoint = self
            .context
            .checkpoints
            .get(&key)
            .filter(|checkpoint| checkpoint.metadata().is_some());
        match (checkpoint, self.instances.get_mut(&key)) {
            (Some(checkpoint), Some(tracked)) => {
                let wait = tracked.backoff.next_delay();
                self.spawn_task(key, checkpoint, wait);
            }
            // Without a checkpoint it starts with the next event of its pod.
            _ => {
                self.instances.remove(&key);
            }
        }
    }

    /// Deletes a checkpoint unless a task uses it or a pod may still claim it.
    pub(super) fn delete_checkpoint(&self, key: &InstanceKey) {
        let is_unclaimed = self.unclaimed.as_ref().is_some_and(|all| all.contains_key(key));
        if !is_unclaimed && !self.instances.contains_key(key) {
            self.context.checkpoints.delete(key);
        }
    }
}

/// The state of an instance that is gone.
pub(super) fn gone(restarts: u32) -> ContainerState {
    ContainerState {
        terminated: true,
        previous: false,
        present: false,
        excluded: false,
        restarts,
    }
}

/// Ends the stream of an instance that is gone. Returns false if the collector shuts down first.
async fn end_stream(mut stream: Stream, shutdown: CancellationToken) -> bool {
    if shutdown.is_cancelled() {
        return false;
    }
    tracing::info!(stream = %stream.id(), "container gone while the collector was stopped");
    if !stream.is_finished() {
        // Nothing proves that its last lines were read, or that they were not.
        stream.end_unread(Some(GapReason::Suspected));
    }
    stream.drain_until(&shutdown).await
}
