//! Checkpoints on a disk that refuses writes.

use std::{collections::BTreeMap, fs, time::Duration};

use proptest::prelude::*;

use super::{
    CheckpointStore,
    tests::{dir_with, journal, key, open, open_unsynced, save, saved},
};
use crate::{metrics::Metrics, publish::full_disk::FullDisk};

#[tokio::test(start_paused = true)]
async fn checkpoints_refused_by_a_full_disk_are_written_once_it_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FullDisk::new();
    let metrics = Metrics::default();
    let (store, _) = disk.run(|| CheckpointStore::open(dir.path(), &metrics)).unwrap();
    let mut seq_end = 0;
    for room in (0..400).step_by(7) {
        seq_end += 2;
        let failures = metrics.checkpoint_write_failures.get();
        disk.run(|| save(&store, "c", seq_end - 1));
        disk.set_room(room);
        // Several, because one may fit.
        for _ in 0..3 {
            disk.run(|| save(&store, "a", seq_end + room));
            disk.run(|| save(&store, "c", seq_end));
            disk.run(|| save(&store, "b", seq_end + room));
        }
        assert_eq!(saved(&store, "c"), Some(seq_end), "in memory");
        assert!(metrics.checkpoint_write_failures.get() > failures);
        disk.set_room(u64::MAX);
        tokio::time::advance(Duration::from_secs(1)).await;
        disk.run(|| store.retry());
        let copy = dir_with("checkpoints.1", &fs::read(journal(dir.path())).unwrap());
        let (copy, damage) = open_unsynced(copy.path());
        assert_eq!((saved(&copy, "c"), damage), (Some(seq_end), None), "{room} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_tried_once_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FullDisk::new();
    let metrics = Metrics::default();
    let (store, _) = disk.run(|| CheckpointStore::open(dir.path(), &metrics)).unwrap();
    disk.set_room(0);
    for seq_end in 0..1_000 {
        disk.run(|| save(&store, "c", seq_end));
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let failures = metrics.checkpoint_write_failures.get();
    assert!((9..=12).contains(&failures), "{failures} attempts in 10 s");
}

#[test]
fn a_directory_that_never_had_room_for_checkpoints_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FullDisk::new();
    disk.set_room(0);
    let (store, damage) = disk.run(|| open(dir.path()));
    assert_eq!(damage, None);
    disk.run(|| save(&store, "c", 1));
    drop(store);
    let (store, damage) = open(dir.path());
    assert_eq!((saved(&store, "c"), damage.is_some()), (None, true));
}

#[test]
fn a_kill_while_the_disk_is_full_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FullDisk::new();
    let (store, _) = disk.run(|| open(dir.path()));
    disk.run(|| save(&store, "c", 1));
    disk.set_room(0);
    disk.run(|| save(&store, "c", 2));
    drop(store);
    // The disk is still full at the next start.
    let (store, damage) = disk.run(|| open(dir.path()));
    assert_eq!((saved(&store, "c"), damage.is_some()), (Some(1), true));
    drop(store);
    let (store, damage) = open(dir.path());
    assert_eq!((saved(&store, "c"), damage.is_some()), (Some(1), true));
    drop(store);
    assert_eq!(open(dir.path()).1, None);
}

/// One step of a test run.
#[derive(Clone, Copy, Debug)]
enum Action {
    Save(usize),
    Delete(usize),
    /// The disk has room for this many bytes.
    Room(u64),
    Wait,
    Kill,
}

const CONTAINERS: [&str; 3] = ["a", "b", "c"];

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (0usize..3).prop_map(Action::Save),
        1 => (0usize..3).prop_map(Action::Delete),
        1 => (0u64..2_000).prop_map(Action::Room),
        1 => Just(Action::Room(u64::MAX)),
        2 => Just(Action::Wait),
        2 => Just(Action::Kill),
    ];
    prop::collection::vec(action, 1..100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_a_kill_checkpoints_are_the_newest_or_reported(actions in actions()) {
        let dir = tempfile::tempdir().unwrap();
        let disk = FullDisk::new();
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = clock.enter();
        let mut store = Some(disk.run(|| open(dir.path())).0);
        let (mut newest, mut next, mut has_room) = (BTreeMap::new(), 0, true);
        for action in actions {
            match action {
                Action::Save(n) => {
                    next += 1;
                    newest.insert(CONTAINERS[n], next);
                    disk.run(|| save(store.as_ref().unwrap(), CONTAINERS[n], next));
                }
                Action::Delete(n) => {
                    newest.remove(CONTAINERS[n]);
                    disk.run(|| store.as_ref().unwrap().delete(&key(CONTAINERS[n])));
                }
                Action::Room(bytes) => {
                    has_room = bytes == u64::MAX;
                    disk.set_room(bytes);
                }
                Action::Wait => {
                    clock.block_on(tokio::time::advance(Duration::from_secs(1)));
                    disk.run(|| store.as_ref().unwrap().retry());
                    if has_room {
                        // Everything is on disk again.
                        let copy = dir_with("checkpoints.1", &fs::read(journal(dir.path())).unwrap());
                        let (copy, damage) = open_unsynced(copy.path());
                        prop_assert_eq!(damage, None);
                        prop_assert_eq!(CONTAINERS.map(|c| saved(&copy, c)), CONTAINERS.map(|c| newest.get(c).copied()));
                    }
                }
                Action::Kill => {
                    drop(store.take());
                    let (reopened, damage) = disk.run(|| open(dir.path()));
                    let values = CONTAINERS.map(|container| saved(&reopened, container));
                    if damage.is_none() {
                        prop_assert_eq!(values, CONTAINERS.map(|container| newest.get(container).copied()));
                    }
                    newest = CONTAINERS.into_iter().zip(values).filter_map(|(c, value)| Some((c, value?))).collect();
                    store = Some(reopened);
                }
            }
        }
    }
}
