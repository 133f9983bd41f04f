//! A batch's data, compressed on its way: attribute `encoding`.
//!
//! *Source*: RFC 8878, one or more frames of Zstandard. A batch's lines are alike, so what is billed by the byte shrinks to a fraction; what does not, goes as it is.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use crate::wire::{MAX_MESSAGE_BYTES, Unreadable};

/// The attribute's value.
pub(crate) const ZSTD: &str = "zstd";

/// zstd's level. Of those that keep up with a collector it is the one that saves the most a nanosecond (docs/performance.md).
const LEVEL: i32 = 1;

/// Smaller data goes as it is: a request is billed as 1,000 bytes at least.
const MIN_BYTES: usize = 512;

thread_local! {
    // A context costs more to make than a small batch to compress; a thread has one, and room for what comes out of it.
    static COMPRESSOR: RefCell<Option<(Compressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Data, compressed. `None` where that saves less than an eighth.
pub(crate) fn compress(data: &[u8]) -> Option<Bytes> {
    if data.len() < MIN_BYTES {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|made| {
        if made.is_none() {
            *made = Some((Compressor::new(LEVEL).ok()?, Vec::new()));
        }
        let (compressor, out) = made.as_mut()?;
        out.clear();
        out.reserve(zstd::compress_bound(data.len()));
        compressor.compress_to_buffer(data, out).ok()?;
        (out.len() < data.len() / 8 * 7).then(|| Bytes::copy_from_slice(out))
    })
}

/// What was compressed.
///
/// # Errors
/// [`Unreadable`] for an encoding that is not known, data that is none, and for what would be larger than a message may be: nothing is allocated for what a frame
/// merely claims.
pub(crate) fn decompress(encoding: &str, data: &[u8]) -> Result<Bytes, Unreadable> {
    if encoding != ZSTD {
        return Err(Unreadable::Encoding(encoding.to_owned()));
    }
    let broken = |error: std::io::Error| Unreadable::Compressed(error.to_string());
    DECOMPRESSOR.with_borrow_mut(|made| {
        let decompressor = match made {
            Some(decompressor) => decompressor,
            None => made.insert(Decompressor::new().map_err(broken)?),
        };
        let whole = decompressor.decompress(data, MAX_MESSAGE_BYTES);
        whole.map(Bytes::from).map_err(broken)
    })
}
