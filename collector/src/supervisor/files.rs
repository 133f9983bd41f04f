//! Tasks of instances whose files are read: one task for both outputs, under the key of standard
//! output.

use std::{collections::BTreeMap, io, time::Duration};

use bus::{Epoch, Fd, StreamId, StreamMetadata};

use super::{Supervisor, TrackedInstance, tasks::gone};
use crate::{
    files::{DirWatcher, FileFollower, Files, FollowerContext, container_dir, find_container_dir, newest_number},
    instance::{Instance, InstanceKey},
    publish::checkpoint::{Checkpoint, StreamStart},
    stream::{Stream, metadata::new_stream_id},
};

impl Supervisor {
    /// Returns whether this instance's files are read.
    pub(super) fn reads_files(&self, key: &InstanceKey) -> bool {
        self.dir_watcher.is_some() && key.fd() == Some(Fd::Out)
    }

    /// Removes the checkpoints of standard error, which the task of standard output handles.
    pub(super) fn drop_stderr_checkpoints(&self, checkpoints: &mut BTreeMap<InstanceKey, Checkpoint>) {
        if self.dir_watcher.is_some() {
            let outs: Vec<_> = checkpoints
                .keys()
                .filter(|key| key.fd() == Some(Fd::Out))
                .cloned()
                .collect();
            outs.iter()
                .for_each(|key| drop(checkpoints.remove(&key.with_fd(Fd::Err))));
        }
    }

    /// Creates the task of an instance. If its pod is gone, what is still on disk is read.
    pub(super) fn file_follower(
        &self,
        tracked: &TrackedInstance,
        key: &InstanceKey,
        streams: (Stream, Stream),
        checkpoint: &Checkpoint,
    ) -> FileFollower {
        let root = &self.config.pod_log_dir;
        let files = Files {
            dir: match &tracked.instance {
                _ if tracked.is_unseen => None,
                Some(instance) => Some(container_dir(root, instance)),
                None => find_container_dir(root, &key.pod_uid, key.container_name()),
            },
            number: checkpoint.restarts.unwrap_or_default(),
        };
        let context = FollowerContext {
            dir_watcher: self.dir_watcher.clone().unwrap_or_else(DirWatcher::new),
            checkpoints: self.context.checkpoints.clone(),
            metrics: self.context.metrics.clone(),
            report: tracked.instance.as_ref().map(|instance| self.context.report(instance)),
            progress: self.config.progress.clone(),
            shutdown: self.shutdown.clone(),
        };
        // What a log had lost before the first list of all is not promised.
        let is_first_list = self.unclaimed.is_some() && self.context.checkpoints.is_first_start();
        FileFollower::new(
            files,
            streams,
            tracked.state.subscribe(),
            checkpoint.expected || !is_first_list,
            context,
        )
    }

    /// Checks for the last instances of a pod that is gone whether later ones may have run. `is_late`:
    /// the pod may have been gone for some time.
    pub(super) fn doubt_last_instances(&mut self, pod_uid: &str, is_late: bool) {
        let is_last = |key: &&InstanceKey| key.pod_uid == pod_uid && self.last_seen.is_newest(key);
        let last: Vec<_> = self.instances.keys().filter(is_last).cloned().collect();
        for key in last {
            let Some(tracked) = self.instances.get(&key) else {
                continue;
            };
            let restarts = tracked.state.borrow().restarts;
            let lacks_later = self.may_lack_later(&key, tracked.instance.as_deref(), restarts, is_late);
            if let Some(tracked) = self.instances.get_mut(&key) {
                tracked.lacks_later = lacks_later;
            }
        }
    }

    /// Returns whether a container whose pod is gone may have had instances after the one with this
    /// number, which the API never listed. The files show it, as long as the node has them; `default`:
    /// otherwise.
    pub(super) fn may_lack_later(
        &self,
        key: &InstanceKey,
        instance: Option<&Instance>,
        number: u32,
        default: bool,
    ) -> bool {
        let root = &self.config.pod_log_dir;
        let dir = match instance {
            _ if !self.reads_files(key) => return false,
            Some(instance) => Some(container_dir(root, instance)),
            None => find_container_dir(root, &key.pod_uid, key.container_name()),
        };
        let newest = dir.and_then(|dir| newest_number(&dir));
        newest.map_or(default, |newest| newest > number)
    }

    /// Reports that instances of a container may have run that were never seen, in another stream of the
    /// last one that was.
    ///
    /// Its checkpoint is stored at its end. Until then the one of the last stream remains, so that a
    /// restart reports it again.
    pub(super) fn report_unseen(&mut self, key: InstanceKey) {
        let stored = self.context.checkpoints.get(&key);
        let stored = stored.and_then(|checkpoint| checkpoint.metadata().map(|metadata| (checkpoint, metadata)));
        let (Some((stored, metadata)), Ok(stream)) = (stored, new_stream_id(&key)) else {
            return self.context.checkpoints.delete(&key);
        };
        tracing::warn!(%stream, "gap suspected, later container instances may have run unseen");
        self.context.checkpoints.delete(&key.with_fd(Fd::Err));
        let metadata = StreamMetadata { stream, ..metadata };
        let checkpoint = stored.for_new_epoch(&metadata, StreamStart::default());
        let tracked = TrackedInstance {
            is_unseen: true,
            ..TrackedInstance::new(gone(stored.restarts.unwrap_or_default()), None)
        };
        self.instances.insert(key.clone(), tracked);
        self.spawn_task(key, checkpoint, Duration::ZERO);
    }

    /// Opens the stream of standard error. Its checkpoint is written with its first line; `out`: the
    /// metadata of standard output; `doubtful`: it may have had a checkpoint.
    ///
    /// # Errors
    /// Its spool cannot be read now.
    pub(super) fn open_stderr(&self, key: &InstanceKey, out: &StreamMetadata, doubtful: bool) -> io::Result<Stream> {
        let key = key.with_fd(Fd::Err);
        let stored = self.context.checkpoints.get(&key);
        if let Some((checkpoint, metadata)) =
            stored.and_then(|checkpoint| checkpoint.metadata().map(|metadata| (checkpoint, metadata)))
        {
            let spool = self.context.spool.stream_spool(&key, &checkpoint)?;
            return Ok(self.stream(&key, metadata, &checkpoint, spool));
        }
        let stream = StreamId::new(&key.pod_uid, &key.container, &key.container_id, Epoch::new());
        let metadata = StreamMetadata {
            // The parts come from a valid id.
            stream: stream.unwrap_or_else(|_| out.stream.clone()),
            fd: Some(Fd::Err),
            ..out.clone()
        };
        let mut checkpoint = Checkpoint::new(&metadata);
        checkpoint.doubtful = doubtful;
        let spool = self.context.spool.stream_spool(&key, &checkpoint)?;
        if doubtful {
            self.context.checkpoints.save(&key, &checkpoint);
        }
        Ok(self.stream(&key, metadata, &checkpoint, spool))
    }
}
