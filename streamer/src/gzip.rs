//! One gzip member a response, made of blocks that all readers share (RFC 1951, RFC 1952).
//!
//! Each block ends in a full flush: on a byte's edge, and nothing behind it refers back into it. So whichever blocks a reader gets, one behind the other they are a
//! stream. Only the trailer is a reader's own: the CRC of all it got is combined from the blocks'.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

/// The member's head: deflate, no name, no time, of no known system.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty stored block: a decoder takes it and gives nothing out. The only heartbeat that nobody sees.
pub(crate) const HEARTBEAT: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// The empty block with which a member's data ends.
const LAST: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Log lines repeat themselves: this level takes nine tenths of what the best takes, at a fraction of the time.
const LEVEL: u32 = 4;

thread_local! {
    /// Some hundred kilobytes of tables, made once a thread rather than once a block.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::new(LEVEL), false));
}

/// Bytes compressed so that they can stand anywhere in a member.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    deflated: Bytes,
    crc: crc32fast::Hasher,
    /// Of what was compressed.
    len: usize,
}

impl Block {
    pub(crate) fn new(plain: &[u8]) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(plain);
        Self {
            deflated: COMPRESS.with_borrow_mut(|compress| deflate(compress, plain)).into(),
            crc,
            len: plain.len(),
        }
    }
}

fn deflate(compress: &mut Compress, plain: &[u8]) -> Vec<u8> {
    compress.reset();
    let mut out = Vec::with_capacity(plain.len() / 4 + 64);
    // A call for which output was waiting may have given out that alone: only one that begins with none waiting, and ends with room to spare, has flushed.
    let mut waiting = false;
    loop {
        let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let flushed = compress.compress_vec(&plain[taken..], &mut out, FlushCompress::Full);
        let whole = usize::try_from(compress.total_in()).is_ok_and(|taken| taken == plain.len());
        let full = out.len() == out.capacity();
        if (whole && !full && !waiting) || !matches!(flushed, Ok(Status::Ok)) {
            return out;
        }
        waiting = full;
        if full {
            out.reserve(out.capacity());
        }
    }
}

/// One reader's member.
#[derive(Default)]
pub(crate) struct Member {
    crc: crc32fast::Hasher,
    len: u32,
}

impl Member {
    /// A block's bytes, counted.
    pub(crate) fn add(&mut self, block: &Block) -> Bytes {
        self.crc.combine(&block.crc);
        // ISIZE is the length modulo 2^32.
        self.len = self.len.wrapping_add(block.len as u32);
        block.deflated.clone()
    }

    /// What stands at the end.
    pub(crate) fn finish(self) -> Bytes {
        let mut end = LAST.to_vec();
        end.extend_from_slice(&self.crc.finalize().to_le_bytes());
        end.extend_from_slice(&self.len.to_le_bytes());
        end.into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn any_blocks_in_any_order_are_one_member(blocks in vec(vec(any::<u8>(), 0..3000), 1..6), order in vec(any::<prop::sample::Index>(), 0..20)) {
            let made: Vec<Block> = blocks.iter().map(|plain| Block::new(plain)).collect();
            let (mut sent, mut expected) = (HEADER.to_vec(), Vec::new());
            let mut member = Member::default();
            for at in order {
                let at = at.index(made.len());
                sent.extend_from_slice(&member.add(&made[at]));
                sent.extend_from_slice(&HEARTBEAT);
                expected.extend_from_slice(&blocks[at]);
            }
            sent.extend_from_slice(&member.finish());
            let mut read = Vec::new();
            // The strict decoder: one member, its length and checksum right, nothing behind it.
            let mut decoder = flate2::bufread::GzDecoder::new(sent.as_slice());
            decoder.read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, expected);
            prop_assert!(decoder.into_inner().is_empty());
        }

        #[test]
        fn a_block_that_compresses_badly_or_well_is_whole(byte in any::<u8>(), len in 0usize..300_000, noise in any::<bool>()) {
            let mut state = 1u32;
            let plain: Vec<u8> = (0..len).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if noise { (state >> 24) as u8 } else { byte }
            }).collect();
            let block = Block::new(&plain);
            prop_assert!(block.deflated.ends_with(&[0, 0, 0xff, 0xff]), "ends in a flush");
            let mut read = Vec::new();
            flate2::bufread::DeflateDecoder::new([&block.deflated[..], &LAST].concat().as_slice()).read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, plain);
        }
    }
}
