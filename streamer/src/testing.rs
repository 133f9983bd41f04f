//! Streams and lines for this crate's own tests.

use std::sync::Arc;

use bus::{
    Epoch, PublishTime, StreamId, StreamMetadata, Timestamp,
    reassembly::{Event, EventKind},
};

use crate::frame::Line;

/// A process of the app `shop`.
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

/// A line as it came.
pub(crate) fn line<'a>(metadata: &'a StreamMetadata, seq: u64, raw: &'a [u8]) -> Line<'a> {
    Line {
        metadata,
        seq,
        part: None,
        late: false,
        published: PublishTime(0),
        raw,
    }
}

/// Lines printed at these milliseconds of 2026-11-23T07:00:00, saying their seqs, taken by the bus at `taken`.
pub(crate) fn event(metadata: &Arc<StreamMetadata>, seq: u64, millis: &[i64], taken: i64) -> Event {
    let mut data = String::new();
    for (seq, millis) in (seq..).zip(millis) {
        let time = Timestamp((BASE_MILLIS + millis) * 1_000_000);
        data.push_str(&format!("{time} {seq}\n"));
    }
    Event {
        metadata: Arc::clone(metadata),
        seq,
        published: at(taken),
        kind: EventKind::Lines {
            data: data.into(),
            lines: millis.len() as u64,
            part: None,
            late: false,
            message: None,
        },
    }
}

/// So many milliseconds after 2026-11-23T07:00:00, on the bus's time line.
pub(crate) fn at(millis: i64) -> PublishTime {
    PublishTime(u64::try_from((BASE_MILLIS + millis) * 1000).unwrap())
}

const BASE_MILLIS: i64 = 1_795_417_200_000;
