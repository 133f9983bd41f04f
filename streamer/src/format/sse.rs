//! `text/event-stream`: one JSON object per event. IDs are cursors, with which browsers resume.
//!
//! *Source*: WHATWG HTML, "Server-sent events". Many clients ignore an `id` without `data`, so each
//! `id` belongs to an event with data: the last line of a write, or an event of its own.

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

/// Start of the ID of an answer that is complete. A browser reconnects with it, and the server
/// responds with 204, so that the browser stops.
pub(crate) const FINISHED: &str = "f.";

/// The ID of an answer that is complete.
pub(crate) const FINISHED_ID: &str = "f.1";

/// Returns the end of an event that sets the cursor. It replaces the last newline of the event.
pub(crate) fn id(cursor: &str) -> Bytes {
    format!("id: {cursor}\n\n").into()
}

/// Returns an event that carries nothing but the cursor.
pub(crate) fn cursor(cursor: &str) -> Bytes {
    format!("event: cursor\ndata: {{}}\nid: {cursor}\n\n").into()
}

/// Returns the last event of a response that the server ends. Browsers reconnect with its ID.
pub(crate) fn closing(id: Option<&str>) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: closing\ndata: {{}}\n\n").into()
}
