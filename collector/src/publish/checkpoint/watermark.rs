//! The watermark: how far the journal was written, kept apart from the journal.
//!
//! A journal that was cut, emptied or replaced by an older copy is whole in itself. The lock file of
//! the directory therefore holds the sequence number of the next record. It is written after the
//! journal and never synced: after a kill it is at most as high as the journal, and after a loss of
//! power the boot id says that neither can be trusted.

use std::io;

use system::files::File;

/// The watermark in the lock file.
///
/// *Shape*: two slots of [`SLOT`] bytes, written in turns: sequence number and inode of the file
/// (u64, big-endian), and their CRC-32. A copy of the file has another inode.
pub struct Watermark {
    file: File,
    inode: u64,
    writes: u64,
}

/// What a lock file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing that can be read.
    Nothing,
    /// It was written for another file: this one is a copy.
    Copied,
    /// The sequence number of the next record.
    NextSeq(u64),
}

/// Bytes of a slot.
const SLOT: usize = 20;

impl Watermark {
    /// Reads the watermark of a lock file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(file: File) -> io::Result<(Self, Stored)> {
        let inode = file.metadata()?.inode;
        let mut bytes = [0; 2 * SLOT];
        let read = file.read_at(&mut bytes, 0)?;
        let slots = bytes[..read].chunks_exact(SLOT).filter_map(decode);
        let newest = slots.max_by_key(|(next_seq, _)| *next_seq);
        let stored = match newest {
            None => Stored::Nothing,
            Some((_, other)) if other != inode => Stored::Copied,
            Some((next_seq, _)) => Stored::NextSeq(next_seq),
        };
        let watermark = Self { file, inode, writes: 0 };
        Ok((watermark, stored))
    }

    /// Writes the sequence number of the next record. A failure is ignored: an older watermark
    /// detects less.
    pub fn store(&mut self, next_seq: u64) {
        let slot = self.writes % 2;
        self.writes += 1;
        let _ = self.file.write_at(&encode(next_seq, self.inode), slot * SLOT as u64);
    }
}

fn encode(next_seq: u64, inode: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&next_seq.to_be_bytes());
    slot[8..16].copy_from_slice(&inode.to_be_bytes());
    let sum = crc32fast::hash(&slot[..16]);
    slot[16..].copy_from_slice(&sum.to_be_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_be_bytes(*slot.get(at..)?.first_chunk()?));
    let (next_seq, inode) = (number(0)?, number(8)?);
    (slot == encode(next_seq, inode)).then_some((next_seq, inode))
}
