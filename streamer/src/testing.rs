//! Streams and lines for this crate's own tests.

use std::sync::Arc;

use bus::{
    Epoch, Origin, Published, StreamId, Timestamp,
    reassembly::{Event, What},
};

use crate::frame::Line;

/// A process of the app `shop`.
pub(crate) fn origin(process: &str) -> Arc<Origin> {
    let epoch = Epoch { millis: 1, random: 1 };
    Arc::new(Origin {
        app: "shop".parse().unwrap(),
        process: process.to_owned(),
        stream: StreamId::new(&format!("uid-{process}"), "web", "id", epoch).unwrap(),
        node: String::new(),
        source: "app".to_owned(),
        fd: None,
        about: None,
    })
}

/// A line as it came.
pub(crate) fn line<'a>(origin: &'a Origin, seq: u64, raw: &'a [u8]) -> Line<'a> {
    Line {
        origin,
        seq,
        part: None,
        late: false,
        published: Published(0),
        raw,
    }
}

/// Lines printed at these milliseconds of 2026-11-23T07:00:00, saying their seqs, taken by the bus at `taken`.
pub(crate) fn event(origin: &Arc<Origin>, seq: u64, millis: &[i64], taken: i64) -> Event {
    let mut data = String::new();
    for (seq, millis) in (seq..).zip(millis) {
        let time = Timestamp((BASE_MILLIS + millis) * 1_000_000);
        data.push_str(&format!("{time} {seq}\n"));
    }
    Event {
        origin: Arc::clone(origin),
        seq,
        published: at(taken),
        what: What::Lines {
            data: data.into(),
            lines: millis.len() as u64,
            part: None,
            late: false,
        },
    }
}

/// So many milliseconds after 2026-11-23T07:00:00, on the bus's time line.
pub(crate) fn at(millis: i64) -> Published {
    Published(u64::try_from((BASE_MILLIS + millis) * 1000).unwrap())
}

const BASE_MILLIS: i64 = 1_795_417_200_000;
