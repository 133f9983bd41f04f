//! A batch's data, compressed on its way: attribute `encoding`.
//!
//! *Source*: RFC 8878, one or more frames of Zstandard. A batch's lines are alike, so what is billed by the byte shrinks to a fraction; what does not, goes as it is.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

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

/// What was compressed, at most `most` bytes.
///
/// # Errors
/// Why it cannot be read: it is none, or would be larger. Whatever a frame claims to hold, no more than `most` is allocated for it.
pub(crate) fn decompress(data: &[u8], most: usize) -> Result<Bytes, String> {
    let why = |error: std::io::Error| error.to_string();
    DECOMPRESSOR.with_borrow_mut(|made| {
        let decompressor = match made {
            Some(decompressor) => decompressor,
            None => made.insert(Decompressor::new().map_err(why)?),
        };
        decompressor.decompress(data, most).map(Bytes::from).map_err(why)
    })
}
