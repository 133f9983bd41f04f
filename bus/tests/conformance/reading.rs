//! Readers, with and without reassembly, and waits with a bound.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus::{
    AppName, Batch, Bus, Delivery, Epoch, Item, PublishTime, Reader, Start, StreamId, StreamMetadata,
    reassembly::{Event, Moment, Patience, Reassembly},
};
use tokio::time::Instant;

use crate::{engine::BOUND, shuffle::Shuffled, support::describe};

/// The hold of tails that are to see a gap: far above the way through an engine, far below a test's patience.
pub const HOLD: Duration = Duration::from_secs(2);

/// The hold of those that are to see none: what a stream of the service had and did not hand over comes again after the ack deadline, and a busy machine takes its time.
const LONG_HOLD: Duration = Duration::from_secs(60);

pub fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

/// A stream of app `shop` that began this much after now, or before, in seconds.
pub fn stream(process: &str, began: i64) -> Arc<StreamMetadata> {
    let millis = (PublishTime::now().0 / 1000).saturating_add_signed(began * 1000);
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

/// One that readers here see from its first line on.
pub fn fresh(process: &str) -> Arc<StreamMetadata> {
    stream(process, 3600)
}

pub async fn bounded<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(BOUND, wait).await;
    waited.unwrap_or_else(|_| panic!("{what} in time"))
}

pub async fn publish_all(bus: &dyn Bus, batches: impl IntoIterator<Item = Batch>) {
    for batch in batches {
        bounded("accepted", bus.publish(batch)).await.unwrap();
    }
}

pub async fn follow(bus: &dyn Bus, start: Start) -> Reader {
    bounded("a reader", bus.follow(&app("shop"), start)).await.unwrap()
}

pub async fn next(reader: &mut Reader) -> Item {
    bounded("an item", reader.next())
        .await
        .expect("goes on")
        .expect("readable")
}

/// The next batch; the end of a read-back is passed over.
pub async fn next_delivery(reader: &mut Reader) -> Delivery {
    loop {
        match next(reader).await {
            Item::Delivery(delivery) => return delivery,
            Item::CaughtUp => {}
            other => panic!("a batch, not {other:?}"),
        }
    }
}

/// The seqs of what comes up to the end of the read-back, sorted.
pub async fn history(reader: &mut Reader) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        match next(reader).await {
            Item::Delivery(delivery) => seqs.push(delivery.batch.seq),
            Item::CaughtUp => break,
            other => panic!("a batch, not {other:?}"),
        }
    }
    seqs.sort_unstable();
    seqs.dedup();
    seqs
}

/// A shuffled reader behind reassembly.
pub struct Assembled {
    source: Shuffled,
    reassembly: Reassembly,
    began: Instant,
}

impl Assembled {
    /// To see every line.
    pub fn new(reader: Reader, seed: u64) -> Self {
        Self::holding(LONG_HOLD, reader, seed)
    }

    /// To see what is missing after this hold, too.
    pub fn holding(hold: Duration, reader: Reader, seed: u64) -> Self {
        let reassembly = Reassembly::new(Patience::Tail { hold }, reader.since(), Duration::from_secs(86_400));
        Self {
            source: Shuffled::new(reader, seed),
            reassembly,
            began: Instant::now(),
        }
    }

    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.reassembly.next_event() {
                return event;
            }
            let due = self.reassembly.deadline().map(|due| self.began + due);
            let item = match due {
                Some(due) => tokio::time::timeout_at(due, self.source.next()).await.ok(),
                None => Some(self.source.next().await),
            };
            let now = Moment {
                elapsed: self.began.elapsed(),
                bus: PublishTime::now(),
            };
            match item {
                Some(Item::Delivery(delivery)) => self.reassembly.push(delivery, now),
                Some(Item::CaughtUp) => self.reassembly.caught_up(now),
                Some(other) => panic!("{other:?}"),
                None => self.reassembly.declare_due(now),
            }
        }
    }

    /// What is told of each process until each of `ends` of them has ended.
    pub async fn until_ended(&mut self, ends: usize) -> BTreeMap<String, Vec<String>> {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut ended = 0;
        while ended < ends {
            let event = self.next().await;
            ended += usize::from(matches!(event.what, bus::reassembly::What::End));
            let process = event.metadata.process.clone();
            told.entry(process).or_default().push(describe(&event));
        }
        told
    }
}

/// How many lines the descriptions of one process tell in order, from 0 on without a hole; panics at the first that does not join.
pub fn joined(told: &[String]) -> u64 {
    let mut next = 0;
    for what in told {
        let Some(range) = what.split_once(":L").map(|(_, range)| range) else {
            assert!(what.contains(":end"), "nothing is missing: {what}");
            continue;
        };
        let (from, to) = range.split_once('-').unwrap();
        assert_eq!(from.parse::<u64>().unwrap(), next, "in order: {told:?}");
        next = to.parse().unwrap();
    }
    next
}
