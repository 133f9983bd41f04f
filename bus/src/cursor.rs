//! A reader's resume position in an app, as opaque text that any replica accepts.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{progress::StreamProgress, stream_id::StreamId, time::PublishTime};

/// Maximum length of a cursor's text. Longer cursors do not fit headers and query strings, so they
/// are written without their streams ([coarse](Cursor::coarse)).
pub const MAX_CURSOR_CHARS: usize = 4096;

/// First byte of the encoded form, which every server of the release before this one can read.
const VERSION: u8 = 1;

/// The version that the next release may write: the same fields, and behind them extensions that
/// this release ignores. So a cursor survives a rollout in both directions.
const NEXT_VERSION: u8 = 2;

/// Flag of a cursor whose streams were omitted.
const COARSE: u8 = 1;

/// Number of bytes that base64 encodes as [`MAX_CURSOR_CHARS`].
const MAX_BYTES: usize = MAX_CURSOR_CHARS / 4 * 3;

/// A reader's resume position in an app: a publish time, and its progress in recent streams.
///
/// Everything published before [`before`](Self::before) is processed. Of batches published since,
/// those that [`streams`](Self::streams) covers are processed. A stream that is not listed is new.
///
/// *Shape*: base64url without padding of: the version (1 byte); flags (1 byte); `before` in
/// microseconds; the number of streams; per stream its key (8 bytes, big-endian), its next
/// sequence number, its number of gaps, and per gap its distance from the end of the previous gap
/// and its length. Numbers are LEB128 in their shortest form. At most [`MAX_CURSOR_CHARS`].
/// Version 1 is written; versions 1 and 2 are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Everything the bus accepted before this time is processed.
    pub before: PublishTime,
    /// Progress in each stream that published since then.
    pub streams: Vec<(StreamKey, StreamProgress)>,
    /// The streams did not fit: lines published since `before` may be repeated.
    pub coarse: bool,
}

/// Hash of a stream id, which keeps cursors short: FNV-1a, 64 bits, of its text.
///
/// The hash is part of the cursor's text and so must never change. The id contains 32 random bits
/// per epoch; two streams of an app collide only by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(pub u64);

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this service; use one that it returned")]
pub struct InvalidCursor;

impl StreamKey {
    /// Returns the key of a stream.
    pub fn of(stream: &StreamId) -> Self {
        let hash = stream.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }
}

impl Cursor {
    /// Encodes the cursor as text; coarse if the streams do not fit.
    pub fn encode(&self) -> String {
        let mut out = vec![VERSION, u8::from(self.coarse)];
        write_number(&mut out, self.before.0);
        let head = out.len();
        write_number(&mut out, self.streams.len() as u64);
        for (key, progress) in &self.streams {
            out.extend_from_slice(&key.0.to_be_bytes());
            write_number(&mut out, progress.next());
            write_number(&mut out, progress.gaps().count() as u64);
            let mut end = 0;
            for gap in progress.gaps() {
                write_number(&mut out, gap.start - end);
                write_number(&mut out, gap.end - gap.start);
                end = gap.end;
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

    /// Decodes a cursor.
    ///
    /// # Errors
    /// [`InvalidCursor`] for text that [`encode`](Self::encode) never returns.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        if text.len() > MAX_CURSOR_CHARS {
            return Err(InvalidCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let mut rest = bytes.as_slice();
        let is_extensible = rest.first() == Some(&NEXT_VERSION);
        let read = Self::read(&mut rest).filter(|_| rest.is_empty() || is_extensible);
        read.ok_or(InvalidCursor)
    }

    fn read(rest: &mut &[u8]) -> Option<Self> {
        let (VERSION | NEXT_VERSION, flags @ (0 | COARSE)) = (read_byte(rest)?, read_byte(rest)?) else {
            return None;
        };
        let mut cursor = Self {
            before: PublishTime(read_number(rest)?),
            streams: Vec::new(),
            coarse: flags == COARSE,
        };
        // The count is not trusted with an allocation: each stream must be present.
        for _ in 0..read_number(rest)? {
            let (key, after) = rest.split_first_chunk()?;
            *rest = after;
            let key = StreamKey(u64::from_be_bytes(*key));
            cursor.streams.push((key, read_progress(rest)?));
        }
        (!cursor.coarse || cursor.streams.is_empty()).then_some(cursor)
    }
}

fn read_progress(rest: &mut &[u8]) -> Option<StreamProgress> {
    let next = read_number(rest)?;
    let (mut gaps, mut end) = (Vec::new(), 0u64);
    for at in 0..read_number(rest)? {
        let (distance, len) = (read_number(rest)?, read_number(rest)?);
        let start = end.checked_add(distance)?;
        let touches = at > 0 && distance == 0;
        end = start.checked_add(len).filter(|end| *end <= next)?;
        if len == 0 || touches {
            return None;
        }
        gaps.push(start..end);
    }
    Some(StreamProgress::new(next, gaps))
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number of at most 64 bits; `None` unless it has its shortest form.
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
    let (byte, after) = rest.split_first()?;
    *rest = after;
    Some(*byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn progress() -> impl Strategy<Value = StreamProgress> {
        // Gaps as (distance, length), then the distance from the last gap to the next sequence
        // number.
        (vec((1u64..1_000_000, 1u64..1_000_000), 0..4), 0u64..1 << 60).prop_map(|(steps, ahead)| {
            let (mut gaps, mut end) = (Vec::new(), 0);
            for (distance, len) in steps {
                gaps.push(end + distance..end + distance + len);
                end += distance + len;
            }
            StreamProgress::new(end + ahead, gaps)
        })
    }

    fn cursors() -> impl Strategy<Value = Cursor> {
        let streams = vec((any::<u64>().prop_map(StreamKey), progress()), 0..60);
        (any::<u64>(), streams).prop_map(|(before, streams)| Cursor {
            before: PublishTime(before),
            streams,
            coarse: false,
        })
    }

    proptest! {
        #[test]
        fn a_cursor_round_trips(cursor in cursors()) {
            let text = cursor.encode();
            prop_assert!(text.len() <= MAX_CURSOR_CHARS);
            prop_assert_eq!(Cursor::decode(&text), Ok(cursor));
        }

        #[test]
        fn decoding_never_panics_on_text(text in ".{0,200}") {
            let _ = Cursor::decode(&text);
        }

        #[test]
        fn a_decodable_cursor_has_one_encoding(mut bytes in vec(any::<u8>(), 0..200)) {
            bytes.splice(0..0, [VERSION, 0]);
            let text = URL_SAFE_NO_PAD.encode(&bytes);
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }

        #[test]
        fn a_modified_cursor_keeps_the_invariants_or_is_rejected(cursor in cursors(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = URL_SAFE_NO_PAD.decode(cursor.encode()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Cursor::decode(&URL_SAFE_NO_PAD.encode(bytes)) {
                for (_, progress) in read.streams {
                    let gaps: Vec<_> = progress.gaps().collect();
                    prop_assert!(gaps.iter().all(|gap| gap.start < gap.end && gap.end <= progress.next()));
                    prop_assert!(gaps.windows(2).all(|pair| pair[0].end < pair[1].start));
                }
            }
        }
    }

    #[test]
    fn a_cursor_with_too_many_streams_is_coarse() {
        let progress = StreamProgress::new(1 << 40, []);
        let cursor = Cursor {
            before: PublishTime(1_800_000_000_000_000),
            streams: (0..2000).map(|n| (StreamKey(n), progress.clone())).collect(),
            coarse: false,
        };
        let text = cursor.encode();
        assert!(text.len() < 100);
        let read = Cursor::decode(&text).unwrap();
        assert_eq!((read.before, read.coarse, read.streams.len()), (cursor.before, true, 0));
        assert_eq!(read.encode(), text, "a coarse cursor stays coarse");
    }

    #[test]
    fn a_cursor_of_the_next_release_is_read_after_a_rollback() {
        let cursor = Cursor {
            before: PublishTime(1_800_000_000_000_000),
            streams: vec![(StreamKey(7), StreamProgress::new(12, std::iter::once(3..5)))],
            coarse: false,
        };
        let mut bytes = URL_SAFE_NO_PAD.decode(cursor.encode()).unwrap();
        bytes[0] = NEXT_VERSION;
        assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(&bytes)), Ok(cursor.clone()));
        bytes.extend(b"extension");
        assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(&bytes)), Ok(cursor));
        bytes[0] = VERSION;
        assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(&bytes)), Err(InvalidCursor));
        bytes[0] = NEXT_VERSION + 1;
        assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(&bytes)), Err(InvalidCursor));
    }

    #[test]
    fn the_key_of_a_stream_never_changes() {
        let id = "uid/web/c0ffee/1795417200000-00000001".parse().unwrap();
        assert_eq!(StreamKey::of(&id), StreamKey(0x5182_2c8c_1cb2_3de1));
    }
}
