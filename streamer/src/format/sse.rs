//! `text/event-stream`: a JSON object an event; its id is a cursor, with which a browser goes on by itself.
//!
//! *Source*: WHATWG HTML, "Server-sent events". An id without data sets what `Last-Event-ID` will say, and fires no event.

use bytes::{BufMut, Bytes, BytesMut};

/// What it is called.
pub(crate) const MEDIA_TYPE: &str = "text/event-stream";

/// A comment: keeps the connection from being taken for dead, and is seen by nobody.
pub(crate) const HEARTBEAT: &[u8] = b":\n\n";

/// Appends what `write` writes as an event.
pub(super) fn write(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    out.put_slice(b"data: ");
    // JSON has no newline outside its escapes.
    write(out);
    out.put_slice(b"\n\n");
}

/// Where a reader is who has read all before this.
pub(crate) fn id(cursor: &str) -> Bytes {
    format!("id: {cursor}\n\n").into()
}

/// The last event of a stream that the server ends. A browser comes again by itself, with the id.
pub(crate) fn closing(cursor: Option<&str>) -> Bytes {
    let id = cursor.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
    format!("{id}event: closing\ndata: {{}}\n\n").into()
}
