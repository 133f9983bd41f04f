//! One step of a stream on disk.
//!
//! *Shape*: CRC-32 of what follows, length of the head, length of the data (each a big-endian u32); the head, JSON; the data, untouched.

use std::{collections::BTreeMap, sync::Arc};

use bus::{Batch, Content};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{anchor::Mark, publish::entry::Step};

/// Bytes before the head.
pub const PREFIX: usize = 12;

/// The longest entry that is believed: the largest batch, and room for its head.
const MAX_ENTRY: usize = bus::MAX_BATCH_BYTES + (1 << 20);

/// What is said of a step besides its data.
#[derive(Serialize, Deserialize)]
struct Head {
    kind: Kind,
    /// As the batch would travel.
    attributes: BTreeMap<String, String>,
    end: Option<Mark>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Batch,
    Finish,
    Begin,
}

/// Writes a step as it lies on disk, without its data, which follows.
pub fn encode_head(step: &Step) -> Vec<u8> {
    let begin;
    let (kind, batch, end) = match step {
        Step::Batch(batch, end) => (Kind::Batch, batch, *end),
        Step::Finish(batch) => (Kind::Finish, batch, None),
        Step::Begin(metadata) => {
            begin = Batch {
                metadata: Arc::clone(metadata),
                seq: 0,
                content: Content::Marker("begin".to_owned()),
            };
            (Kind::Begin, &begin, None)
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
    };
    // Strings and numbers: there is nothing in them that JSON cannot say.
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let data = batch.data();
    let mut out = vec![0; PREFIX];
    out[4..8].copy_from_slice(&word(head.len()));
    out[8..12].copy_from_slice(&word(data.len()));
    out.extend_from_slice(&head);
    let mut sum = crc32fast::Hasher::new();
    sum.update(&out[4..]);
    sum.update(data);
    out[..4].copy_from_slice(&sum.finalize().to_be_bytes());
    out
}

/// How long an entry is that begins so. `None`: none does.
pub fn len(prefix: &[u8; PREFIX]) -> Option<usize> {
    let (head, data) = sizes(prefix);
    PREFIX
        .checked_add(head)?
        .checked_add(data)
        .filter(|len| *len <= MAX_ENTRY)
}

fn sizes(prefix: &[u8; PREFIX]) -> (usize, usize) {
    let size = |at: usize| u32::from_be_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]) as usize;
    (size(4), size(8))
}

/// Reads the step that these bytes begin with, and how many of them it takes. `None`: they begin with no whole one.
pub fn decode(bytes: &Bytes) -> Option<(Step, usize)> {
    let prefix: &[u8; PREFIX] = bytes.first_chunk()?;
    let (head_len, _) = sizes(prefix);
    let len = len(prefix)?;
    if bytes.len() < len || crc32fast::hash(&bytes[4..len]) != u32::from_be_bytes(*prefix.first_chunk()?) {
        return None;
    }
    let data_at = PREFIX + head_len;
    let head: Head = serde_json::from_slice(&bytes[PREFIX..data_at]).ok()?;
    let attributes = head.attributes.iter();
    let attributes = attributes
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let batch = Batch::from_message(&attributes, bytes.slice(data_at..len)).ok()?;
    let step = match head.kind {
        Kind::Batch => Step::Batch(batch, head.end),
        Kind::Finish => Step::Finish(batch),
        Kind::Begin => Step::Begin(batch.metadata),
    };
    Some((step, len))
}

fn word(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}
