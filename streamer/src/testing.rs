//! Streams and lines for unit tests.

use std::sync::Arc;

use bus::{
    Epoch, PublishTime, StreamId, StreamMetadata, Timestamp,
    reassembly::{Event, EventKind},
};

use crate::line::Line;

/// Returns a stream of a process of the app `shop`.
pub(crate) fn metadata(process: &str) -> Arc<StreamMetadata> {
    let epoch = Epoch { millis: 1, random: 1 };
    Arc::new(StreamMetadata {
        app: "shop".parse().unwrap(),
        process: process.to_owned(),
        stream: StreamId::new(&format!("uid-{process}"), "web", "id", epoch).unwrap(),
        node: String::new(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    })
}

/// Returns a line with these raw bytes.
pub(crate) fn line<'a>(metadata: &'a StreamMetadata, seq: u64, raw: &'a [u8]) -> Line<'a> {
    Line {
        metadata,
        seq,
        part: None,
        late: false,
        message: None,
        published: PublishTime(0),
        raw,
    }
}

/// Returns an event with one line per element of `millis`: its timestamp in milliseconds after
/// 2026-11-23T07:00:00. The text of a line is its sequence number. `published` is in the same unit.
pub(crate) fn event(metadata: &Arc<StreamMetadata>, seq: u64, millis: &[i64], published: i64) -> Event {
    let mut data = String::new();
    for (seq, millis) in (seq..).zip(millis) {
        let time = Timestamp((BASE_MILLIS + millis) * 1_000_000);
        data.push_str(&format!("{time} {seq}\n"));
    }
    Event {
        metadata: Arc::clone(metadata),
        seq,
        published: at(published),
        kind: EventKind::Lines {
            data: data.into(),
            lines: millis.len() as u64,
            part: None,
            late: false,
            message: None,
        },
    }
}

/// Returns the publish time that many milliseconds after 2026-11-23T07:00:00.
pub(crate) fn at(millis: i64) -> PublishTime {
    PublishTime(u64::try_from((BASE_MILLIS + millis) * 1000).unwrap())
}

const BASE_MILLIS: i64 = 1_795_417_200_000;
