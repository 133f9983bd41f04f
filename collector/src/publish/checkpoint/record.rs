//! On-disk format of a generation of the journal: a header, then records.
//!
//! *Layout of the header*: [`MAGIC`], sequence number of the first record (u64), number of records
//! that were written with the header (u32), CRC-32 of all this, and a byte that is not 0 if later
//! records are missing because they could not be written.
//!
//! *Layout of a record*: length of the body (u32), sequence number (u64), CRC-32 of the body, CRC-32
//! of these 16 bytes; the body is the kind (1 byte), the length of the key (u32), the key and the
//! value. Numbers are big-endian. The head has its own checksum, so that a damaged length is not
//! taken for a record that was cut off.

use std::collections::BTreeMap;

/// Identifies the file and the version of its format.
const MAGIC: &[u8; 8] = b"TRIBCP\x00\x01";

/// Length of the header.
pub const HEADER_BYTES: usize = 25;

/// Offset of the byte that says that records are missing.
pub const INCOMPLETE_AT: u64 = 24;

/// Length of a record before its body.
const HEAD_BYTES: usize = 20;

/// Length of a body before its key.
const KEY_AT: usize = 5;

const SET: u8 = 1;
const REMOVE: u8 = 2;

/// Keys and values, in the order of the keys.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The beginning of a generation.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The sequence number of the first record.
    pub first_seq: u64,
    /// The number of records that were written with the header.
    pub records: u32,
    /// Later records are missing.
    pub is_incomplete: bool,
}

/// A change of one entry.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub seq: u64,
    pub key: &'a [u8],
    /// `None`: the entry is removed.
    pub value: Option<&'a [u8]>,
}

/// The result of decoding a record.
pub enum Decoded<'a> {
    /// A record and its length.
    Record(Record<'a>, usize),
    /// The bytes end within a record.
    CutOff,
    /// The bytes are not a record.
    Damaged,
}

impl Header {
    /// Decodes the header; `None` if it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, rest) = bytes.split_at_checked(20)?;
        let (sum, rest) = rest.split_first_chunk()?;
        let is_valid = checked.starts_with(MAGIC) && crc32fast::hash(checked) == u32::from_be_bytes(*sum);
        is_valid.then_some(Self {
            first_seq: u64::from_be_bytes(*checked[8..].first_chunk()?),
            records: u32::from_be_bytes(*checked[16..].first_chunk()?),
            is_incomplete: *rest.first()? != 0,
        })
    }
}

impl<'a> Record<'a> {
    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let value = self.value.unwrap_or_default();
        let start = out.len();
        let body_at = start + HEAD_BYTES;
        out.extend_from_slice(&len32(KEY_AT + self.key.len() + value.len()));
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        out.push(if self.value.is_some() { SET } else { REMOVE });
        out.extend_from_slice(&len32(self.key.len()));
        out.extend_from_slice(self.key);
        out.extend_from_slice(value);
        let sum = crc32fast::hash(&out[body_at..]);
        out[start + 12..start + 16].copy_from_slice(&sum.to_be_bytes());
        let sum = crc32fast::hash(&out[start..start + 16]);
        out[start + 16..body_at].copy_from_slice(&sum.to_be_bytes());
    }

    /// Decodes the record at the start of the bytes.
    pub fn decode(bytes: &'a [u8]) -> Decoded<'a> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Decoded::CutOff;
        };
        if crc32fast::hash(&head[..16]) != number(&head[16..]) {
            return Decoded::Damaged;
        }
        let len = number(&head[..4]) as usize;
        let Some(body) = rest.get(..len) else {
            return Decoded::CutOff;
        };
        if crc32fast::hash(body) != number(&head[12..16]) {
            return Decoded::Damaged;
        }
        let seq = head[4..12].iter().fold(0, |seq, byte| seq << 8 | u64::from(*byte));
        match Self::decode_body(seq, body) {
            Some(record) => Decoded::Record(record, HEAD_BYTES + len),
            None => Decoded::Damaged,
        }
    }

    fn decode_body(seq: u64, body: &'a [u8]) -> Option<Self> {
        let (prefix, rest) = body.split_at_checked(KEY_AT)?;
        let (key, value) = rest.split_at_checked(number(&prefix[1..]) as usize)?;
        let value = match prefix[0] {
            SET => Some(value),
            REMOVE => None,
            _ => return None,
        };
        Some(Self { seq, key, value })
    }
}

/// Returns the number of bytes of an entry's record.
pub fn record_len(key: &[u8], value: &[u8]) -> u64 {
    (HEAD_BYTES + KEY_AT + key.len() + value.len()) as u64
}

/// Encodes a generation with these entries.
pub fn encode_generation(first_seq: u64, entries: &Entries) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&first_seq.to_be_bytes());
    out.extend_from_slice(&len32(entries.len()));
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    out.push(0);
    for (seq, (key, value)) in (first_seq..).zip(entries) {
        let value = Some(&value[..]);
        Record { seq, key, value }.encode(&mut out);
    }
    out
}

/// Decodes a big-endian u32 of four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn len32(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}
