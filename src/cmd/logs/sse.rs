//! Server-sent events, as the streamer sends them.

use std::collections::VecDeque;

/// Bytes on their way to become events.
#[derive(Default)]
pub(super) struct Events {
    rest: Vec<u8>,
    begun: Event,
    whole: VecDeque<Event>,
}

/// An event: any of the three.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Where the reader is behind it.
    pub(super) id: Option<String>,
    /// A line.
    pub(super) data: Option<String>,
    /// The server ends the stream.
    pub(super) closing: bool,
}

impl Events {
    /// Takes bytes, cut anywhere.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(len) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[start..start + len]);
            start += len + 1;
            match line.split_once(": ") {
                Some(("id", id)) => self.begun.id = Some(id.to_owned()),
                Some(("data", data)) => self.begun.data = Some(data.to_owned()),
                Some(("event", name)) => self.begun.closing = name == "closing",
                _ if line.is_empty() => {
                    let event = std::mem::take(&mut self.begun);
                    self.whole.extend((event != Event::default()).then_some(event));
                }
                // A comment, or a field that a later server sends.
                _ => {}
            }
        }
        self.rest.drain(..start);
    }

    /// The next event that is whole.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.whole.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_wherever_their_bytes_are_cut() {
        let sent = b":\n\nid: abc\n\ndata: {\"a\": 1}\n\nid: def\nevent: closing\ndata: {}\n\n";
        for size in 1..sent.len() {
            let mut events = Events::default();
            let mut got = Vec::new();
            for bytes in sent.chunks(size) {
                events.push(bytes);
                got.extend(std::iter::from_fn(|| events.next()));
            }
            assert_eq!(got.len(), 3);
            assert_eq!(got[0].id.as_deref(), Some("abc"));
            assert_eq!(got[1].data.as_deref(), Some("{\"a\": 1}"));
            assert_eq!((got[2].id.as_deref(), got[2].closing), (Some("def"), true));
        }
    }
}
