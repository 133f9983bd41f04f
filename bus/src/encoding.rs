//! Compression of a batch's data on the bus: attribute `encoding`.
//!
//! *Source*: RFC 8878, one or more Zstandard frames. Data that does not shrink is sent
//! uncompressed.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

/// Value of attribute `encoding`.
pub(crate) const ZSTD: &str = "zstd";

/// Compression level: the one that saves most bytes per CPU time among those that keep up with a
/// collector (docs/performance.md).
const LEVEL: i32 = 1;

/// Minimum data to compress: Pub/Sub bills at least 1,000 bytes per request.
const MIN_BYTES: usize = 512;

thread_local! {
    // Creating a context costs more than compressing a small batch, so each thread keeps one, with
    // an output buffer.
    static COMPRESSOR: RefCell<Option<(Compressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses data; `None` if that saves less than an eighth.
pub(crate) fn compress(data: &[u8]) -> Option<Bytes> {
    if data.len() < MIN_BYTES {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|context| {
        if context.is_none() {
            *context = Some((Compressor::new(LEVEL).ok()?, Vec::new()));
        }
        let (compressor, out) = context.as_mut()?;
        out.clear();
        out.reserve(zstd::compress_bound(data.len()));
        compressor.compress_to_buffer(data, out).ok()?;
        (out.len() < data.len() / 8 * 7).then(|| Bytes::copy_from_slice(out))
    })
}

/// Decompresses data of at most `max_bytes`.
///
/// # Errors
/// The cause: the data is corrupt or larger. At most `max_bytes` are allocated, whatever size a
/// frame claims.
pub(crate) fn decompress(data: &[u8], max_bytes: usize) -> Result<Bytes, String> {
    let cause = |error: std::io::Error| error.to_string();
    DECOMPRESSOR.with_borrow_mut(|context| {
        let decompressor = match context {
            Some(decompressor) => decompressor,
            None => context.insert(Decompressor::new().map_err(cause)?),
        };
        decompressor.decompress(data, max_bytes).map(Bytes::from).map_err(cause)
    })
}
