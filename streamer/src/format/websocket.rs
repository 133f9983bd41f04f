//! WebSocket text messages: `{"cursor":…,"lines":[…]}`. The cursor is null while more lines are
//! available.

use bytes::{BufMut, BytesMut};

/// Appends the output of `write` as a list element, separated by a comma.
pub(super) fn write(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    if !out.is_empty() {
        out.put_u8(b',');
    }
    write(out);
}

/// Returns a message with the lines of all lists.
pub(crate) fn message<'a>(cursor: Option<&str>, lists: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut message = match cursor {
        Some(cursor) => format!("{{\"cursor\":\"{cursor}\",\"lines\":["),
        None => "{\"cursor\":null,\"lines\":[".to_owned(),
    };
    let mut first = true;
    for list in lists.into_iter().filter(|list| !list.is_empty()) {
        if !std::mem::take(&mut first) {
            message.push(',');
        }
        message.push_str(&String::from_utf8_lossy(list));
    }
    message.push_str("]}");
    message
}
