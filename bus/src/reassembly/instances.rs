//! Which streams read the same container instance, one after the other.

use system::collections::HashMap;

use crate::{stream_id::StreamId, time::PublishTime};

/// The streams of each container instance, in the order in which they were published. Empty unless
/// streams wait for each other.
#[derive(Debug, Default)]
pub(super) struct Instances {
    streams: HashMap<Box<str>, Vec<(PublishTime, StreamId)>>,
}

impl Instances {
    /// Adds a stream whose first batch to arrive was published at this time.
    ///
    /// A stream that another one replaces was published first, whatever the clock of the node says.
    pub(super) fn insert(&mut self, stream: &StreamId, published: PublishTime) {
        let streams = self.streams.entry(stream.container_instance().into()).or_default();
        let at = streams.partition_point(|(other, _)| *other <= published);
        streams.insert(at, (published, stream.clone()));
    }

    /// Returns the streams of the same container instance that were published before this one.
    pub(super) fn before<'a>(&'a self, stream: &'a StreamId) -> impl Iterator<Item = &'a StreamId> {
        let streams = self.of(stream);
        streams.take_while(move |other| *other != stream)
    }

    /// Returns the streams of the same container instance that were published after this one.
    pub(super) fn after<'a>(&'a self, stream: &'a StreamId) -> impl Iterator<Item = &'a StreamId> {
        let streams = self.of(stream);
        streams.skip_while(move |other| *other != stream).skip(1)
    }

    /// Removes a stream.
    pub(super) fn remove(&mut self, stream: &StreamId) {
        let instance = stream.container_instance();
        let Some(streams) = self.streams.get_mut(instance) else {
            return;
        };
        streams.retain(|(_, other)| other != stream);
        if streams.is_empty() {
            self.streams.remove(instance);
        }
    }

    fn of(&self, stream: &StreamId) -> impl Iterator<Item = &StreamId> {
        let streams = self.streams.get(stream.container_instance());
        streams.into_iter().flatten().map(|(_, stream)| stream)
    }
}
