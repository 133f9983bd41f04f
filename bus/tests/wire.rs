//! The batch format: batches round-trip, and no message makes a reader panic.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::sync::Arc;

use bus::{
    Batch, Content, Epoch, Fd, Gap, GapReason, Part, PlatformMessage, StreamId, StreamMetadata, Timestamp, Unreadable,
};
use bytes::Bytes;
use proptest::prelude::*;
use support::*;

fn read(attributes: &[(&str, String)], data: Bytes) -> Result<Batch, Unreadable> {
    let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Batch::from_message(&attributes, data)
}

fn time() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of((0i64..9_000_000_000_000_000_000).prop_map(Timestamp))
}

fn metadata() -> impl Strategy<Value = StreamMetadata> {
    let fd = prop::option::of(prop::sample::select(vec![Fd::Out, Fd::Err]));
    let names = (
        "[a-z][a-z0-9-]{0,20}[a-z0-9]",
        "[^\\x00]{1,40}",
        "[a-f0-9-]{36}",
        "[a-z]{1,10}",
        "[a-f0-9]{64}",
    );
    (
        names,
        any::<u64>(),
        any::<u32>(),
        fd,
        prop::option::of("[a-z0-9]{1,10}"),
    )
        .prop_map(
            |((app, process, uid, container, id), millis, random, fd, about)| StreamMetadata {
                app: app.parse().unwrap(),
                process,
                stream: StreamId::new(&uid, &container, &id, Epoch { millis, random }).unwrap(),
                node: "node-1".to_owned(),
                origin: "app".to_owned(),
                fd,
                about,
            },
        )
}

fn content() -> impl Strategy<Value = Content> {
    let line = prop::collection::vec(any::<u8>().prop_filter("one line", |byte| *byte != b'\n'), 0..40);
    let lines = prop::collection::vec(line, 1..10).prop_map(|lines| {
        let count = lines.len() as u64;
        let data: Vec<u8> = lines
            .into_iter()
            .flat_map(|line| line.into_iter().chain([b'\n']))
            .collect();
        Content::Lines {
            data: data.into(),
            lines: count,
            part: None,
        }
    });
    let part = prop::sample::select(vec![Part::More, Part::Last]).prop_map(|part| Content::Lines {
        data: Bytes::from_static(b"x\n"),
        lines: 1,
        part: Some(part),
    });
    let reasons = vec![
        GapReason::Away,
        GapReason::Spool,
        GapReason::Limit,
        GapReason::Other("newer reason".to_owned()),
    ];
    let gap = (any::<u32>(), prop::sample::select(reasons), time(), time()).prop_map(|(lines, reason, from, to)| {
        Content::Gap(Gap {
            lines: lines.into(),
            reason,
            from,
            to,
        })
    });
    let message = ("L[0-9]{2}", "[a-z_]{1,20}").prop_map(|(code, reason)| Content::Message {
        data: Bytes::from_static(b"2026-11-23T07:00:00.123456789Z x\n"),
        message: Arc::new(PlatformMessage { code, reason }),
    });
    prop_oneof![
        lines,
        part,
        gap,
        message,
        Just(Content::End),
        "[a-z0-9]{8}".prop_map(Content::Marker)
    ]
}

proptest! {
    #[test]
    fn a_batch_round_trips(metadata in metadata(), seq in 0..u64::MAX / 2, content in content()) {
        let batch = Batch { metadata: Arc::new(metadata), seq, content };
        let data = Bytes::copy_from_slice(batch.data());
        prop_assert_eq!(read(&batch.attributes(), data), Ok(batch));
    }

    #[test]
    fn a_compressed_batch_round_trips(line in "[ -~]{1,40}", count in 1u64..500, part in any::<bool>()) {
        let content = Content::Lines { data: format!("{line}\n").repeat(count as usize).into(), lines: count, part: (part && count == 1).then_some(Part::More) };
        let batch = Batch { content, ..lines(&old_stream("web"), 0, 1) };
        let (attributes, data) = batch.compressed();
        let is_marked = attributes.iter().any(|(name, value)| *name == "encoding" && value == "zstd");
        prop_assert_eq!(is_marked, data.len() < batch.data().len());
        prop_assert_eq!(read(&attributes, data), Ok(batch));
    }

    #[test]
    fn decoding_never_panics(change in 0usize..8, value in ".{0,30}", data in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut attributes = lines(&old_stream("web"), 0, 3).attributes();
        attributes[change].1 = value;
        let _ = read(&attributes, data.into());
    }
}

#[test]
fn an_invalid_message_is_rejected_with_the_reason() {
    let good = lines(&old_stream("web"), 0, 3);
    let data = Bytes::copy_from_slice(good.data());
    let with = |name: &'static str, value: &str| {
        let mut attributes = good.attributes();
        attributes.retain(|(attribute, _)| *attribute != name);
        attributes.push((name, value.to_owned()));
        read(&attributes, data.clone()).unwrap_err()
    };
    assert_eq!(with("v", "3"), Unreadable::Version("3".to_owned()));
    assert_eq!(with("encoding", "br"), Unreadable::Encoding("br".to_owned()));
    assert_eq!(with("lines", "4"), Unreadable::Lines { stated: 4, found: 3 });
    assert!(matches!(
        with("seq", &u64::MAX.to_string()),
        Unreadable::Attribute { name: "seq", .. }
    ));
    assert!(matches!(
        with("stream", "a/b"),
        Unreadable::Attribute { name: "stream", .. }
    ));
    assert!(matches!(with("app", "-"), Unreadable::Attribute { name: "app", .. }));
    let unterminated = read(&good.attributes(), data.slice(..data.len() - 1));
    assert_eq!(unterminated.unwrap_err(), Unreadable::Lines { stated: 3, found: 2 });
}

#[test]
fn corrupt_or_oversized_compressed_data_is_rejected_without_allocating_it() {
    let long = Batch {
        content: Content::Lines {
            data: "2026-11-23T07:00:00.123456789Z GET /cart 200\n".repeat(100).into(),
            lines: 100,
            part: None,
        },
        ..lines(&old_stream("web"), 0, 3)
    };
    let (attributes, data) = long.compressed();
    assert!(data.len() * 4 < long.data().len(), "{}", data.len());
    let refused = |data: Bytes| match read(&attributes, data) {
        Err(Unreadable::Compressed(reason)) => reason,
        other => panic!("{other:?}"),
    };
    refused(data.slice(..data.len() - 1));
    refused(Bytes::from_static(b"2026-11-23T07:00:00Z plain\n"));
    // A small message that decompresses to 11 MB, and a frame of 16 bytes that claims to hold 1
    // PiB.
    let bomb = zstd::bulk::compress(&vec![b'\n'; 11_000_000], 1).unwrap();
    assert!(bomb.len() < 2_000);
    refused(bomb.into());
    let mut claim = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    claim.extend((1u64 << 50).to_le_bytes());
    claim.extend([1, 0, 0]);
    refused(claim.into());
    // Two frames without content sizes are valid.
    let text = long.data();
    let mut streamed = zstd::stream::encode_all(&text[..100], 3).unwrap();
    streamed.extend(zstd::stream::encode_all(&text[100..], 3).unwrap());
    assert_eq!(read(&attributes, streamed.into()), Ok(long));
}

#[test]
fn unknown_attributes_are_ignored_and_a_platform_message_is_one_line() {
    let batch = Batch {
        content: bus::notice::rate_limited(1000, 2000).into_content(Timestamp(0)),
        ..lines(&old_stream("tributary"), 0, 1)
    };
    let data = Bytes::copy_from_slice(batch.data());
    let mut attributes = batch.attributes();
    attributes.push(("newer", "value".to_owned()));
    assert_eq!(read(&attributes, data.clone()), Ok(batch));
    attributes.push(("part", "last".to_owned()));
    assert!(matches!(
        read(&attributes, data),
        Err(Unreadable::Attribute { name: "code", .. })
    ));
}
