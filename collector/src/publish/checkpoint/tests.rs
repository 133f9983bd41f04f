use std::{
    fs,
    path::{Path, PathBuf},
};

use bus::{AppName, Epoch, Fd, StreamId, StreamMetadata};

use super::{Checkpoint, CheckpointStore, Damage};
use crate::{
    anchor::{AnchorState, ResumePoint},
    error::CollectorError,
    instance::InstanceKey,
    metrics::Metrics,
    publish::{
        file_checkpoint::{FileCheckpoint, FilePosition, LineCount},
        full_disk::{FullDisk, paths},
    },
};

pub fn key(container: &str) -> InstanceKey {
    InstanceKey {
        pod_uid: "uid".to_owned(),
        container: container.to_owned(),
        container_id: "id".to_owned(),
    }
}

pub fn checkpoint(container: &str, seq_end: u64) -> Checkpoint {
    let epoch = Epoch { millis: 1, random: 2 };
    let metadata = StreamMetadata {
        app: "app".parse::<AppName>().unwrap(),
        process: "p".to_owned(),
        stream: StreamId::new("uid", container, "id", epoch).unwrap(),
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    };
    let anchor = AnchorState::START.anchor(b"line");
    Checkpoint {
        accepted: Some(ResumePoint { seq_end, anchor }),
        ..Checkpoint::new(&metadata)
    }
}

pub fn open(dir: &Path) -> (CheckpointStore, Option<Damage>) {
    CheckpointStore::open(dir, &Metrics::default()).unwrap()
}

/// Like [`open`], on a disk that ignores syncs, for tests that open many directories.
pub fn open_unsynced(dir: &Path) -> (CheckpointStore, Option<Damage>) {
    FullDisk::new().run(|| open(dir))
}

pub fn save(store: &CheckpointStore, container: &str, seq_end: u64) {
    store.save(&key(container), &checkpoint(container, seq_end));
}

/// Returns the number that was saved for a container.
pub fn saved(store: &CheckpointStore, container: &str) -> Option<u64> {
    Some(store.get(&key(container))?.accepted.unwrap().seq_end)
}

/// Returns the only generation.
pub fn journal(dir: &Path) -> PathBuf {
    let mut found = paths(dir);
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("checkpoints."));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Returns a directory with a journal of this content.
pub fn dir_with(name: &str, content: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), content).unwrap();
    dir
}

#[test]
fn a_record_cut_off_at_any_byte_leaves_the_value_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save(&store, "c", 1);
    let path = journal(dir.path());
    let start = fs::read(&path).unwrap().len();
    save(&store, "c", 2);
    let whole = fs::read(&path).unwrap();
    for len in start..=whole.len() {
        let copy = dir_with("checkpoints.1", &whole[..len]);
        let (store, damage) = open_unsynced(copy.path());
        let expected = if len == whole.len() { 2 } else { 1 };
        assert_eq!((saved(&store, "c"), damage), (Some(expected), None), "cut at {len}");
        save(&store, "c", 3);
        drop(store);
        assert_eq!(saved(&open_unsynced(copy.path()).0, "c"), Some(3));
    }
}

#[test]
fn a_flipped_bit_is_reported_and_costs_at_most_the_record_that_contains_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save(&store, "a", 1);
    save(&store, "b", 1);
    drop(store);
    // A generation with entries of its own, then changes.
    let (store, _) = open(dir.path());
    save(&store, "a", 2);
    save(&store, "c", 2);
    store.delete(&key("c"));
    save(&store, "b", 2);
    let whole = fs::read(journal(dir.path())).unwrap();
    for at in 0..whole.len() {
        let mut content = whole.clone();
        content[at] ^= 1 << (at % 8);
        let copy = dir_with("checkpoints.9", &content);
        let (store, damage) = open_unsynced(copy.path());
        assert!(damage.is_some(), "bit flipped at {at}");
        let values = ["a", "b", "c"].map(|container| saved(&store, container));
        let differing = values
            .iter()
            .zip([Some(2), Some(2), None])
            .filter(|(value, newest)| *value != newest);
        assert!(differing.count() <= 1, "{values:?} after a bit flipped at {at}");
        drop(store);
        let (store, damage) = open_unsynced(copy.path());
        assert_eq!(
            (damage, ["a", "b", "c"].map(|container| saved(&store, container))),
            (None, values)
        );
    }
}

#[test]
fn a_file_that_lacks_entries_of_its_start_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save(&store, "a", 1);
    save(&store, "b", 1);
    drop(store);
    drop(open(dir.path()));
    let whole = fs::read(journal(dir.path())).unwrap();
    for len in 0..whole.len() {
        let copy = dir_with("checkpoints.1", &whole[..len]);
        assert!(open_unsynced(copy.path()).1.is_some(), "cut at {len}");
    }
}

#[test]
fn a_damaged_file_is_set_aside_alone() {
    let dir = dir_with("checkpoints.5", b"damaged");
    let spooled = dir.path().join("spool/stream");
    fs::create_dir_all(&spooled).unwrap();
    let (store, damage) = open(dir.path());
    let set_aside = damage.unwrap().set_aside.unwrap();
    assert_eq!(fs::read(&set_aside).unwrap(), b"damaged");
    assert!(spooled.exists());
    save(&store, "c", 1);
    drop(store);
    let (store, damage) = open(dir.path());
    assert_eq!((saved(&store, "c"), damage), (Some(1), None));
    assert!(set_aside.exists());
}

#[test]
fn the_newest_readable_generation_is_used_and_others_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    save(&store, "c", 1);
    let older = fs::read(journal(dir.path())).unwrap();
    save(&store, "c", 2);
    let newest = fs::read(journal(dir.path())).unwrap();
    let copy = dir_with("checkpoints.9", &older);
    fs::write(copy.path().join("checkpoints.10"), newest).unwrap();
    fs::write(copy.path().join("checkpoints.11.tmp"), "unfinished").unwrap();
    let (store, damage) = open_unsynced(copy.path());
    assert_eq!((saved(&store, "c"), damage), (Some(2), None));
    assert_eq!(journal(copy.path()), copy.path().join("checkpoints.11"));
    drop(store);
    // The newest one cannot be read: the older value is not taken for the newest.
    let copy = dir_with("checkpoints.9", &older);
    fs::write(copy.path().join("checkpoints.10"), "damaged").unwrap();
    let (store, damage) = open_unsynced(copy.path());
    assert_eq!((saved(&store, "c"), damage.is_some()), (Some(1), true));
}

#[test]
fn a_long_journal_is_rewritten_with_the_newest_values() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for seq_end in 0..30_000 {
        save(&store, ["a", "b", "c"][seq_end as usize % 3], seq_end);
    }
    store.delete(&key("b"));
    let len = fs::metadata(journal(dir.path())).unwrap().len();
    assert!(len <= 4 << 20, "{len} bytes");
    drop(store);
    let (store, damage) = open(dir.path());
    assert_eq!(damage, None);
    let values = ["a", "b", "c"].map(|container| saved(&store, container));
    assert_eq!(values, [Some(29_997), None, Some(29_999)]);
    assert_eq!(store.all().len(), 2);
}

#[test]
fn deleting_standard_output_deletes_standard_error_and_the_file_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let (out, err) = (key("c").with_fd(Fd::Out), key("c").with_fd(Fd::Err));
    let stream = StreamId::new("uid", "c", "id", Epoch::new()).unwrap();
    let file_checkpoint = FileCheckpoint {
        position: FilePosition {
            dev: 1,
            inode: 2,
            head_hash: u64::MAX,
            offset: 4,
            read: vec![7],
        },
        out: LineCount::new(&stream, 5),
        err: LineCount::new(&stream, 6),
    };
    for key in [&out, &err] {
        store.save(key, &checkpoint("c", 1));
    }
    store.save_file_checkpoint(&out, &file_checkpoint);
    drop(store);
    let (store, _) = open(dir.path());
    assert_eq!(store.file_checkpoint(&out), Some(file_checkpoint));
    assert_eq!(store.all().len(), 2);
    store.delete(&out);
    drop(store);
    let (store, _) = open(dir.path());
    assert_eq!((store.all(), store.file_checkpoint(&out)), (vec![], None));
}

#[test]
fn a_directory_belongs_to_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let clone = store.clone();
    drop(store);
    let refused = CheckpointStore::open(dir.path(), &Metrics::default());
    assert!(matches!(refused, Err(CollectorError::InUse(_))));
    drop(clone);
    open(dir.path());
}

#[test]
fn a_directory_with_other_content_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("lost+found")).unwrap();
    fs::create_dir_all(dir.path().join("spool")).unwrap();
    let foreign = dir.path().join("version");
    fs::write(&foreign, "not ours").unwrap();
    let refused = CheckpointStore::open(dir.path(), &Metrics::default());
    assert!(matches!(refused, Err(CollectorError::Open { .. })));
    assert_eq!(paths(dir.path()).len(), 3);
    fs::remove_file(foreign).unwrap();
    open(dir.path());
}

#[test]
fn the_database_of_an_earlier_version_is_set_aside_without_its_spool() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["keyspaces/0", "spool/stream"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for name in [
        "lock",
        "version",
        "0.jnl",
        "keyspaces/0/current",
        "spool/stream/instance",
    ] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let (store, damage) = open(dir.path());
    let set_aside = damage.unwrap().set_aside.unwrap();
    for name in ["version", "0.jnl", "keyspaces/0/current"] {
        assert_eq!(fs::read_to_string(set_aside.join(name)).unwrap(), name);
    }
    assert!(dir.path().join("spool/stream/instance").exists());
    save(&store, "c", 1);
    drop(store);
    let (store, damage) = open(dir.path());
    assert_eq!((saved(&store, "c"), damage), (Some(1), None));
}
