//! `application/x-ndjson`: a JSON object a line.

use bytes::{BufMut, Bytes, BytesMut};

/// What it is called.
pub(crate) const MEDIA_TYPE: &str = "application/x-ndjson";

/// Appends what `write` writes as a line.
pub(super) fn write(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    write(out);
    out.put_u8(b'\n');
}

/// The last line of a stream that the server ends: where to go on. The only line that is no log line.
pub(crate) fn closing(cursor: &str) -> Bytes {
    format!("{{\"closing\":true,\"cursor\":\"{cursor}\"}}\n").into()
}
