//! On-disk format of an outbox entry.
//!
//! *Layout*: CRC-32 of what follows, length of the head, length of the data (each a big-endian
//! u32), the head as JSON, the unchanged data.

use std::{collections::BTreeMap, sync::Arc};

use bus::{Batch, Content};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    anchor::ResumePoint,
    publish::{checkpoint::StreamStart, entry::OutboxEntry},
};

/// Bytes before the head.
pub const PREFIX_BYTES: usize = 12;

/// Upper bound for a valid entry: the largest batch and its head.
const MAX_ENTRY_BYTES: usize = bus::MAX_BATCH_BYTES + (1 << 20);

/// An entry without its data.
#[derive(Serialize, Deserialize)]
struct Head {
    kind: Kind,
    /// The attributes of the batch's message.
    attributes: BTreeMap<String, String>,
    end: Option<ResumePoint>,
    #[serde(default)]
    may_repeat: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Batch,
    Finish,
    Start,
}

/// Encodes an entry without its data, which follows.
pub fn encode_head(entry: &OutboxEntry) -> Vec<u8> {
    let start;
    let (kind, batch, end) = match entry {
        OutboxEntry::Batch(batch, end) => (Kind::Batch, batch, *end),
        OutboxEntry::Finish(batch) => (Kind::Finish, batch, None),
        OutboxEntry::Start(metadata, how) => {
            start = Batch {
                metadata: Arc::clone(metadata),
                seq: 0,
                content: Content::Marker("begin".to_owned()),
            };
            (Kind::Start, &start, how.after)
        }
    };
    let attributes = batch.attributes();
    let head = Head {
        kind,
        attributes: attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        end,
        may_repeat: matches!(entry, OutboxEntry::Start(_, start) if start.may_repeat),
    };
    // Strings and numbers always encode.
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let data = batch.data();
    let mut out = vec![0; PREFIX_BYTES];
    out[4..8].copy_from_slice(&to_be_bytes(head.len()));
    out[8..12].copy_from_slice(&to_be_bytes(data.len()));
    out.extend_from_slice(&head);
    let mut sum = crc32fast::Hasher::new();
    sum.update(&out[4..]);
    sum.update(data);
    out[..4].copy_from_slice(&sum.finalize().to_be_bytes());
    out
}

/// Returns the length of an entry from its prefix, or `None` if the prefix is invalid.
pub fn entry_len(prefix: &[u8; PREFIX_BYTES]) -> Option<usize> {
    let (head, data) = sizes(prefix);
    PREFIX_BYTES
        .checked_add(head)?
        .checked_add(data)
        .filter(|entry_len| *entry_len <= MAX_ENTRY_BYTES)
}

fn sizes(prefix: &[u8; PREFIX_BYTES]) -> (usize, usize) {
    let size = |at: usize| u32::from_be_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]) as usize;
    (size(4), size(8))
}

/// Decodes the entry at the start of the bytes and returns its length. Returns `None` if there is
/// no complete entry.
pub fn decode(bytes: &Bytes) -> Option<(OutboxEntry, usize)> {
    let prefix: &[u8; PREFIX_BYTES] = bytes.first_chunk()?;
    let (head_len, _) = sizes(prefix);
    let entry_len = entry_len(prefix)?;
    if bytes.len() < entry_len || crc32fast::hash(&bytes[4..entry_len]) != u32::from_be_bytes(*prefix.first_chunk()?) {
        return None;
    }
    let data_at = PREFIX_BYTES + head_len;
    let head: Head = serde_json::from_slice(&bytes[PREFIX_BYTES..data_at]).ok()?;
    let attributes = head.attributes.iter();
    let attributes = attributes
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let batch = Batch::from_message(&attributes, bytes.slice(data_at..entry_len)).ok()?;
    let entry = match head.kind {
        Kind::Batch => OutboxEntry::Batch(batch, head.end),
        Kind::Finish => OutboxEntry::Finish(batch),
        Kind::Start => {
            let start = StreamStart {
                after: head.end,
                may_repeat: head.may_repeat,
            };
            OutboxEntry::Start(batch.metadata, start)
        }
    };
    Some((entry, entry_len))
}

fn to_be_bytes(entry_len: usize) -> [u8; 4] {
    u32::try_from(entry_len).unwrap_or(u32::MAX).to_be_bytes()
}
