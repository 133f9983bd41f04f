//! `application/x-ndjson`: one JSON object per line.

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) const MEDIA_TYPE: &str = "application/x-ndjson";

/// Appends the output of `write` as a line.
pub(super) fn write(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    write(out);
    out.put_u8(b'\n');
}

/// Returns the last line of a response that the server ends. It contains the cursor to resume from
/// and is the only line that is no log line.
pub(crate) fn closing(cursor: &str) -> Bytes {
    format!("{{\"closing\":true,\"cursor\":\"{cursor}\"}}\n").into()
}
