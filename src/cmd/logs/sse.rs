//! Server-sent events, as the streamer sends them.

use std::collections::VecDeque;

/// Splits a response body into events.
#[derive(Default)]
pub(super) struct EventDecoder {
    buffer: Vec<u8>,
    partial: Event,
    complete: VecDeque<Event>,
}

/// An event; any combination of the fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// The cursor after the event.
    pub(super) id: Option<String>,
    /// A line of the app.
    pub(super) data: Option<String>,
    /// Whether the server ends the stream.
    pub(super) closing: bool,
    /// Whether the event carries nothing but the cursor.
    is_cursor: bool,
}

impl EventDecoder {
    /// Adds bytes, which may end anywhere in an event.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(len) = self.buffer[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[start..start + len]);
            start += len + 1;
            match line.split_once(": ") {
                Some(("id", id)) => self.partial.id = Some(id.to_owned()),
                Some(("data", data)) => self.partial.data = Some(data.to_owned()),
                Some(("event", name)) => {
                    self.partial.closing = name == "closing";
                    self.partial.is_cursor = name == "cursor";
                }
                _ if line.is_empty() => {
                    let mut event = std::mem::take(&mut self.partial);
                    event.data = event.data.filter(|_| !event.is_cursor);
                    self.complete.extend((event != Event::default()).then_some(event));
                }
                // Comments and unknown fields are ignored, as the specification requires.
                _ => {}
            }
        }
        self.buffer.drain(..start);
    }

    /// Returns the next complete event.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.complete.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_complete_wherever_their_bytes_are_cut() {
        let sent =
            b":\n\nid: abc\nevent: cursor\ndata: {}\n\ndata: {\"a\": 1}\n\nid: def\nevent: closing\ndata: {}\n\n";
        for size in 1..sent.len() {
            let mut decoder = EventDecoder::default();
            let mut events = Vec::new();
            for bytes in sent.chunks(size) {
                decoder.push(bytes);
                events.extend(std::iter::from_fn(|| decoder.next()));
            }
            assert_eq!(events.len(), 3);
            assert_eq!((events[0].id.as_deref(), &events[0].data), (Some("abc"), &None));
            assert_eq!(events[1].data.as_deref(), Some("{\"a\": 1}"));
            assert_eq!((events[2].id.as_deref(), events[2].closing), (Some("def"), true));
        }
    }
}
