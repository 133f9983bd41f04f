use std::sync::Arc;

use bus::{AppName, Batch, Content, Epoch, GapReason, StreamId, StreamMetadata};
use proptest::prelude::*;

use super::segments::Segments;
use crate::{
    anchor::{AnchorState, ResumePoint},
    publish::{checkpoint::Checkpoint, entry::OutboxEntry, full_disk::FullDisk},
};

/// Small segments, which a few batches fill.
const SEGMENT_BYTES: u64 = 2_000;

pub fn metadata() -> Arc<StreamMetadata> {
    Arc::new(StreamMetadata {
        app: "app".parse::<AppName>().unwrap(),
        process: "p".to_owned(),
        stream: StreamId::new("uid", "c", "id", Epoch::new()).unwrap(),
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    })
}

pub fn batch(metadata: &Arc<StreamMetadata>, seq: u64, lines: u64) -> OutboxEntry {
    let line = |n: u64| format!("2026-11-23T07:00:00.{n:09}Z line {n}\n");
    let data: String = (seq..seq + lines).map(line).collect();
    let content = Content::Lines {
        data: data.into(),
        lines,
        part: None,
    };
    let batch = Batch {
        metadata: Arc::clone(metadata),
        seq,
        content,
    };
    let anchor = AnchorState::START.anchor(b"any");
    let seq_end = seq + lines;
    OutboxEntry::Batch(batch, Some(ResumePoint { seq_end, anchor }))
}

/// One step of a test run.
#[derive(Clone, Copy, Debug)]
enum Action {
    Append(u64),
    ReadNext,
    Confirm,
    Requeue,
    Evict,
    Reopen,
    /// The disk has room for this many bytes until an append fails.
    Fill(u64),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        4 => (1u64..20).prop_map(Action::Append),
        3 => Just(Action::ReadNext),
        2 => Just(Action::Confirm),
        1 => Just(Action::Requeue),
        2 => Just(Action::Evict),
        1 => Just(Action::Reopen),
        1 => (0u64..1_000).prop_map(Action::Fill),
    ];
    prop::collection::vec(action, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_returned_once_in_order_or_counted_in_a_gap(actions in actions()) {
        let dir = tempfile::tempdir().unwrap();
        let (metadata, disk) = (metadata(), FullDisk::new());
        let mut checkpoint = Checkpoint::new(&metadata);
        let mut segments = Segments::open(dir.path(), SEGMENT_BYTES, &checkpoint).unwrap();
        let (mut appended, mut confirmed, mut evicted, mut lost) = (0, 0, 0, 0);
        let mut in_flight: Option<OutboxEntry> = None;
        for action in actions.into_iter().chain([Action::Requeue]).chain((0..240).flat_map(|_| [Action::ReadNext, Action::Confirm])) {
            match action {
                Action::Append(lines) => {
                    if disk.run(|| segments.append(&batch(&metadata, appended, lines))).is_err() {
                        disk.set_room(u64::MAX);
                        continue;
                    }
                    appended += lines;
                    prop_assert_eq!(segments.end().read.map(|read| read.seq_end), Some(appended));
                }
                Action::ReadNext if in_flight.is_none() => {
                    in_flight = segments.read_next().unwrap();
                    prop_assert_eq!(in_flight.is_none(), confirmed == appended);
                    if let Some(OutboxEntry::Batch(batch, _)) = &in_flight {
                        prop_assert_eq!(batch.seq, confirmed);
                    }
                }
                Action::Confirm => if let Some(OutboxEntry::Batch(batch, end)) = in_flight.take() {
                    segments.confirm();
                    confirmed += batch.lines();
                    checkpoint.accepted = end;
                    prop_assert_eq!(end.map(|end| end.seq_end), Some(confirmed));
                    if let Content::Gap(gap) = batch.content {
                        prop_assert_eq!(gap.reason, GapReason::Spool);
                        lost += gap.lines;
                    }
                },
                Action::Requeue => {
                    in_flight = None;
                    segments.requeue();
                }
                Action::Evict => {
                    let before = segments.bytes();
                    evicted += disk.run(|| segments.evict_oldest()).ok().flatten().unwrap_or_default();
                    // A gap is slightly longer than a line and replaces many.
                    prop_assert!(segments.bytes() <= before + 200);
                }
                Action::Reopen => {
                    in_flight = None;
                    segments = Segments::open(dir.path(), SEGMENT_BYTES, &checkpoint).unwrap();
                }
                Action::Fill(room) => disk.set_room(room),
                Action::ReadNext => {}
            }
        }
        prop_assert_eq!((confirmed, lost), (appended, evicted));
        prop_assert!(segments.is_empty());
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
