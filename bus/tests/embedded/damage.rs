//! Damaged files: every accepted batch is read, or reported as interrupted.
//!
//! `docs/operators/state.md` has the table that this test walks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use super::*;

/// What happens to a file while the bus is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Empty,
    Cut,
    Flip,
    Remove,
    /// It is that of another file.
    Replace,
    /// It is what it was some batches earlier.
    OfYesterday,
}

const ALL: [Damage; 6] = [
    Damage::Empty,
    Damage::Cut,
    Damage::Flip,
    Damage::Remove,
    Damage::Replace,
    Damage::OfYesterday,
];

/// Batches that are published: three segments.
const BATCHES: u64 = 45;

/// Batches of yesterday.
const OLDER: u64 = 25;

async fn publish(bus: &Embedded, from: u64, to: u64) {
    publish_large(bus, &of_app("shop"), from..to, 250_000).await;
}

/// Reads until nothing is left; returns the batches, and the times between which some are missing.
async fn read(mut reader: Reader) -> (Vec<u64>, Vec<(PublishTime, PublishTime)>) {
    let (mut seqs, mut interrupted) = (Vec::new(), vec![(PublishTime(0), reader.since())]);
    while let Ok(Some(item)) = tokio::time::timeout(Duration::from_millis(300), reader.next()).await {
        match item.unwrap() {
            ReaderItem::Delivery(delivery) => {
                seqs.push(delivery.batch.seq);
                delivery.ack.into_iter().for_each(bus::Ack::ack);
            }
            ReaderItem::Interrupted { from, to } => interrupted.push((from, to)),
            ReaderItem::CaughtUp => {}
            other => panic!("{other:?}"),
        }
    }
    (seqs, interrupted)
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir.join("apps/shop")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_is_read_or_reported_whatever_file_is_damaged() {
    let dir = TempDir::new().unwrap();
    let bus = open(dir.path());
    bus.create(&shop()).await.unwrap();
    bus.ensure_subscription(&shop(), "d").await.unwrap();
    publish(&bus, 0, OLDER).await;
    let yesterday = files(dir.path());
    publish(&bus, OLDER, BATCHES).await;
    let times: BTreeMap<u64, PublishTime> = stored(&bus, &shop(), Start::Oldest).await.into_iter().collect();
    drop(bus);
    let today = files(dir.path());
    assert_eq!(times.len() as u64, BATCHES);
    assert_eq!(today.keys().filter(|path| is_segment(path)).count(), 3);
    for damaged in today.keys() {
        for damage in ALL {
            let what = format!("{damage:?} {}", damaged.display());
            for (path, bytes) in &today {
                fs::write(path, bytes).unwrap();
            }
            let mut bytes = today[damaged].clone();
            let middle = bytes.len() / 2;
            match damage {
                Damage::Empty => bytes.clear(),
                Damage::Cut => bytes.truncate(middle),
                Damage::Flip => bytes[middle] ^= 1,
                Damage::Replace => bytes = b"something else\n".repeat(10),
                Damage::OfYesterday => match yesterday.get(damaged) {
                    Some(older) => bytes.clone_from(older),
                    None => continue,
                },
                Damage::Remove => {}
            }
            if damage == Damage::Remove {
                fs::remove_file(damaged).unwrap();
            } else {
                fs::write(damaged, bytes).unwrap();
            }
            // A second start must know it, too.
            drop(open(dir.path()));
            let bus = open(dir.path());
            let follow = read(bus.follow(&shop(), Start::Oldest).await.unwrap()).await;
            let subscription = read(bus.subscribe(&shop(), "d").await.unwrap()).await;
            for (seqs, interrupted) in [follow, subscription] {
                let unique: BTreeSet<_> = seqs.iter().collect();
                assert_eq!(unique.len(), seqs.len(), "no batch twice: {what}");
                for (seq, at) in &times {
                    let is_reported = interrupted.iter().any(|(from, to)| from <= at && at < to);
                    assert!(
                        seqs.contains(seq) || is_reported,
                        "batch {seq} is missing silently: {what}"
                    );
                }
                if !is_segment(damaged) {
                    assert_eq!(seqs.len() as u64, BATCHES, "{what}");
                    let reported = interrupted.iter().filter(|(from, _)| from.0 > 1);
                    assert_eq!(reported.count(), 0, "nothing is missing: {what}");
                }
            }
        }
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}
