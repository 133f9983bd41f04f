//! Slices of a batch's lines.

use std::ops::Range;

use bytes::Bytes;

/// Returns the lines of `data` with these indices, without copying. `total` is the number of lines.
pub(super) fn lines(data: &Bytes, lines: Range<u64>, total: u64) -> Bytes {
    let start = offset(data, lines.start, total);
    let end = start + offset(&data[start..], lines.end - lines.start, total - lines.start);
    data.slice(start..end)
}

/// Returns the offset at which a line starts.
fn offset(data: &[u8], line: u64, total: u64) -> usize {
    match line {
        0 => 0,
        n if n >= total => data.len(),
        n => {
            let nth = usize::try_from(n - 1).unwrap_or(usize::MAX);
            memchr::memchr_iter(b'\n', data)
                .nth(nth)
                .map_or(data.len(), |newline| newline + 1)
        }
    }
}
