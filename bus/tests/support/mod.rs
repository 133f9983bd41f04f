//! Streams, batches and deliveries whose line `n` has the text `n`.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{sync::Arc, time::Duration};

use bus::{
    Ack, Batch, Content, Delivery, Epoch, Gap, GapReason, PublishTime, StreamId, StreamMetadata, Timestamp,
    reassembly::{Event, EventKind, Now, Reassembly},
};
use bytes::Bytes;

/// The time at which all tests start.
pub const START: PublishTime = PublishTime(1_800_000_000_000_000);

/// Length of the history.
pub const HISTORY: Duration = Duration::from_secs(3600);

/// The time this many milliseconds after `START`.
pub fn at(millis: u64) -> Now {
    after(Duration::from_millis(millis))
}

/// The time this long after `START`.
pub fn after(elapsed: Duration) -> Now {
    Now {
        elapsed,
        bus: START.later_by(elapsed),
    }
}

/// A stream whose epoch is this many seconds after `START`, or before.
pub fn stream(name: &str, epoch_seconds: i64) -> Arc<StreamMetadata> {
    let millis = (START.0 / 1000).saturating_add_signed(epoch_seconds * 1000);
    let id = StreamId::new(&format!("uid-{name}"), "web", "c0ffee", Epoch { millis, random: 7 }).unwrap();
    Arc::new(StreamMetadata {
        app: "shop".parse().unwrap(),
        process: name.to_owned(),
        stream: id,
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    })
}

/// A stream older than all readers.
pub fn old_stream(name: &str) -> Arc<StreamMetadata> {
    stream(name, -3600)
}

/// A stream that began while readers were reading.
pub fn new_stream(name: &str) -> Arc<StreamMetadata> {
    stream(name, 60)
}

/// Lines `from..to`, each with its sequence number as text.
pub fn lines(metadata: &Arc<StreamMetadata>, from: u64, to: u64) -> Batch {
    let mut data = String::new();
    for seq in from..to {
        let time = Timestamp(1_800_000_000_000_000_000 + i64::try_from(seq).unwrap() * 1_000_000);
        data.push_str(&format!("{time} {seq}\n"));
    }
    let content = Content::Lines {
        data: Bytes::from(data),
        lines: to - from,
        part: None,
    };
    Batch {
        metadata: Arc::clone(metadata),
        seq: from,
        content,
    }
}

/// A gap `from..to` recorded by the publisher.
pub fn recorded_gap(metadata: &Arc<StreamMetadata>, from: u64, to: u64) -> Batch {
    let gap = Gap {
        lines: to - from,
        reason: GapReason::Spool,
        from: None,
        to: None,
    };
    Batch {
        metadata: Arc::clone(metadata),
        seq: from,
        content: Content::Gap(gap),
    }
}

/// A recorded gap of unknown size before `seq`.
pub fn unknown_gap(metadata: &Arc<StreamMetadata>, seq: u64) -> Batch {
    recorded_gap(metadata, seq, seq)
}

/// The end of a stream of `total` lines.
pub fn end(metadata: &Arc<StreamMetadata>, total: u64) -> Batch {
    Batch {
        metadata: Arc::clone(metadata),
        seq: total,
        content: Content::End,
    }
}

/// A delivery published this many milliseconds after `START`.
pub fn delivery(batch: Batch, published: u64) -> Delivery {
    Delivery {
        batch,
        published: at(published).bus,
        ack: None,
    }
}

/// A delivery with an ack.
pub fn delivery_with_ack(batch: Batch, published: u64, ack: Ack) -> Delivery {
    Delivery {
        ack: Some(ack),
        ..delivery(batch, published)
    }
}

/// A short form of an event: `L3-5` lines 3 and 4; `late3-5`; `gap3-5`; `recorded3-5`;
/// `recorded3-?`; `end5`.
pub fn describe(event: &Event) -> String {
    let (process, seq) = (&event.metadata.process, event.seq);
    match &event.kind {
        EventKind::Lines { data, lines, late, .. } => {
            let text = std::str::from_utf8(data).unwrap();
            let texts: Vec<u64> = text
                .lines()
                .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
                .collect();
            assert_eq!(
                texts,
                (seq..seq + lines).collect::<Vec<_>>(),
                "each line has its sequence number as text"
            );
            format!("{process}:{}{seq}-{}", if *late { "late" } else { "L" }, seq + lines)
        }
        EventKind::Gap { lines: 0, .. } => format!("{process}:recorded{seq}-?"),
        EventKind::Gap { lines, gap: Some(_) } => format!("{process}:recorded{seq}-{}", seq + lines),
        EventKind::Gap { lines, gap: None } => format!("{process}:gap{seq}-{}", seq + lines),
        EventKind::End => format!("{process}:end{seq}"),
    }
}

/// Drains and describes all events.
pub fn described_events(reassembly: &mut Reassembly) -> String {
    let mut all = Vec::new();
    while let Some(event) = reassembly.next_event() {
        all.push(describe(&event));
    }
    all.join(" ")
}
