//! What the batches of a stream have in common.

use bus::{Epoch, InvalidStreamId, StreamId, StreamMetadata};

use crate::instance::{Instance, InstanceKey};

/// What the streams of an instance have in common, with a new epoch.
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

/// A new epoch of an instance.
pub fn new_stream_id(key: &InstanceKey) -> Result<StreamId, InvalidStreamId> {
    StreamId::new(&key.pod_uid, &key.container, &key.container_id, Epoch::new())
}
