//! The embedded bus: durability and recovery; retention and subscriptions in their own files.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod damage;
mod retention;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use bus::{
    AppName, Batch, Bus, BusError, Content, Embedded, EmbeddedSettings, PublishTime, Reader, ReaderItem, Start,
    StreamMetadata,
};
use bytes::Bytes;
use futures::{FutureExt, executor::block_on};
use support::*;
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(20);

fn shop() -> AppName {
    "shop".parse().unwrap()
}

fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, EmbeddedSettings::default()).unwrap()
}

fn of_app(app: &str) -> Arc<StreamMetadata> {
    Arc::new(StreamMetadata {
        app: app.parse().unwrap(),
        ..(*old_stream(app)).clone()
    })
}

/// Publishes batches of one long line, of which a few fill a segment.
async fn publish_large(bus: &Embedded, metadata: &Arc<StreamMetadata>, seqs: Range<u64>, text_bytes: usize) {
    let data = Bytes::from(format!("2026-11-23T07:00:00.123456789Z {}\n", "x".repeat(text_bytes)));
    for seq in seqs {
        let content = Content::Lines {
            data: data.clone(),
            lines: 1,
            part: None,
        };
        let batch = Batch {
            metadata: Arc::clone(metadata),
            seq,
            content,
        };
        bus.publish(batch).await.unwrap();
    }
}

async fn next(reader: &mut Reader) -> ReaderItem {
    tokio::time::timeout(BOUND, reader.next())
        .await
        .expect("in time")
        .expect("the reader continues")
        .expect("no error")
}

async fn next_batch(reader: &mut Reader) -> Batch {
    match next(reader).await {
        ReaderItem::Delivery(delivery) => delivery.batch,
        other => panic!("a batch, not {other:?}"),
    }
}

/// The sequence numbers and publish times of the stored batches.
async fn stored(bus: &Embedded, app: &AppName, start: Start) -> Vec<(u64, PublishTime)> {
    let mut reader = bus.follow(app, start).await.unwrap();
    let mut all = Vec::new();
    loop {
        match next(&mut reader).await {
            ReaderItem::Delivery(delivery) => all.push((delivery.batch.seq, delivery.published)),
            ReaderItem::CaughtUp => return all,
            other => panic!("a batch, not {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_batches_are_unchanged_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    let batches = [
        lines(&web, 0, 10),
        recorded_gap(&web, 10, 12),
        unknown_gap(&web, 12),
        lines(&web, 12, 13),
        end(&web, 13),
    ];
    {
        let bus = open(dir.path());
        for batch in &batches {
            bus.publish(batch.clone()).await.unwrap();
        }
    }
    let bus = open(dir.path());
    assert_eq!(bus.apps().await.unwrap(), [shop()]);
    let mut reader = bus.follow(&shop(), Start::Oldest).await.unwrap();
    assert_eq!(reader.since(), PublishTime(0));
    for batch in &batches {
        assert_eq!(next_batch(&mut reader).await, *batch);
    }
    assert!(matches!(next(&mut reader).await, ReaderItem::CaughtUp));
    bus.publish(lines(&web, 13, 14)).await.unwrap();
    assert_eq!(next_batch(&mut reader).await.seq, 13, "live batches follow the history");
}

#[tokio::test]
async fn dropping_the_bus_commits_pending_batches() {
    let dir = TempDir::new().unwrap();
    let (bus, web) = (open(dir.path()), of_app("shop"));
    for seq in 0..100 {
        // Queued at the first poll; the publisher then stops waiting.
        let _ = bus.publish(lines(&web, seq, seq + 1)).now_or_never();
    }
    drop(bus);
    let bus = open(dir.path());
    assert_eq!(stored(&bus, &shop(), Start::Oldest).await.len(), 100);
}

#[test]
fn a_bus_that_outlives_its_runtime_accepts_batches() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bus = runtime.block_on(async { open(dir.path()) });
    drop(runtime);
    block_on(bus.publish(lines(&web, 0, 1))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_truncated_and_accepted_batches_are_kept() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    {
        let bus = open(dir.path());
        for seq in 0..20 {
            bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
        }
    }
    // A crash during a write leaves a partial record after the last complete one.
    let segment = dir.path().join("apps/shop/00000000000000000000.seg");
    let bytes = std::fs::read(&segment).unwrap();
    let record = bytes.len() / 20;
    for written in [1, 5, 30, record / 2] {
        std::fs::write(&segment, [&bytes[..], &bytes[..written]].concat()).unwrap();
        let bus = open(dir.path());
        let seqs: Vec<u64> = stored(&bus, &shop(), Start::Oldest)
            .await
            .into_iter()
            .map(|(seq, _)| seq)
            .collect();
        assert_eq!(seqs, (0..20).collect::<Vec<_>>(), "{written} bytes of another record");
    }
    // A crash of the machine can leave zeros or other bytes.
    for tail in [[0u8; 100], [0xff; 100]] {
        std::fs::write(&segment, [&bytes[..], &tail].concat()).unwrap();
        assert_eq!(stored(&open(dir.path()), &shop(), Start::Oldest).await.len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_record_is_reported_and_the_others_are_read() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    publish_large(&open(dir.path()), &web, 0..60, 200_000).await;
    let mut segments: Vec<_> = std::fs::read_dir(dir.path().join("apps/shop"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    assert!(segments.len() > 1, "a closed segment and the open one");
    // Corrupt the data, then fields of the header, of a record in the middle of each.
    for segment in [&segments[0], &segments[segments.len() - 1]] {
        let bytes = std::fs::read(segment).unwrap();
        let record = bytes.len() / (bytes.len() / 200_000);
        for at in [bytes.len() / 2, record * 2 + 6, record * 2 + 9, record * 2 + 20] {
            let mut corrupt = bytes.clone();
            corrupt[at] ^= 1;
            std::fs::write(segment, corrupt).unwrap();
            let bus = open(dir.path());
            let mut reader = bus.follow(&shop(), Start::Oldest).await.unwrap();
            let (mut seqs, mut interruptions) = (Vec::new(), 0);
            loop {
                match next(&mut reader).await {
                    ReaderItem::Delivery(delivery) => seqs.push(delivery.batch.seq),
                    ReaderItem::Interrupted { .. } => interruptions += 1,
                    ReaderItem::CaughtUp => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(
                (seqs.len(), interruptions),
                (59, 1),
                "one of 60 records is corrupt at byte {at}"
            );
            assert!(seqs.is_sorted());
        }
        std::fs::write(segment, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_starts_at_the_requested_position() {
    let dir = TempDir::new().unwrap();
    let (bus, web) = (open(dir.path()), of_app("shop"));
    for seq in 0..10 {
        bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
    }
    let all = stored(&bus, &shop(), Start::Oldest).await;
    assert_eq!(all.len(), 10);
    assert!(all.is_sorted_by(|a, b| a.1 < b.1), "publish times strictly increase");
    assert_eq!(stored(&bus, &shop(), Start::At(all[7].1)).await, all[7..]);
    assert_eq!(stored(&bus, &shop(), Start::Now).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_publishers_share_syncs_and_each_stream_keeps_its_order() {
    let dir = TempDir::new().unwrap();
    let bus = Arc::new(open(dir.path()));
    let publishers: Vec<_> = (0..8)
        .map(|n| {
            let (bus, web) = (
                Arc::clone(&bus),
                Arc::new(StreamMetadata {
                    stream: old_stream(&format!("p{n}")).stream.clone(),
                    ..(*of_app("shop")).clone()
                }),
            );
            tokio::spawn(async move {
                for seq in 0..200 {
                    bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut reader = bus.follow(&shop(), Start::Oldest).await.unwrap();
    let mut expected = std::collections::HashMap::new();
    for _ in 0..1600 {
        let batch = next_batch(&mut reader).await;
        let next = expected.entry(batch.metadata.stream.clone()).or_insert(0);
        assert_eq!(batch.seq, *next);
        *next += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readers_of_a_removed_app_end() {
    let dir = TempDir::new().unwrap();
    let (bus, web) = (open(dir.path()), of_app("shop"));
    bus.publish(lines(&web, 0, 1)).await.unwrap();
    let mut reader = bus.follow(&shop(), Start::Now).await.unwrap();
    assert!(matches!(next(&mut reader).await, ReaderItem::CaughtUp));
    bus.remove(&shop()).await.unwrap();
    assert!(tokio::time::timeout(BOUND, reader.next()).await.unwrap().is_none());
    assert!(matches!(
        bus.follow(&shop(), Start::Now).await,
        Err(BusError::UnknownApp(_))
    ));
    bus.publish(lines(&web, 5, 6)).await.unwrap();
    assert_eq!(
        stored(&bus, &shop(), Start::Oldest).await.len(),
        1,
        "a recreated app holds only new batches"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_used_by_one_process_and_must_be_a_directory() {
    let dir = TempDir::new().unwrap();
    let _bus = open(dir.path());
    assert!(matches!(
        Embedded::open(dir.path(), EmbeddedSettings::default()),
        Err(BusError::InUse(_))
    ));
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(
        Embedded::open(&file, EmbeddedSettings::default()),
        Err(BusError::Open { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_is_rejected_permanently() {
    let dir = TempDir::new().unwrap();
    let bus = open(dir.path());
    let content = bus::Content::Lines {
        data: vec![b'\n'; bus::MAX_BATCH_BYTES + 1].into(),
        lines: bus::MAX_BATCH_BYTES as u64 + 1,
        part: None,
    };
    let rejected = bus
        .publish(Batch {
            metadata: of_app("shop"),
            seq: 0,
            content,
        })
        .await
        .unwrap_err();
    assert!(matches!(rejected, BusError::TooLarge { .. }) && !rejected.is_transient());
}
