//! A message as it came, read as a batch.

use google_cloud_pubsub::model::Message;

use crate::{Ack, Batch, Content, Item, PublishTime, batch::Delivery};

/// What a message is.
pub(super) enum Read {
    /// A batch, or what cannot be read as one.
    Item(Item),
    /// A reader's mark: nobody else's concern.
    Marker(String),
}

/// Reads a message. The data is taken as it is, without a copy, where it was not compressed. A marker's ack is accepted: nothing waits for it.
pub(super) fn read(message: Message, published: PublishTime, ack: Option<Ack>) -> Read {
    let attributes = message
        .attributes
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    match Batch::from_message(&attributes, message.data) {
        Ok(Batch {
            content: Content::Marker(text),
            ..
        }) => {
            ack.into_iter().for_each(Ack::accept);
            Read::Marker(text)
        }
        Ok(batch) => Read::Item(Item::Delivery(Delivery { batch, published, ack })),
        Err(unreadable) => {
            // Nobody can deal with it: it is told once, and never comes again.
            ack.into_iter().for_each(Ack::accept);
            Read::Item(Item::Unreadable(unreadable))
        }
    }
}
