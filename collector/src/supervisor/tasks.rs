//! The tasks of container instances.

use std::{sync::Arc, time::Duration};

use bus::{Fd, StreamMetadata, Timestamp};
use futures::FutureExt;
use tokio::{
    task::{self, JoinError},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{Owned, Roster};
use crate::{
    api::follow::Follower,
    instance::{Instance, InstanceKey, Known},
    publish::{
        checkpoint::{Record, Unseen},
        outbox::Outlet,
    },
    state_watch::park,
    stream::{Stream, metadata::new_origin},
};

impl Roster {
    /// Goes on with an instance where its record stands, or begins one.
    pub(super) fn begin(&mut self, instance: Instance) {
        let key = instance.key.clone();
        let claimed = self.unclaimed.as_mut().and_then(|unclaimed| unclaimed.remove(&key));
        let claimed = claimed.or_else(|| self.way.checkpoints.get(&key));
        if let Some(unclaimed) = self.unclaimed.as_mut().filter(|_| key.fd().is_some()) {
            unclaimed.remove(&key.of(Fd::Err));
        }
        // One that was ended while the container runs on was left for another source.
        let is_left = |record: &Record| record.ended && !instance.known.terminated;
        let mut record = match claimed.filter(|record| record.metadata().is_some() && !is_left(record)) {
            Some(record) => record,
            None => match new_origin(&instance) {
                Ok(metadata) => self.first_record(&instance, &metadata),
                Err(error) => return tracing::warn!(%error, "container not followed"),
            },
        };
        record.restarts = Some(instance.known.restarts);
        self.way.checkpoints.save(&key, &record);
        if let Some(older) = self.recorded.note(&key, record.restarts)
            && older != key
        {
            self.forget(&older);
        }
        let owned = Owned::new(instance.known, Some(Arc::new(instance)));
        self.instances.insert(key.clone(), owned);
        self.work(key, record, Duration::ZERO);
    }

    fn first_record(&self, instance: &Instance, metadata: &StreamMetadata) -> Record {
        let mut record = Record::new(metadata);
        let restarts = instance.known.restarts;
        if let Some((key, before)) = self.recorded.before(&instance.key, restarts) {
            record.expected = true;
            if restarts - before > 1 {
                tracing::warn!(stream = %metadata.stream, instances = restarts - before - 1, "instances came and went unseen");
                let last = self.way.checkpoints.get(&key).and_then(|before| before.last());
                record.unseen = Some(Unseen {
                    from: last.map(|last| last.anchor.time).filter(|time| *time != i64::MIN),
                    to: Timestamp::now().0,
                });
            }
        }
        record
    }

    /// Ends a stream of before whose instance is gone.
    pub(super) fn close(&mut self, key: InstanceKey, record: Record) {
        if record.ended || record.metadata().is_none() {
            if !self.recorded.is_newest(&key) {
                self.way.checkpoints.delete(&key);
            }
            return;
        }
        let gone = Known {
            terminated: true,
            previous: false,
            present: false,
            restarts: record.restarts.unwrap_or_default(),
        };
        self.instances.insert(key.clone(), Owned::new(gone, None));
        self.work(key, record, Duration::ZERO);
    }

    /// Begins the task of an instance that is owned, from its record, after a wait.
    fn work(&mut self, key: InstanceKey, record: Record, wait: Duration) {
        let (Some(owned), Some(metadata)) = (self.instances.get(&key), record.metadata()) else {
            return;
        };
        let shutdown = self.shutdown.clone();
        if record.ended {
            let task = self.tasks.spawn(park(owned.known.subscribe(), shutdown));
            self.keys.insert(task.id(), key);
            return;
        }
        let stream = self.stream(&key, metadata, &record);
        let work = match &owned.instance {
            _ if self.reads_files(&key) => self.file_follower(owned, &key, stream, &record).run().boxed(),
            None => end(stream, shutdown.clone()).boxed(),
            Some(instance) => {
                let follower = Follower {
                    client: self.client.clone(),
                    instance: Arc::clone(instance),
                    known: owned.known.subscribe(),
                    stream,
                    expected: record.expected,
                    shutdown: shutdown.clone(),
                    metrics: self.way.metrics.clone(),
                    follows: self.follows.clone(),
                    refusals: self.refusals.clone(),
                    renew_after: self.config.renew_after,
                    ear: None,
                    loud: false,
                    open: None,
                };
                follower.run().boxed()
            }
        };
        let span = owned.instance.as_ref().map_or_else(Span::none, |instance| {
            tracing::info_span!("container", app = %instance.app, process = instance.process, node = instance.node)
        });
        let work = async move {
            shutdown.run_until_cancelled(sleep(wait)).await;
            work.await
        };
        let task = self.tasks.spawn(work.instrument(span));
        self.keys.insert(task.id(), key);
    }

    pub(super) fn stream(&self, key: &InstanceKey, metadata: StreamMetadata, record: &Record) -> Stream {
        let outlet = Outlet::new(self.way.clone(), key.clone(), record.clone());
        Stream::new(key.clone(), metadata, record, outlet)
    }

    /// The record of one that is the newest of its container stays.
    pub(super) fn ended(&mut self, id: task::Id, is_over: bool) {
        let Some(key) = self.keys.remove(&id) else { return };
        self.instances.remove(&key);
        if is_over && !self.recorded.is_newest(&key) {
            self.way.checkpoints.delete(&key);
        }
    }

    pub(super) fn failed(&mut self, error: &JoinError) {
        let Some(key) = self.keys.remove(&error.id()) else {
            return;
        };
        tracing::error!(%error, pod_uid = key.pod_uid, container = key.container, "a container's task failed: begun again");
        let record = self
            .way
            .checkpoints
            .get(&key)
            .filter(|record| record.metadata().is_some());
        match (record, self.instances.get_mut(&key)) {
            (Some(record), Some(owned)) => {
                let wait = owned.backoff.next_delay();
                self.work(key, record, wait);
            }
            // Without a record, it begins when it is shown next.
            _ => {
                self.instances.remove(&key);
            }
        }
    }

    /// Removes a record, unless a task is on it, which sees to it itself, or it is still to be claimed.
    pub(super) fn forget(&self, key: &InstanceKey) {
        let is_unclaimed = self.unclaimed.as_ref().is_some_and(|all| all.contains_key(key));
        if !is_unclaimed && !self.instances.contains_key(key) {
            self.way.checkpoints.delete(key);
        }
    }
}

/// Ends a stream of before whose instance is gone. False: the collector stopped first.
async fn end(mut stream: Stream, shutdown: CancellationToken) -> bool {
    if shutdown.is_cancelled() {
        return false;
    }
    tracing::info!(stream = %stream.id(), "gone while the collector was away");
    if !stream.is_finished() {
        stream.gone(true);
    }
    stream.drain_until(&shutdown).await
}
