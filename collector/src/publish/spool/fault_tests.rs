//! What a failing disk and a lost checkpoint do to the spool.

use std::{fs, sync::Arc};

use bus::{Batch, Content, StreamMetadata};

use super::{
    ReadError, Spool,
    segments::Segments,
    tests::{batch, metadata},
};
use crate::{
    anchor::{AnchorState, ResumePoint},
    instance::InstanceKey,
    metrics::Metrics,
    publish::{
        checkpoint::{Checkpoint, CheckpointStore},
        entry::OutboxEntry,
        full_disk::{FullDisk, paths},
    },
};

/// Reads and confirms everything; returns the ranges of the batches.
fn read_all(segments: &mut Segments) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    while let Some(entry) = segments.read_next().unwrap() {
        if let OutboxEntry::Batch(batch, _) = entry {
            ranges.push((batch.seq, batch.lines()));
        }
        segments.confirm();
    }
    ranges
}

#[test]
fn a_refused_append_costs_nothing_but_itself() {
    let metadata = metadata();
    let checkpoint = Checkpoint::new(&metadata);
    for (written_before, reopened) in [(0, false), (0, true), (3, false), (3, true)] {
        for room in (0..700).step_by(13) {
            let (dir, disk) = (tempfile::tempdir().unwrap(), FullDisk::new());
            let mut segments = Segments::open(dir.path(), 1 << 20, &checkpoint).unwrap();
            let mut expected = Vec::new();
            let mut append = |segments: &mut Segments| {
                let seq = 2 * expected.len() as u64;
                let written = disk.run(|| segments.append(&batch(&metadata, seq, 2))).is_ok();
                expected.extend(written.then_some((seq, 2)));
                written
            };
            for _ in 0..written_before {
                assert!(append(&mut segments));
            }
            disk.set_room(room);
            while append(&mut segments) {}
            assert!(!append(&mut segments));
            disk.set_room(u64::MAX);
            for _ in 0..3 {
                assert!(append(&mut segments));
            }
            if reopened {
                segments = Segments::open(dir.path(), 1 << 20, &checkpoint).unwrap();
            }
            assert_eq!(read_all(&mut segments), expected, "{room} bytes of room");
            assert_eq!(paths(dir.path()).len(), 0);
        }
    }
}

#[test]
fn entries_after_a_segment_that_could_not_be_cut_are_kept() {
    let metadata = metadata();
    let checkpoint = Checkpoint::new(&metadata);
    for at in [0, 4] {
        let dir = tempfile::tempdir().unwrap();
        // Each entry fills a segment.
        let mut segments = Segments::open(dir.path(), 1, &checkpoint).unwrap();
        for seq in [0, 2, 4] {
            segments.append(&batch(&metadata, seq, 2)).unwrap();
        }
        drop(segments);
        let files = paths(dir.path());
        let torn = &fs::read(&files[0]).unwrap()[..50];
        if at == 0 {
            // An empty segment before the first entry.
            files
                .iter()
                .rev()
                .for_each(|path| fs::rename(path, next(path)).unwrap());
            fs::write(&files[0], torn).unwrap();
        } else {
            let whole = fs::read(&files[1]).unwrap();
            fs::write(&files[1], [&whole, torn].concat()).unwrap();
        }
        let mut segments = Segments::open(dir.path(), 1, &checkpoint).unwrap();
        assert_eq!(read_all(&mut segments), [(0, 2), (2, 2), (4, 2)]);
    }
}

/// Returns the path of the segment after this one.
fn next(path: &std::path::Path) -> std::path::PathBuf {
    let number: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    path.with_file_name(format!("{:010}.spool", number + 1))
}

#[test]
fn a_full_disk_during_an_eviction_keeps_all_entries() {
    let (dir, disk, metadata) = (tempfile::tempdir().unwrap(), FullDisk::new(), metadata());
    let checkpoint = Checkpoint::new(&metadata);
    let mut segments = Segments::open(dir.path(), 1 << 20, &checkpoint).unwrap();
    for seq in 0..3 {
        segments.append(&batch(&metadata, seq, 1)).unwrap();
    }
    disk.set_room(100);
    assert!(disk.run(|| segments.evict_oldest()).is_err());
    assert_eq!(paths(dir.path()).len(), 1);
    assert_eq!(read_all(&mut segments), [(0, 1), (1, 1), (2, 1)]);
}

fn key() -> InstanceKey {
    InstanceKey {
        pod_uid: "uid".to_owned(),
        container: "c".to_owned(),
        container_id: "id".to_owned(),
    }
}

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    /// Spools these batches of two lines.
    fn with_spooled(metadata: &Arc<StreamMetadata>, seqs: impl IntoIterator<Item = u64>) -> Self {
        let node = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let checkpoint = Checkpoint::new(metadata);
        let (spool, _) = node.open(&checkpoint);
        let spooled = spool.stream_spool(&key(), &checkpoint).unwrap();
        for seq in seqs {
            assert!(spooled.append(&batch(metadata, seq, 2)));
        }
        drop(spooled);
        fs::remove_dir_all(node.dir.path().join("checkpoints")).unwrap();
        node
    }

    fn open(&self, checkpoint: &Checkpoint) -> (Arc<Spool>, CheckpointStore) {
        let checkpoints = self.checkpoints();
        checkpoints.save(&key(), checkpoint);
        (self.spool(&checkpoints), checkpoints)
    }

    fn checkpoints(&self) -> CheckpointStore {
        let dir = self.dir.path().join("checkpoints");
        CheckpointStore::open(&dir, &Metrics::default()).unwrap().0
    }

    fn spool(&self, checkpoints: &CheckpointStore) -> Arc<Spool> {
        let spool = Spool::open(&self.dir.path().join("spool"), 1 << 30, checkpoints, Metrics::default());
        Arc::new(spool.unwrap())
    }

    fn spool_dir(&self) -> std::path::PathBuf {
        paths(&self.dir.path().join("spool")).remove(0)
    }
}

#[test]
fn spooled_lines_without_a_checkpoint_get_one_and_are_published() {
    for owner in ["kept", "damaged", "renamed"] {
        let metadata = metadata();
        let node = Node::with_spooled(&metadata, [500, 502]);
        match owner {
            "damaged" => fs::write(node.spool_dir().join("instance"), "").unwrap(),
            "renamed" => fs::rename(node.spool_dir(), node.dir.path().join("spool/other")).unwrap(),
            _ => {}
        }
        let checkpoints = node.checkpoints();
        let spool = node.spool(&checkpoints);
        let checkpoint = checkpoints.get(&key()).unwrap();
        assert!(checkpoint.is_for(&metadata.stream));
        // Numbers below 500 were used for lines that the log may no longer contain.
        let sent = checkpoint.sent.unwrap();
        assert_eq!((checkpoint.accepted, sent.seq_end, sent.anchor.ordinal), (None, 500, 0));
        let spooled = spool.stream_spool(&key(), &checkpoint).unwrap();
        assert_eq!(read_all(&mut spooled.segments.lock()), [(500, 2), (502, 2)], "{owner}");
    }
}

#[test]
fn spooled_lines_of_a_newer_stream_than_the_checkpoint_get_a_checkpoint() {
    let older = metadata();
    let mut newer = StreamMetadata::clone(&older);
    let epoch = bus::Epoch {
        millis: older.stream.epoch().millis + 1,
        random: 0,
    };
    newer.stream = bus::StreamId::new("uid", "c", "id", epoch).unwrap();
    let newer = Arc::new(newer);
    let node = Node::with_spooled(&newer, [2]);
    let anchor = AnchorState::START.anchor(b"any");
    let mut stale = Checkpoint::new(&older);
    stale.accepted = Some(ResumePoint { seq_end: 90, anchor });
    stale.restarts = Some(3);
    let (_spool, checkpoints) = node.open(&stale);
    let checkpoint = checkpoints.get(&key()).unwrap();
    assert!(checkpoint.is_for(&newer.stream));
    assert_eq!((checkpoint.accepted, checkpoint.restarts), (None, Some(3)));
}

#[test]
fn spooled_lines_that_the_bus_has_are_deleted_with_their_ended_stream() {
    let metadata = metadata();
    let node = Node::with_spooled(&metadata, [0, 2]);
    let mut ended = Checkpoint::new(&metadata);
    ended.ended = true;
    let (_spool, _) = node.open(&ended);
    assert_eq!(paths(&node.dir.path().join("spool")).len(), 0);
}

#[test]
fn spooled_data_of_an_unknown_stream_is_kept() {
    let node = Node::with_spooled(&metadata(), [0]);
    let dir = node.spool_dir();
    for path in paths(&dir) {
        fs::write(path, "damaged").unwrap();
    }
    let checkpoints = node.checkpoints();
    drop(node.spool(&checkpoints));
    assert_eq!((paths(&dir).len(), checkpoints.all().len()), (2, 0));
}

#[test]
fn an_unreadable_segment_before_spooled_lines_without_a_checkpoint_costs_only_itself() {
    let metadata = metadata();
    let node = Node::with_spooled(&metadata, [6]);
    let dir = node.spool_dir();
    let segment = dir.join("0000000000.spool");
    fs::rename(&segment, next(&segment)).unwrap();
    fs::write(&segment, "damaged").unwrap();
    let checkpoints = node.checkpoints();
    let spool = node.spool(&checkpoints);
    let spooled = spool.stream_spool(&key(), &checkpoints.get(&key()).unwrap()).unwrap();
    assert_eq!(read_all(&mut spooled.segments.lock()), [(6, 2)]);
}

#[test]
fn numbers_before_a_spooled_gap_without_a_checkpoint_are_not_used_again() {
    let metadata = metadata();
    let node = Node::with_spooled(&metadata, []);
    let checkpoint = Checkpoint::new(&metadata);
    let (spool, checkpoints) = node.open(&checkpoint);
    let gap = Batch {
        metadata: Arc::clone(&metadata),
        seq: 7,
        content: Content::Gap(bus::Gap {
            lines: 0,
            reason: bus::GapReason::Rotated,
            from: Some(bus::Timestamp(5)),
            to: None,
        }),
    };
    let spooled = spool.stream_spool(&key(), &checkpoint).unwrap();
    assert!(spooled.append(&OutboxEntry::Batch(gap, None)));
    checkpoints.delete(&key());
    drop(node.spool(&checkpoints));
    let sent = checkpoints.get(&key()).unwrap().sent.unwrap();
    assert_eq!((sent.seq_end, sent.anchor.time), (7, 5));
}

#[test]
fn a_spool_that_cannot_be_opened_for_a_moment_keeps_its_entries() {
    let (metadata, disk) = (metadata(), FullDisk::new());
    let node = Node::with_spooled(&metadata, [0, 2]);
    let checkpoint = Checkpoint::new(&metadata);
    let (spool, _checkpoints) = node.open(&checkpoint);
    disk.set_no_descriptors(true);
    assert!(disk.run(|| spool.stream_spool(&key(), &checkpoint)).is_err());
    disk.set_no_descriptors(false);
    let spooled = disk.run(|| spool.stream_spool(&key(), &checkpoint)).unwrap();
    disk.set_no_descriptors(true);
    assert!(matches!(disk.run(|| spooled.read_next()), Err(ReadError::Refused(_))));
    disk.set_no_descriptors(false);
    assert_eq!(disk.run(|| read_all(&mut spooled.segments.lock())), [(0, 2), (2, 2)]);
}

#[test]
fn an_instance_that_has_spooled_nothing_starts_without_descriptors() {
    let (metadata, disk) = (metadata(), FullDisk::new());
    let node = Node::with_spooled(&metadata, []);
    let checkpoint = Checkpoint::new(&metadata);
    let (spool, _checkpoints) = node.open(&checkpoint);
    disk.set_no_descriptors(true);
    let spooled = disk.run(|| spool.stream_spool(&key(), &checkpoint)).unwrap();
    assert!(spooled.is_empty());
}

#[test]
fn a_spool_that_is_gone_says_where_it_ended() {
    let metadata = metadata();
    let node = Node::with_spooled(&metadata, [0, 2]);
    let checkpoint = Checkpoint::new(&metadata);
    let (spool, _checkpoints) = node.open(&checkpoint);
    let spooled = spool.stream_spool(&key(), &checkpoint).unwrap();
    fs::remove_dir_all(node.spool_dir()).unwrap();
    let Err(ReadError::Lost(end)) = spooled.read_next() else {
        panic!("a file that does not exist was read")
    };
    assert_eq!((end.stream.as_ref(), end.next_seq), (Some(&metadata.stream), 4));
    assert!(spooled.is_empty());
    assert!(spooled.read_next().unwrap().is_none());
}
