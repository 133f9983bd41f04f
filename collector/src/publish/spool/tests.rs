use std::sync::Arc;

use bus::{AppName, Batch, Content, Epoch, GapReason, StreamId, StreamMetadata};
use proptest::prelude::*;

use super::segments::Shelf;
use crate::{
    anchor::{Mark, Progress},
    publish::{checkpoint::Record, entry::Step},
};

/// Small segments, so that a few batches fill one.
const SEGMENT_BYTES: u64 = 2_000;

fn metadata() -> Arc<StreamMetadata> {
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

fn batch(metadata: &Arc<StreamMetadata>, seq: u64, lines: u64) -> Step {
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
    let anchor = Progress::START.anchor(b"any");
    let seq_end = seq + lines;
    Step::Batch(batch, Some(Mark { seq_end, anchor }))
}

/// What happens to a shelf.
#[derive(Clone, Copy, Debug)]
enum Act {
    Append(u64),
    Take,
    Settle,
    PutBack,
    Evict,
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1u64..20).prop_map(Act::Append),
        3 => Just(Act::Take),
        2 => Just(Act::Settle),
        1 => Just(Act::PutBack),
        2 => Just(Act::Evict),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_comes_out_once_in_order_or_in_a_loss_that_counts_it(acts in acts()) {
        let dir = tempfile::tempdir().unwrap();
        let metadata = metadata();
        let mut record = Record::new(&metadata);
        let mut shelf = Shelf::open(dir.path(), SEGMENT_BYTES, &record).unwrap();
        let (mut appended, mut settled, mut evicted, mut lost) = (0, 0, 0, 0);
        let mut taken: Option<Step> = None;
        for act in acts.into_iter().chain([Act::PutBack]).chain((0..240).flat_map(|_| [Act::Take, Act::Settle])) {
            match act {
                Act::Append(lines) => {
                    shelf.append(&batch(&metadata, appended, lines)).unwrap();
                    appended += lines;
                    prop_assert_eq!(shelf.last().read.map(|read| read.seq_end), Some(appended));
                }
                Act::Take if taken.is_none() => {
                    taken = shelf.take().unwrap();
                    prop_assert_eq!(taken.is_none(), settled == appended);
                    if let Some(Step::Batch(batch, _)) = &taken {
                        prop_assert_eq!(batch.seq, settled);
                    }
                }
                Act::Settle => if let Some(Step::Batch(batch, end)) = taken.take() {
                    shelf.settle();
                    settled += batch.lines();
                    record.accepted = end;
                    prop_assert_eq!(end.map(|end| end.seq_end), Some(settled));
                    if let Content::Gap(loss) = batch.content {
                        prop_assert_eq!(loss.reason, GapReason::Spool);
                        lost += loss.lines;
                    }
                },
                Act::PutBack => {
                    taken = None;
                    shelf.put_back();
                }
                Act::Evict => {
                    let before = shelf.bytes();
                    evicted += shelf.evict().unwrap().unwrap_or_default();
                    // A loss is a little longer to say than a line, and stands for many.
                    prop_assert!(shelf.bytes() <= before + 200);
                }
                Act::Reopen => {
                    taken = None;
                    shelf = Shelf::open(dir.path(), SEGMENT_BYTES, &record).unwrap();
                }
                Act::Take => {}
            }
        }
        prop_assert_eq!((settled, lost), (appended, evicted));
        prop_assert!(shelf.is_empty());
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
