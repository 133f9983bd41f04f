//! `text/event-stream`: one JSON object per event. IDs are cursors, with which browsers resume.
//!
//! *Source*: WHATWG HTML, "Server-sent events". An `id` without `data` sets the next
//! `Last-Event-ID` and dispatches no event.

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) const MEDIA_TYPE: &str = "text/event-stream";

/// A comment, which keeps the connection alive and dispatches no event.
pub(crate) const HEARTBEAT: &[u8] = b":\n\n";

/// Appends the output of `write` as an event.
pub(super) fn write(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    out.put_slice(b"data: ");
    // JSON output contains no raw newline.
    write(out);
    out.put_slice(b"\n\n");
}

/// Returns the field that sets the cursor.
pub(crate) fn id(cursor: &str) -> Bytes {
    format!("id: {cursor}\n\n").into()
}

/// Returns the last event of a response that the server ends. Browsers reconnect with its ID.
pub(crate) fn closing(cursor: Option<&str>) -> Bytes {
    let id = cursor.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
    format!("{id}event: closing\ndata: {{}}\n\n").into()
}
