//! Streams, batches and deliveries by the numbers: line `n` of a stream says `n`.

#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{sync::Arc, time::Duration};

use bus::{
    Ack, Batch, Content, Delivery, Epoch, Gap, GapReason, PublishTime, StreamId, StreamMetadata, Timestamp,
    reassembly::{Event, Moment, Reassembly, What},
};
use bytes::Bytes;

/// The moment all tests count from.
pub const START: PublishTime = PublishTime(1_800_000_000_000_000);

/// A hold that tests of tails use.
pub const HOLD: Duration = Duration::from_secs(1);

/// History in all tests.
pub const HISTORY: Duration = Duration::from_secs(3600);

/// `START` and this many milliseconds.
pub fn at(millis: u64) -> Moment {
    moment(Duration::from_millis(millis))
}

/// `START` and this long.
pub fn moment(elapsed: Duration) -> Moment {
    Moment {
        elapsed,
        bus: START.later_by(elapsed),
    }
}

/// A stream whose epoch was made this many seconds after (or before) `START`.
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

/// A stream that is older than any reader here.
pub fn old(name: &str) -> Arc<StreamMetadata> {
    stream(name, -3600)
}

/// A stream made while readers here read.
pub fn young(name: &str) -> Arc<StreamMetadata> {
    stream(name, 60)
}

/// Lines `from..to`, each saying its seq.
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

/// A known loss of `from..to`.
pub fn loss(metadata: &Arc<StreamMetadata>, from: u64, to: u64) -> Batch {
    let loss = Gap {
        lines: to - from,
        reason: GapReason::Spool,
        from: None,
        to: None,
    };
    Batch {
        metadata: Arc::clone(metadata),
        seq: from,
        content: Content::Gap(loss),
    }
}

/// A loss of unknown count in front of `seq`.
pub fn unknown_loss(metadata: &Arc<StreamMetadata>, seq: u64) -> Batch {
    loss(metadata, seq, seq)
}

/// The end of a stream of `total` lines.
pub fn end(metadata: &Arc<StreamMetadata>, total: u64) -> Batch {
    Batch {
        metadata: Arc::clone(metadata),
        seq: total,
        content: Content::End,
    }
}

/// A batch as delivered, published this many milliseconds after `START`.
pub fn delivery(batch: Batch, published: u64) -> Delivery {
    Delivery {
        batch,
        published: at(published).bus,
        ack: None,
    }
}

/// The same with an ack.
pub fn acked(batch: Batch, published: u64, ack: Ack) -> Delivery {
    Delivery {
        ack: Some(ack),
        ..delivery(batch, published)
    }
}

/// What became of an event, short: `L3-5` lines 3, 4; `late3-5`; `gap3-5`; `lost3-5`; `lost3-?`; `end5`.
pub fn describe(event: &Event) -> String {
    let (process, seq) = (&event.metadata.process, event.seq);
    match &event.what {
        What::Lines { data, lines, late, .. } => {
            let text = std::str::from_utf8(data).unwrap();
            let said: Vec<u64> = text
                .lines()
                .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
                .collect();
            assert_eq!(
                said,
                (seq..seq + lines).collect::<Vec<_>>(),
                "the lines are those that the numbers say"
            );
            format!("{process}:{}{seq}-{}", if *late { "late" } else { "L" }, seq + lines)
        }
        What::Gap { lines: 0, .. } => format!("{process}:lost{seq}-?"),
        What::Gap { lines, loss: Some(_) } => format!("{process}:lost{seq}-{}", seq + lines),
        What::Gap { lines, loss: None } => format!("{process}:gap{seq}-{}", seq + lines),
        What::End => format!("{process}:end{seq}"),
    }
}

/// All that is settled by now, described.
pub fn told(reassembly: &mut Reassembly) -> String {
    let mut all = Vec::new();
    while let Some(event) = reassembly.next_event() {
        all.push(describe(&event));
    }
    all.join(" ")
}
