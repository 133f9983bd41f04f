//! Metadata of new streams.

use bus::{Epoch, InvalidStreamId, StreamId, StreamMetadata};

use crate::instance::{Instance, InstanceKey};

/// Returns the metadata of an instance's stream, with a new epoch.
pub fn new_metadata(instance: &Instance) -> Result<StreamMetadata, InvalidStreamId> {
    Ok(StreamMetadata {
        app: instance.app.clone(),
        process: instance.process.clone(),
        stream: new_stream_id(&instance.key)?,
        node: instance.node.clone(),
        origin: "app".to_owned(),
        fd: instance.key.fd(),
        about: None,
    })
}

/// Returns a stream id with a new epoch.
pub fn new_stream_id(key: &InstanceKey) -> Result<StreamId, InvalidStreamId> {
    StreamId::new(&key.pod_uid, &key.container, &key.container_id, Epoch::new())
}
