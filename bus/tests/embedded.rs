//! The embedded bus keeps what it accepted.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use bus::{AppName, Batch, Bus, BusError, Embedded, Item, Limits, PublishTime, Reader, Start, StreamMetadata};
use support::*;
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(20);

fn shop() -> AppName {
    "shop".parse().unwrap()
}

fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, Limits::default()).unwrap()
}

fn of_app(app: &str) -> Arc<StreamMetadata> {
    Arc::new(StreamMetadata {
        app: app.parse().unwrap(),
        ..(*old(app)).clone()
    })
}

async fn next(reader: &mut Reader) -> Item {
    tokio::time::timeout(BOUND, reader.next())
        .await
        .expect("in time")
        .expect("goes on")
        .expect("readable")
}

async fn next_batch(reader: &mut Reader) -> Batch {
    match next(reader).await {
        Item::Delivery(delivery) => delivery.batch,
        other => panic!("a batch, not {other:?}"),
    }
}

/// What is kept, to the end of the read-back.
async fn kept(bus: &Embedded, app: &AppName, start: Start) -> Vec<(u64, PublishTime)> {
    let mut reader = bus.follow(app, start).await.unwrap();
    let mut all = Vec::new();
    loop {
        match next(&mut reader).await {
            Item::Delivery(delivery) => all.push((delivery.batch.seq, delivery.published)),
            Item::CaughtUp => return all,
            other => panic!("a batch, not {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_comes_back_as_it_was_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    let batches = [
        lines(&web, 0, 10),
        loss(&web, 10, 12),
        unknown_loss(&web, 12),
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
    assert!(matches!(next(&mut reader).await, Item::CaughtUp));
    bus.publish(lines(&web, 13, 14)).await.unwrap();
    assert_eq!(next_batch(&mut reader).await.seq, 13, "history and live join");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_off_and_what_lies_before_it_is_kept() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    {
        let bus = open(dir.path());
        for seq in 0..20 {
            bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
        }
    }
    // What a crash in the middle of a write leaves: part of a record behind the last whole one, at whatever byte it was cut.
    let segment = dir.path().join("apps/shop/00000000000000000000.seg");
    let bytes = std::fs::read(&segment).unwrap();
    let record = bytes.len() / 20;
    for cut in [1, 5, record / 2, record - 10, record - 1] {
        std::fs::write(&segment, &bytes[..bytes.len() - cut]).unwrap();
        let bus = open(dir.path());
        let seqs: Vec<u64> = kept(&bus, &shop(), Start::Oldest)
            .await
            .into_iter()
            .map(|(seq, _)| seq)
            .collect();
        assert_eq!(seqs, (0..19).collect::<Vec<_>>(), "cut {cut} bytes short");
        bus.publish(lines(&web, 19, 20)).await.unwrap();
        assert_eq!(
            kept(&bus, &shop(), Start::Oldest).await.len(),
            20,
            "it goes on behind what is good"
        );
    }
    // Nor does a tail of zeros or of rubbish, which a lost machine can leave.
    for tail in [[0u8; 100], [0xff; 100]] {
        std::fs::write(&segment, [&bytes[..], &tail].concat()).unwrap();
        assert_eq!(kept(&open(dir.path()), &shop(), Start::Oldest).await.len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_disk_spoiled_is_told_and_the_rest_is_read() {
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
    assert!(segments.len() > 1, "a closed one, and the one that is written");
    // The data, and then the header, of a record in the middle of each.
    for segment in [&segments[0], &segments[segments.len() - 1]] {
        let bytes = std::fs::read(segment).unwrap();
        let record = bytes.len() / (bytes.len() / 200_000);
        for at in [bytes.len() / 2, record * 2 + 6, record * 2 + 9, record * 2 + 20] {
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 1;
            std::fs::write(segment, spoiled).unwrap();
            let bus = open(dir.path());
            let mut reader = bus.follow(&shop(), Start::Oldest).await.unwrap();
            let (mut seqs, mut breaks) = (Vec::new(), 0);
            loop {
                match next(&mut reader).await {
                    Item::Delivery(delivery) => seqs.push(delivery.batch.seq),
                    Item::Break { .. } => breaks += 1,
                    Item::CaughtUp => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((seqs.len(), breaks), (59, 1), "one of 60 is spoiled, and told, at {at}");
            assert!(seqs.is_sorted());
        }
        std::fs::write(segment, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_begins_where_it_asked_to() {
    let dir = TempDir::new().unwrap();
    let (bus, web) = (open(dir.path()), of_app("shop"));
    for seq in 0..10 {
        bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
    }
    let all = kept(&bus, &shop(), Start::Oldest).await;
    assert_eq!(all.len(), 10);
    assert!(all.is_sorted_by(|a, b| a.1 < b.1), "the bus's time never stands still");
    assert_eq!(kept(&bus, &shop(), Start::At(all[7].1)).await, all[7..]);
    assert_eq!(kept(&bus, &shop(), Start::Now).await, []);
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
                    stream: old(&format!("p{n}")).stream.clone(),
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
async fn a_loud_app_evicts_itself_first_and_the_reader_it_overtakes_is_told() {
    let dir = TempDir::new().unwrap();
    let limits = Limits {
        retention_bytes: 24 << 20,
        ..Limits::default()
    };
    let bus = Embedded::open(dir.path(), limits).unwrap();
    let (quiet, loud) = (of_app("quiet"), of_app("loud"));
    for seq in 0..50 {
        bus.publish(lines(&quiet, seq, seq + 1)).await.unwrap();
    }
    let mut behind = bus.follow(&loud.app, Start::Now).await.err();
    assert!(matches!(behind.take(), Some(BusError::UnknownApp(_))));
    bus.create(&loud.app).await.unwrap();
    let mut behind = bus.follow(&loud.app, Start::Now).await.unwrap();
    let data = bytes::Bytes::from(format!("2026-11-23T07:00:00.123456789Z {}\n", "x".repeat(250_000)));
    for seq in 0..400 {
        let content = bus::Content::Lines {
            data: data.clone(),
            lines: 1,
            part: None,
        };
        bus.publish(Batch {
            metadata: Arc::clone(&loud),
            seq,
            content,
        })
        .await
        .unwrap();
    }
    assert_eq!(
        kept(&bus, &quiet.app, Start::Oldest).await.len(),
        50,
        "the quiet app keeps all"
    );
    let loud_kept = kept(&bus, &loud.app, Start::Oldest).await;
    assert!(loud_kept.len() < 120, "{} of 400 kept", loud_kept.len());
    assert!(
        loud_kept.len() > 60,
        "no more goes than must: {} of 400 kept",
        loud_kept.len()
    );
    assert_eq!(loud_kept.last().unwrap().0, 399);
    assert!(matches!(next(&mut behind).await, Item::CaughtUp));
    assert!(
        matches!(next(&mut behind).await, Item::Break { .. }),
        "a reader that retention passed is told"
    );
    assert!(next_batch(&mut behind).await.seq > 0);
    let reader = bus.follow(&loud.app, Start::Oldest).await.unwrap();
    assert!(
        reader.since() > PublishTime(0),
        "a later reader knows that its history is not whole"
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
async fn what_is_older_than_retention_goes() {
    let dir = TempDir::new().unwrap();
    let limits = Limits {
        retention: Duration::ZERO,
        ..Limits::default()
    };
    let bus = Embedded::open(dir.path(), limits).unwrap();
    let web = of_app("shop");
    bus.publish(lines(&web, 0, 1)).await.unwrap();
    // Retention looks every few seconds; until then the reader sees it.
    let gone = async {
        while !kept(&bus, &shop(), Start::Oldest).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(BOUND, gone).await.expect("retention in time");
    bus.publish(lines(&web, 1, 2)).await.unwrap();
    drop(bus);
    let bus = Embedded::open(dir.path(), Limits::default()).unwrap();
    let reader = bus.follow(&shop(), Start::Oldest).await.unwrap();
    assert!(
        reader.since() > PublishTime(0),
        "what went stays gone after a restart, and is known to be"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_redelivers_what_was_not_accepted_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    {
        let bus = open(dir.path());
        bus.publish(lines(&web, 0, 1)).await.unwrap();
        let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
        assert!(matches!(
            bus.subscribe(&shop(), "drain-1").await,
            Err(BusError::Subscribed(_))
        ));
        for seq in 1..6 {
            bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
        }
        let mut deliveries = Vec::new();
        for seq in 1..6 {
            let Item::Delivery(delivery) = next(&mut reader).await else {
                panic!("a batch")
            };
            assert_eq!(
                delivery.batch.seq, seq,
                "a new subscription begins with what comes after it"
            );
            deliveries.push(delivery);
        }
        deliveries.remove(3).ack.unwrap().give_back();
        assert_eq!(next_batch(&mut reader).await.seq, 4, "given back, delivered again");
        deliveries.remove(0).ack.unwrap().accept();
        deliveries.remove(0).ack.unwrap().accept();
        drop(deliveries);
        // The place is kept in the order of commands: this one comes after the acks.
        bus.create(&"other".parse().unwrap()).await.unwrap();
    }
    let bus = open(dir.path());
    let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
    assert_eq!(
        next_batch(&mut reader).await.seq,
        3,
        "what was accepted does not come again, the rest does"
    );
    drop(reader);
    bus.unsubscribe(&shop(), "drain-1").await.unwrap();
    bus.publish(lines(&web, 6, 7)).await.unwrap();
    let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
    bus.publish(lines(&web, 7, 8)).await.unwrap();
    assert_eq!(
        next_batch(&mut reader).await.seq,
        7,
        "removed and made again, it is new"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_app_is_gone_and_its_readers_end() {
    let dir = TempDir::new().unwrap();
    let (bus, web) = (open(dir.path()), of_app("shop"));
    bus.publish(lines(&web, 0, 1)).await.unwrap();
    let mut reader = bus.follow(&shop(), Start::Now).await.unwrap();
    assert!(matches!(next(&mut reader).await, Item::CaughtUp));
    bus.remove(&shop()).await.unwrap();
    assert!(tokio::time::timeout(BOUND, reader.next()).await.unwrap().is_none());
    assert!(matches!(
        bus.follow(&shop(), Start::Now).await,
        Err(BusError::UnknownApp(_))
    ));
    bus.publish(lines(&web, 5, 6)).await.unwrap();
    assert_eq!(
        kept(&bus, &shop(), Start::Oldest).await.len(),
        1,
        "made again, it holds only what is new"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_process_and_must_be_one() {
    let dir = TempDir::new().unwrap();
    let _bus = open(dir.path());
    assert!(matches!(
        Embedded::open(dir.path(), Limits::default()),
        Err(BusError::InUse(_))
    ));
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(
        Embedded::open(&file, Limits::default()),
        Err(BusError::Open { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_is_refused_for_good() {
    let dir = TempDir::new().unwrap();
    let bus = open(dir.path());
    let content = bus::Content::Lines {
        data: vec![b'\n'; bus::MAX_BATCH_BYTES + 1].into(),
        lines: bus::MAX_BATCH_BYTES as u64 + 1,
        part: None,
    };
    let refused = bus
        .publish(Batch {
            metadata: of_app("shop"),
            seq: 0,
            content,
        })
        .await
        .unwrap_err();
    assert!(matches!(refused, BusError::TooLarge { .. }) && !refused.is_transient());
}
