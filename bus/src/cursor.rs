//! A reader's place in an app, as opaque text that any reader can go on from.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use std::ops::Range;

use crate::{stream::StreamId, time::PublishTime};

/// The longest text a cursor is written as. Headers and queries hold it; a cursor that would be longer becomes coarse.
pub const MAX_CURSOR_CHARS: usize = 4096;

/// The first byte of what is encoded. One that a reader does not know is no cursor.
const VERSION: u8 = 1;

/// The bit that says that no streams are named though there are some.
const COARSE: u8 = 1;

/// The most bytes that four kilobytes of base64 hold.
const MAX_BYTES: usize = MAX_CURSOR_CHARS / 4 * 3;

/// Where a reader is in an app, on the bus's time line and in every stream.
///
/// All that was published before [`before`](Self::before) is dealt with. Of what was published since, that which [`streams`](Self::streams) says. A stream that is not
/// named: new.
///
/// *Shape*: base64url without padding of: the version; a byte of flags; `before` in microseconds; the number of streams; for each its key in eight bytes, its next seq, the
/// number of its holes, and for each hole how far it begins behind the last one's end and how long it is. Numbers are LEB128. At most [`MAX_CURSOR_CHARS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// All that the bus took before this is dealt with.
    pub before: PublishTime,
    /// How far each stream is dealt with that spoke since then.
    pub streams: Vec<(StreamKey, Position)>,
    /// The streams did not fit: what was published since `before` may come again.
    pub coarse: bool,
}

/// A stream's id in eight bytes: FNV-1a of its text. A cursor names hundreds of streams in the room that twenty ids would take.
///
/// The epoch's random bits are in it, so two streams of an app share a key as rarely as chance has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(pub u64);

/// How far a stream is dealt with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Everything below is dealt with, save the holes.
    pub next: u64,
    /// Seqs below that were told to be missing and may come yet: sorted, apart, none empty.
    pub holes: Vec<Range<u64>>,
}

/// What is wrong with a text that should be a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this service")]
pub struct InvalidCursor;

impl StreamKey {
    /// The key of a stream.
    pub fn of(stream: &StreamId) -> Self {
        // FNV-1a, 64 bits: stable wherever and whenever it is computed, which a standard hasher is not.
        let hash = stream.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }
}

impl Cursor {
    /// The cursor as text. Where the streams do not fit, coarse.
    pub fn encode(&self) -> String {
        let mut out = vec![VERSION, u8::from(self.coarse)];
        write_number(&mut out, self.before.0);
        let head = out.len();
        write_number(&mut out, self.streams.len() as u64);
        for (key, position) in &self.streams {
            out.extend_from_slice(&key.0.to_be_bytes());
            write_number(&mut out, position.next);
            write_number(&mut out, position.holes.len() as u64);
            let mut end = 0;
            for hole in &position.holes {
                write_number(&mut out, hole.start - end);
                write_number(&mut out, hole.end - hole.start);
                end = hole.end;
            }
            if out.len() > MAX_BYTES {
                out.truncate(head);
                out[1] |= COARSE;
                write_number(&mut out, 0);
                break;
            }
        }
        URL_SAFE_NO_PAD.encode(out)
    }

    /// Reads a cursor.
    ///
    /// # Errors
    /// [`InvalidCursor`] for whatever [`encode`](Self::encode) does not write.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        if text.len() > MAX_CURSOR_CHARS {
            return Err(InvalidCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let mut rest = bytes.as_slice();
        Self::read(&mut rest).filter(|_| rest.is_empty()).ok_or(InvalidCursor)
    }

    fn read(rest: &mut &[u8]) -> Option<Self> {
        let (VERSION, flags @ (0 | COARSE)) = (read_byte(rest)?, read_byte(rest)?) else {
            return None;
        };
        let mut cursor = Self {
            before: PublishTime(read_number(rest)?),
            streams: Vec::new(),
            coarse: flags == COARSE,
        };
        // Nothing is allocated for what a number claims: each stream has to be there.
        for _ in 0..read_number(rest)? {
            let (key, behind) = rest.split_first_chunk()?;
            *rest = behind;
            cursor
                .streams
                .push((StreamKey(u64::from_be_bytes(*key)), Position::read(rest)?));
        }
        (!cursor.coarse || cursor.streams.is_empty()).then_some(cursor)
    }
}

impl Position {
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let next = read_number(rest)?;
        let mut position = Self {
            next,
            holes: Vec::new(),
        };
        let mut end = 0u64;
        for at in 0..read_number(rest)? {
            let (behind, len) = (read_number(rest)?, read_number(rest)?);
            let start = end.checked_add(behind)?;
            let touches = at > 0 && behind == 0;
            end = start.checked_add(len).filter(|end| *end <= next)?;
            if len == 0 || touches {
                return None;
            }
            position.holes.push(start..end);
        }
        Some(position)
    }
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A number in the one form in which it is written: no longer than need be, and within 64 bits.
fn read_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = read_byte(rest)?;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return (byte != 0 || shift == 0).then_some(number);
        }
    }
    None
}

fn read_byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, behind) = rest.split_first()?;
    *rest = behind;
    Some(*byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn positions() -> impl Strategy<Value = Position> {
        // Holes as steps: how far apart, how long; then how far the frontier is.
        (vec((1u64..1_000_000, 1u64..1_000_000), 0..4), 0u64..1 << 60).prop_map(|(steps, ahead)| {
            let mut position = Position::default();
            for (apart, len) in steps {
                let start = position.next + apart;
                position.holes.push(start..start + len);
                position.next = start + len;
            }
            position.next += ahead;
            position
        })
    }

    fn cursors() -> impl Strategy<Value = Cursor> {
        let streams = vec((any::<u64>().prop_map(StreamKey), positions()), 0..60);
        (any::<u64>(), streams).prop_map(|(before, streams)| Cursor {
            before: PublishTime(before),
            streams,
            coarse: false,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cursor in cursors()) {
            let text = cursor.encode();
            prop_assert!(text.len() <= MAX_CURSOR_CHARS);
            prop_assert_eq!(Cursor::decode(&text), Ok(cursor));
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,200}") {
            let _ = Cursor::decode(&text);
        }

        #[test]
        fn no_bytes_are_too_strange_and_what_is_read_is_written_alike(mut bytes in vec(any::<u8>(), 0..200)) {
            bytes.splice(0..0, [VERSION, 0]);
            let text = URL_SAFE_NO_PAD.encode(&bytes);
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }

        #[test]
        fn a_cursor_that_was_tampered_with_is_another_or_none(cursor in cursors(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = URL_SAFE_NO_PAD.decode(cursor.encode()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Cursor::decode(&URL_SAFE_NO_PAD.encode(bytes)) {
                for (_, position) in read.streams {
                    prop_assert!(position.holes.iter().all(|hole| hole.start < hole.end && hole.end <= position.next));
                    prop_assert!(position.holes.windows(2).all(|pair| pair[0].end < pair[1].start));
                }
            }
        }
    }

    #[test]
    fn a_cursor_with_too_many_streams_carries_only_its_time() {
        let position = Position {
            next: 1 << 40,
            holes: Vec::new(),
        };
        let cursor = Cursor {
            before: PublishTime(1_800_000_000_000_000),
            streams: (0..2000).map(|n| (StreamKey(n), position.clone())).collect(),
            coarse: false,
        };
        let text = cursor.encode();
        assert!(text.len() < 100);
        let read = Cursor::decode(&text).unwrap();
        assert_eq!((read.before, read.coarse, read.streams.len()), (cursor.before, true, 0));
        assert_eq!(read.encode(), text, "coarse stays coarse");
    }

    #[test]
    fn a_stream_has_the_same_key_everywhere() {
        let id = "uid/web/c0ffee/1795417200000-00000001".parse().unwrap();
        assert_eq!(StreamKey::of(&id), StreamKey(0x5182_2c8c_1cb2_3de1));
    }
}
