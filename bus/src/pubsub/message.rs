//! Decoding of received messages.

use bytes::Bytes;

use super::service::ReceivedAttributes;
use crate::{Ack, Batch, Content, PublishTime, ReaderItem, batch::Delivery};

/// A decoded message.
pub(super) enum Decoded {
    /// A batch, or an unreadable message.
    Item(ReaderItem),
    /// A reader's marker.
    Marker(String),
}

/// Decodes a message, without copying uncompressed data. Markers are acknowledged.
pub(super) fn decode(
    attributes: &ReceivedAttributes,
    data: Bytes,
    published: PublishTime,
    ack: Option<Ack>,
) -> Decoded {
    let attributes = attributes
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    match Batch::from_message(&attributes, data) {
        Ok(Batch {
            content: Content::Marker(text),
            ..
        }) => {
            ack.into_iter().for_each(Ack::ack);
            Decoded::Marker(text)
        }
        Ok(batch) => Decoded::Item(ReaderItem::Delivery(Delivery { batch, published, ack })),
        Err(unreadable) => {
            // A redelivery would be unreadable too.
            ack.into_iter().for_each(Ack::ack);
            Decoded::Item(ReaderItem::Unreadable(unreadable))
        }
    }
}
