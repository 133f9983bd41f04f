//! Readers with and without reassembly, and waits with a timeout.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus::{
    AppName, Batch, Bus, Delivery, Epoch, PublishTime, Reader, ReaderItem, Start, StreamId, StreamMetadata,
    reassembly::{Event, GapTimeouts, Now, Reassembly},
};
use tokio::time::Instant;

use crate::{engine::BOUND, shuffle::Shuffled, support::describe};

/// Reorder window of tails that expect a gap: far above the latency of an engine, far below a
/// test's timeout.
pub const REORDER_WINDOW: Duration = Duration::from_secs(2);

/// Reorder window of tails that expect no gap, longer than the ack deadline and the delays of a
/// busy machine.
const LONG_REORDER_WINDOW: Duration = Duration::from_secs(60);

pub fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

/// A stream of app `shop` whose epoch is this many seconds from now.
pub fn stream(process: &str, epoch_seconds: i64) -> Arc<StreamMetadata> {
    let millis = (PublishTime::now().0 / 1000).saturating_add_signed(epoch_seconds * 1000);
    let epoch = Epoch { millis, random: 7 };
    Arc::new(StreamMetadata {
        app: app("shop"),
        process: process.to_owned(),
        stream: StreamId::new(&format!("uid-{process}"), "web", "c0ffee", epoch).unwrap(),
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    })
}

/// A stream that readers expect from its first line on.
pub fn fresh(process: &str) -> Arc<StreamMetadata> {
    stream(process, 3600)
}

pub async fn bounded<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(BOUND, wait).await;
    waited.unwrap_or_else(|_| panic!("timeout: {what}"))
}

pub async fn publish_all(bus: &dyn Bus, batches: impl IntoIterator<Item = Batch>) {
    for batch in batches {
        bounded("accepted", bus.publish(batch)).await.unwrap();
    }
}

pub async fn follow(bus: &dyn Bus, start: Start) -> Reader {
    bounded("a reader", bus.follow(&app("shop"), start)).await.unwrap()
}

pub async fn next(reader: &mut Reader) -> ReaderItem {
    bounded("an item", reader.next())
        .await
        .expect("the reader continues")
        .expect("no error")
}

/// The next batch, skipping `CaughtUp`.
pub async fn next_delivery(reader: &mut Reader) -> Delivery {
    loop {
        match next(reader).await {
            ReaderItem::Delivery(delivery) => return delivery,
            ReaderItem::CaughtUp => {}
            other => panic!("a batch, not {other:?}"),
        }
    }
}

/// The sorted sequence numbers of the batches before `CaughtUp`.
pub async fn history(reader: &mut Reader) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        match next(reader).await {
            ReaderItem::Delivery(delivery) => seqs.push(delivery.batch.seq),
            ReaderItem::CaughtUp => break,
            other => panic!("a batch, not {other:?}"),
        }
    }
    seqs.sort_unstable();
    seqs.dedup();
    seqs
}

/// A shuffled reader with reassembly.
pub struct Assembled {
    source: Shuffled,
    reassembly: Reassembly,
    started: Instant,
}

impl Assembled {
    /// A reader that expects no gap.
    pub fn new(reader: Reader, seed: u64) -> Self {
        Self::with_window(LONG_REORDER_WINDOW, reader, seed)
    }

    /// A reader with this reorder window.
    pub fn with_window(reorder_window: Duration, reader: Reader, seed: u64) -> Self {
        let reassembly = Reassembly::new(
            GapTimeouts::Tail { reorder_window },
            reader.since(),
            Duration::from_secs(86_400),
        );
        Self {
            source: Shuffled::new(reader, seed),
            reassembly,
            started: Instant::now(),
        }
    }

    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.reassembly.next_event() {
                return event;
            }
            let due = self.reassembly.deadline().map(|due| self.started + due);
            let item = match due {
                Some(due) => tokio::time::timeout_at(due, self.source.next()).await.ok(),
                None => Some(self.source.next().await),
            };
            let now = Now {
                elapsed: self.started.elapsed(),
                bus: PublishTime::now(),
            };
            match item {
                Some(ReaderItem::Delivery(delivery)) => self.reassembly.push(delivery, now),
                Some(ReaderItem::CaughtUp) => self.reassembly.caught_up(now),
                Some(other) => panic!("{other:?}"),
                None => self.reassembly.declare_due(now),
            }
        }
    }

    /// The described events of each process until `ends` of them have ended.
    pub async fn until_ended(&mut self, ends: usize) -> BTreeMap<String, Vec<String>> {
        let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut ended = 0;
        while ended < ends {
            let event = self.next().await;
            ended += usize::from(matches!(event.kind, bus::reassembly::EventKind::End));
            let process = event.metadata.process.clone();
            events.entry(process).or_default().push(describe(&event));
        }
        events
    }
}

/// The number of lines in the described events of one process, which must be complete and in order.
pub fn joined(events: &[String]) -> u64 {
    let mut next = 0;
    for event in events {
        let Some(range) = event.split_once(":L").map(|(_, range)| range) else {
            assert!(event.contains(":end"), "no gap: {event}");
            continue;
        };
        let (from, to) = range.split_once('-').unwrap();
        assert_eq!(from.parse::<u64>().unwrap(), next, "in order: {events:?}");
        next = to.parse().unwrap();
    }
    next
}
