//! Gzip responses, made of compressed blocks that all tails share (RFC 1951, RFC 1952).
//!
//! Each block ends in a full flush: on a byte boundary, and later data does not refer back into it.
//! So any sequence of blocks is a valid stream. Only the trailer belongs to one response; its CRC
//! is combined from those of the blocks.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

/// The header of a gzip member: deflate, without name, time and operating system.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty stored block, which decodes to nothing.
pub(crate) const HEARTBEAT: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// The empty block that ends a member's data.
const LAST: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// For log lines, this level saves nine tenths of what the best level saves, in a fraction of the
/// time.
const LEVEL: u32 = 4;

thread_local! {
    /// Holds some hundred kilobytes of tables, so it is created once per thread, not per block.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::new(LEVEL), false));
}

/// Compressed bytes that can appear anywhere in a gzip member.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    deflated: Bytes,
    crc: crc32fast::Hasher,
    /// Length of the uncompressed bytes.
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
    // If output was pending, a call may have written only that. The flush is complete after a call
    // that starts without pending output and leaves room in the buffer.
    let mut pending = false;
    loop {
        let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let flushed = compress.compress_vec(&plain[taken..], &mut out, FlushCompress::Full);
        let whole = usize::try_from(compress.total_in()).is_ok_and(|taken| taken == plain.len());
        let full = out.len() == out.capacity();
        if (whole && !full && !pending) || !matches!(flushed, Ok(Status::Ok)) {
            return out;
        }
        pending = full;
        if full {
            out.reserve(out.capacity());
        }
    }
}

/// The gzip member of one response.
#[derive(Default)]
pub(crate) struct Member {
    crc: crc32fast::Hasher,
    len: u32,
}

impl Member {
    /// Appends a block and returns its bytes.
    pub(crate) fn add(&mut self, block: &Block) -> Bytes {
        self.crc.combine(&block.crc);
        // ISIZE is the length modulo 2^32.
        self.len = self.len.wrapping_add(block.len as u32);
        block.deflated.clone()
    }

    /// Returns the end of the data and the trailer.
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
        fn any_sequence_of_blocks_is_one_member(blocks in vec(vec(any::<u8>(), 0..3000), 1..6), order in vec(any::<prop::sample::Index>(), 0..20)) {
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
            // This decoder checks length and checksum, and that nothing follows the member.
            let mut decoder = flate2::bufread::GzDecoder::new(sent.as_slice());
            decoder.read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, expected);
            prop_assert!(decoder.into_inner().is_empty());
        }

        #[test]
        fn a_block_is_complete_however_well_it_compresses(byte in any::<u8>(), len in 0usize..300_000, noise in any::<bool>()) {
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
