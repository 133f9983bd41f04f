//! The roster's part in reading files: one task for both outputs of an instance, under the key of its standard output.

use std::collections::HashMap;

use bus::{Epoch, Fd, StreamId, StreamMetadata};

use super::{Owned, Roster};
use crate::{
    files::{FileFollower, Files, Surroundings, Watches, container_dir, find_container_dir},
    instance::InstanceKey,
    publish::checkpoint::Record,
    stream::Stream,
};

impl Roster {
    /// Whether this instance's files are read.
    pub(super) fn reads_files(&self, key: &InstanceKey) -> bool {
        self.watches.is_some() && key.fd() == Some(Fd::Out)
    }

    /// Takes out the records that go with that of a standard output: the task of that one sees to both.
    pub(super) fn drop_err(&self, records: &mut HashMap<InstanceKey, Record>) {
        if self.watches.is_some() {
            let outs: Vec<_> = records
                .keys()
                .filter(|key| key.fd() == Some(Fd::Out))
                .cloned()
                .collect();
            outs.iter().for_each(|key| drop(records.remove(&key.of(Fd::Err))));
        }
    }

    /// Of an instance, or of one whose pod is gone: what is still on disk is read, too.
    pub(super) fn file_follower(&self, owned: &Owned, key: &InstanceKey, out: Stream, record: &Record) -> FileFollower {
        let root = &self.config.pod_log_dir;
        let files = Files {
            dir: match &owned.instance {
                Some(instance) => Some(container_dir(root, instance)),
                None => find_container_dir(root, &key.pod_uid, key.container_name()),
            },
            number: record.restarts.unwrap_or_default(),
        };
        let around = Surroundings {
            watches: self.watches.clone().unwrap_or_else(Watches::new),
            checkpoints: self.way.checkpoints.clone(),
            metrics: self.way.metrics.clone(),
            status: self.config.status.clone(),
            shutdown: self.shutdown.clone(),
        };
        let err = self.err_stream(key, &out);
        FileFollower::new(files, (out, err), owned.known.subscribe(), record.expected, around)
    }

    /// The other output's stream. Its record is written when it has a line.
    fn err_stream(&self, key: &InstanceKey, out: &Stream) -> Stream {
        let key = key.of(Fd::Err);
        let on_record = self.way.checkpoints.get(&key);
        if let Some((record, metadata)) =
            on_record.and_then(|record| record.metadata().map(|metadata| (record, metadata)))
        {
            return self.stream(&key, metadata, &record);
        }
        let stream = StreamId::new(&key.pod_uid, &key.container, &key.container_id, Epoch::new());
        let metadata = StreamMetadata {
            // The parts of the other's id are valid.
            stream: stream.unwrap_or_else(|_| out.id().clone()),
            fd: Some(Fd::Err),
            ..out.metadata().clone()
        };
        let record = Record::new(&metadata);
        self.stream(&key, metadata, &record)
    }
}
