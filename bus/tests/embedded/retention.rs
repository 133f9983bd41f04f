//! What the retention of the embedded bus deletes.

use super::*;

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
    publish_large(&bus, &busy, 0..400, 250_000).await;
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
