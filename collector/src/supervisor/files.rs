//! Tasks of instances whose files are read: one task for both outputs, under the key of standard
//! output.

use std::collections::BTreeMap;

use bus::{Epoch, Fd, StreamId, StreamMetadata};

use super::{Supervisor, TrackedInstance};
use crate::{
    files::{DirWatcher, FileFollower, Files, FollowerContext, container_dir, find_container_dir},
    instance::InstanceKey,
    publish::checkpoint::Checkpoint,
    stream::Stream,
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
        out: Stream,
        checkpoint: &Checkpoint,
    ) -> FileFollower {
        let root = &self.config.pod_log_dir;
        let files = Files {
            dir: match &tracked.instance {
                Some(instance) => Some(container_dir(root, instance)),
                None => find_container_dir(root, &key.pod_uid, key.container_name()),
            },
            number: checkpoint.restarts.unwrap_or_default(),
        };
        let context = FollowerContext {
            dir_watcher: self.dir_watcher.clone().unwrap_or_else(DirWatcher::new),
            checkpoints: self.context.checkpoints.clone(),
            metrics: self.context.metrics.clone(),
            progress: self.config.progress.clone(),
            shutdown: self.shutdown.clone(),
        };
        let err = self.stderr_stream(key, &out, checkpoint.doubtful);
        // What a log had lost before the first list of all is not promised.
        let is_first_list = self.unclaimed.is_some() && self.context.checkpoints.is_first_start();
        FileFollower::new(
            files,
            (out, err),
            tracked.state.subscribe(),
            checkpoint.expected || !is_first_list,
            context,
        )
    }

    /// Opens the stream of standard error. Its checkpoint is written with its first line; `doubtful`:
    /// it may have had one.
    fn stderr_stream(&self, key: &InstanceKey, out: &Stream, doubtful: bool) -> Stream {
        let key = key.with_fd(Fd::Err);
        let stored = self.context.checkpoints.get(&key);
        if let Some((checkpoint, metadata)) =
            stored.and_then(|checkpoint| checkpoint.metadata().map(|metadata| (checkpoint, metadata)))
        {
            return self.stream(&key, metadata, &checkpoint);
        }
        let stream = StreamId::new(&key.pod_uid, &key.container, &key.container_id, Epoch::new());
        let metadata = StreamMetadata {
            // The parts come from a valid id.
            stream: stream.unwrap_or_else(|_| out.id().clone()),
            fd: Some(Fd::Err),
            ..out.metadata().clone()
        };
        let mut checkpoint = Checkpoint::new(&metadata);
        checkpoint.doubtful = doubtful;
        if doubtful {
            self.context.checkpoints.save(&key, &checkpoint);
        }
        self.stream(&key, metadata, &checkpoint)
    }
}
