//! The format of one batch in a segment.
//!
//! *Shape*: a header of 24 bytes, big-endian: CRC-32 of everything after it, length of the
//! attributes, length of the data, 4 zero bytes, key (8 bytes); then the attributes, each with the
//! lengths of its name (u16) and value (u32) in front of both; then the data, uncompressed.

use bytes::{BufMut, Bytes};
use system::collections::{HashMap, RandomState};

use crate::{Batch, PublishTime, ReaderItem, Unreadable, batch::Delivery};

/// Size of the header in bytes.
pub(super) const HEADER: usize = 24;

/// Maximum size of a valid record: the largest message and its attributes.
const MAX_RECORD: usize = 12 << 20;

/// Encodes a record's header and attributes; the caller writes its data after them.
pub(super) fn encode_head(key: u64, batch: &Batch) -> Vec<u8> {
    let data = batch.data();
    let mut head = Vec::with_capacity(512);
    head.put_slice(&[0; HEADER]);
    for (name, value) in batch.attributes() {
        put_attribute(&mut head, name, &value);
    }
    finish_head(&mut head, key, data);
    head
}

/// The attribute of a record that stands for lost ones: the lowest key that they can have. Versions
/// that do not know it report an unreadable message.
const LOST_FROM: &str = "lost_from";

/// Encodes a record that stands for lost records with keys from `from` to `key`.
pub(super) fn encode_lost(from: u64, key: u64) -> Vec<u8> {
    let mut head = vec![0; HEADER];
    put_attribute(&mut head, LOST_FROM, &from.to_string());
    finish_head(&mut head, key, &[]);
    head
}

fn put_attribute(head: &mut Vec<u8>, name: &str, value: &str) {
    head.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
    head.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
    head.put_slice(name.as_bytes());
    head.put_slice(value.as_bytes());
}

fn finish_head(head: &mut [u8], key: u64, data: &[u8]) {
    let attributes = u32::try_from(head.len() - HEADER).unwrap_or(u32::MAX);
    head[4..8].copy_from_slice(&attributes.to_be_bytes());
    head[8..12].copy_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    head[16..24].copy_from_slice(&key.to_be_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head[4..]);
    sum.update(data);
    head[..4].copy_from_slice(&sum.finalize().to_be_bytes());
}

/// A decoded header.
#[derive(Clone, Copy)]
pub(super) struct Header {
    sum: u32,
    attributes: usize,
    data: usize,
    pub(super) key: u64,
}

impl Header {
    /// Decodes a header; `None` if the bytes are not a complete, plausible header.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER] = bytes.first_chunk()?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let size = |at: usize| usize::try_from(word(at)).ok().filter(|size| *size <= MAX_RECORD);
        let key = (u64::from(word(16)) << 32) | u64::from(word(20));
        let header = Self {
            sum: word(0),
            attributes: size(4)?,
            data: size(8)?,
            key,
        };
        (word(12) == 0 && header.record_len() <= MAX_RECORD).then_some(header)
    }

    /// Returns the size of the record.
    pub(super) fn record_len(&self) -> usize {
        HEADER + self.attributes + self.data
    }

    /// Returns whether the checksum of `record`, which starts with this header, is correct.
    pub(super) fn matches(&self, record: &[u8]) -> bool {
        record
            .get(4..self.record_len())
            .is_some_and(|summed| crc32fast::hash(summed) == self.sum)
    }

    /// Decodes a record with a correct checksum, without copying its data.
    pub(super) fn decode(&self, record: &Bytes) -> ReaderItem {
        let data = record.slice(HEADER + self.attributes..self.record_len());
        let attributes = split_attributes(&record[HEADER..HEADER + self.attributes]);
        let lost_from = attributes.as_ref().and_then(|attributes| attributes.get(LOST_FROM));
        if let Some(from) = lost_from.and_then(|from| from.parse().ok()) {
            return ReaderItem::Interrupted {
                from: PublishTime(from),
                to: PublishTime(self.key + 1),
            };
        }
        let batch = match attributes {
            Some(attributes) => Batch::from_message(&attributes, data),
            None => Err(Unreadable::Version("stored in an unknown format".to_owned())),
        };
        match batch {
            Ok(batch) => ReaderItem::Delivery(Delivery {
                batch,
                published: PublishTime(self.key),
                ack: None,
            }),
            Err(unreadable) => ReaderItem::Unreadable(unreadable),
        }
    }
}

fn split_attributes(mut rest: &[u8]) -> Option<HashMap<&str, &str>> {
    let mut attributes = HashMap::with_capacity_and_hasher(12, RandomState::default());
    while !rest.is_empty() {
        let (name_len, after) = rest.split_first_chunk::<2>()?;
        let (value_len, after) = after.split_first_chunk::<4>()?;
        let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*name_len)))?;
        let (value, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*value_len)).ok()?)?;
        attributes.insert(std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
        rest = after;
    }
    Some(attributes)
}
