//! The embedded bus: durability, recovery, retention and subscriptions.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use bus::{
    AppName, Batch, Bus, BusError, Embedded, EmbeddedSettings, PublishTime, Reader, ReaderItem, Start, StreamMetadata,
};
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
async fn a_torn_tail_is_truncated_and_earlier_batches_are_kept() {
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
    for cut in [1, 5, record / 2, record - 10, record - 1] {
        std::fs::write(&segment, &bytes[..bytes.len() - cut]).unwrap();
        let bus = open(dir.path());
        let seqs: Vec<u64> = stored(&bus, &shop(), Start::Oldest)
            .await
            .into_iter()
            .map(|(seq, _)| seq)
            .collect();
        assert_eq!(seqs, (0..19).collect::<Vec<_>>(), "truncated by {cut} bytes");
        bus.publish(lines(&web, 19, 20)).await.unwrap();
        assert_eq!(
            stored(&bus, &shop(), Start::Oldest).await.len(),
            20,
            "writing continues after the last valid record"
        );
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
    let big = "x".repeat(200_000);
    {
        let bus = open(dir.path());
        for seq in 0..60 {
            let data = format!("2026-11-23T07:00:00.123456789Z {big}\n").into();
            let content = bus::Content::Lines {
                data,
                lines: 1,
                part: None,
            };
            bus.publish(Batch {
                metadata: Arc::clone(&web),
                seq,
                content,
            })
            .await
            .unwrap();
        }
    }
    let mut segments: Vec<_> = std::fs::read_dir(dir.path().join("apps/shop"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
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
async fn a_high_volume_app_evicts_its_own_batches_first_and_its_slow_reader_is_interrupted() {
    let dir = TempDir::new().unwrap();
    let settings = EmbeddedSettings {
        retention_bytes: 24 << 20,
        ..EmbeddedSettings::default()
    };
    let bus = Embedded::open(dir.path(), settings).unwrap();
    let (quiet, busy) = (of_app("quiet"), of_app("busy"));
    for seq in 0..50 {
        bus.publish(lines(&quiet, seq, seq + 1)).await.unwrap();
    }
    let mut behind = bus.follow(&busy.app, Start::Now).await.err();
    assert!(matches!(behind.take(), Some(BusError::UnknownApp(_))));
    bus.create(&busy.app).await.unwrap();
    let mut behind = bus.follow(&busy.app, Start::Now).await.unwrap();
    let data = bytes::Bytes::from(format!("2026-11-23T07:00:00.123456789Z {}\n", "x".repeat(250_000)));
    for seq in 0..400 {
        let content = bus::Content::Lines {
            data: data.clone(),
            lines: 1,
            part: None,
        };
        bus.publish(Batch {
            metadata: Arc::clone(&busy),
            seq,
            content,
        })
        .await
        .unwrap();
    }
    assert_eq!(
        stored(&bus, &quiet.app, Start::Oldest).await.len(),
        50,
        "the other app keeps everything"
    );
    let busy_stored = stored(&bus, &busy.app, Start::Oldest).await;
    assert!(busy_stored.len() < 120, "{} of 400 stored", busy_stored.len());
    assert!(
        busy_stored.len() > 60,
        "no more than necessary is evicted: {} of 400 stored",
        busy_stored.len()
    );
    assert_eq!(busy_stored.last().unwrap().0, 399);
    assert!(matches!(next(&mut behind).await, ReaderItem::CaughtUp));
    assert!(
        matches!(next(&mut behind).await, ReaderItem::Interrupted { .. }),
        "a reader behind the retention is interrupted"
    );
    assert!(next_batch(&mut behind).await.seq > 0);
    let reader = bus.follow(&busy.app, Start::Oldest).await.unwrap();
    assert!(
        reader.since() > PublishTime(0),
        "a later reader has an incomplete history"
    );
    let on_disk: u64 = walk(dir.path());
    assert!(
        on_disk < (24 << 20) / 16 * 17 + ((2 * 5) << 20),
        "{on_disk} bytes on disk"
    );
}

fn walk(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path())
            } else {
                entry.metadata().map_or(0, |m| m.len())
            }
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_older_than_the_retention_are_deleted() {
    let dir = TempDir::new().unwrap();
    let settings = EmbeddedSettings {
        retention: Duration::ZERO,
        ..EmbeddedSettings::default()
    };
    let bus = Embedded::open(dir.path(), settings).unwrap();
    let web = of_app("shop");
    bus.publish(lines(&web, 0, 1)).await.unwrap();
    // Retention runs every few seconds.
    let deleted = async {
        while !stored(&bus, &shop(), Start::Oldest).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(BOUND, deleted).await.expect("retention in time");
    bus.publish(lines(&web, 1, 2)).await.unwrap();
    drop(bus);
    let bus = Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap();
    let reader = bus.follow(&shop(), Start::Oldest).await.unwrap();
    assert!(
        reader.since() > PublishTime(0),
        "deleted batches stay deleted after a restart"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_redelivers_unacknowledged_batches_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    {
        let bus = open(dir.path());
        bus.publish(lines(&web, 0, 1)).await.unwrap();
        let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
        assert!(matches!(
            bus.subscribe(&shop(), "drain-1").await,
            Err(BusError::SubscriptionInUse(_))
        ));
        for seq in 1..6 {
            bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
        }
        let mut deliveries = Vec::new();
        for seq in 1..6 {
            let ReaderItem::Delivery(delivery) = next(&mut reader).await else {
                panic!("a batch")
            };
            assert_eq!(delivery.batch.seq, seq, "a new subscription starts with new batches");
            deliveries.push(delivery);
        }
        deliveries.remove(3).ack.unwrap().nack();
        assert_eq!(next_batch(&mut reader).await.seq, 4, "a nacked batch is redelivered");
        deliveries.remove(0).ack.unwrap().ack();
        deliveries.remove(0).ack.unwrap().ack();
        drop(deliveries);
        // Commands are processed in order, so the acks are processed before this one.
        bus.create(&"other".parse().unwrap()).await.unwrap();
    }
    let bus = open(dir.path());
    let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
    assert_eq!(
        next_batch(&mut reader).await.seq,
        3,
        "only unacknowledged batches are redelivered"
    );
    drop(reader);
    bus.unsubscribe(&shop(), "drain-1").await.unwrap();
    bus.publish(lines(&web, 6, 7)).await.unwrap();
    let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
    bus.publish(lines(&web, 7, 8)).await.unwrap();
    assert_eq!(
        next_batch(&mut reader).await.seq,
        7,
        "a recreated subscription starts with new batches"
    );
}

/// Publishes batches 0 to 5, acknowledges the first two, and changes the offset file.
async fn next_after_damage(damage: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    {
        let bus = open(dir.path());
        bus.create(&shop()).await.unwrap();
        let mut reader = bus.subscribe(&shop(), "d").await.unwrap();
        for seq in 0..5 {
            bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
        }
        for _ in 0..2 {
            let ReaderItem::Delivery(delivery) = next(&mut reader).await else {
                panic!("a batch")
            };
            delivery.ack.unwrap().ack();
        }
    }
    let path = dir.path().join("apps/shop/64.sub");
    let mut stored = std::fs::read(&path).unwrap();
    damage(&mut stored);
    std::fs::write(&path, stored).unwrap();
    let bus = open(dir.path());
    let mut reader = bus.subscribe(&shop(), "d").await.unwrap();
    next_batch(&mut reader).await.seq
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_offset_skips_no_batch() {
    assert_eq!(next_after_damage(|_| ()).await, 2);
    assert_eq!(next_after_damage(Vec::clear).await, 0, "nothing is known");
    // One of the two slots is whole: the last offset, or the one before.
    for at in [1, 22, 31, 52] {
        let next = next_after_damage(|stored| stored[at] ^= 8).await;
        assert!((1..=2).contains(&next), "byte {at}: {next}");
    }
    let of_an_earlier_version = |stored: &mut Vec<u8>| stored.truncate(20);
    assert!(next_after_damage(of_an_earlier_version).await <= 2);
    let beyond_the_topic = |stored: &mut Vec<u8>| *stored = b"99999999999999999999"[..20].to_vec();
    assert_eq!(next_after_damage(beyond_the_topic).await, 0, "not a number of 64 bits");
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
