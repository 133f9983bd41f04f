use std::fs;

use tempfile::TempDir;

use super::*;

const LINE: &str = "2026-11-23T08:46:44.1Z stdout F ";

struct Node {
    dir: TempDir,
    assembler: LineAssembler,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            assembler: LineAssembler::default(),
            now: Instant::now(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let before = fs::read_to_string(self.path(name)).unwrap_or_default();
        fs::write(self.path(name), format!("{before}{LINE}{text}\n")).unwrap();
    }

    fn rotate(&self, time: &str) {
        fs::rename(self.path("0.log"), self.path(&format!("0.log.{time}"))).unwrap();
        fs::write(self.path("0.log"), "").unwrap();
    }

    fn open(&self, from: Option<&FilePosition>) -> (Tail, Opened) {
        let mut tail = Tail::new(self.dir.path().to_owned(), 0);
        let opened = tail.open(from, self.now).unwrap();
        (tail, opened)
    }

    /// Reads until there is no more data. Returns the texts and the outcomes other than `Read`.
    fn read(&mut self, tail: &mut Tail) -> (Vec<String>, Vec<ReadOutcome>) {
        let mut outcomes = Vec::new();
        loop {
            match tail.read_next(&mut self.assembler, self.now).unwrap() {
                ReadOutcome::Read => {}
                read_next => outcomes.push(read_next),
            }
            if !matches!(
                outcomes.last(),
                None | Some(ReadOutcome::Next { .. } | ReadOutcome::Unreadable)
            ) {
                break;
            }
        }
        let frame = String::from_utf8(self.assembler.frame(bus::Fd::Out).to_vec()).unwrap();
        self.assembler.clear();
        (frame.lines().map(|line| line[31..].to_owned()).collect(), outcomes)
    }
}

#[test]
fn a_rotated_file_is_complete_after_its_close_or_without_data_for_a_while() {
    for was_closed in [true, false] {
        let mut node = Node::new();
        node.append("0.log", "a");
        let (mut tail, _) = node.open(None);
        node.rotate("20261123-084316");
        node.append("0.log", "c");
        assert!(tail.scan(node.now).unwrap());
        let (texts, outcomes) = node.read(&mut tail);
        assert_eq!(texts, ["a"]);
        let [ReadOutcome::WaitingForClose(until)] = outcomes[..] else {
            panic!("{outcomes:?}")
        };
        node.append("0.log.20261123-084316", "b");
        if was_closed {
            tail.mark_closed(&Name::Rotated("20261123-084316".to_owned()));
        } else {
            node.now = until;
            assert_eq!(node.read(&mut tail).0, ["b"], "new data restarts the wait");
            node.now += CLOSE_TIMEOUT;
        }
        let (texts, outcomes) = node.read(&mut tail);
        assert_eq!(texts.last().unwrap(), "c");
        assert_eq!(outcomes, [ReadOutcome::Next { after_gap: false }, ReadOutcome::Idle]);
    }
}

#[test]
fn held_files_are_read_after_their_removal_and_the_gap_after_them_is_known() {
    let mut node = Node::new();
    node.append("0.log", "a");
    let (mut tail, _) = node.open(None);
    node.rotate("20261123-084316");
    node.append("0.log", "b");
    assert!(tail.scan(node.now).unwrap());
    // Two rotations happen between scans; then the two older files are removed.
    for time in ["20261123-084326", "20261123-084336"] {
        node.rotate(time);
        node.append("0.log", time);
    }
    for time in ["20261123-084316", "20261123-084326"] {
        fs::remove_file(node.path(&format!("0.log.{time}"))).unwrap();
    }
    assert!(tail.scan(node.now).unwrap());
    node.now += CLOSE_TIMEOUT;
    let (texts, outcomes) = node.read(&mut tail);
    assert_eq!(texts, ["a", "b", "20261123-084326", "20261123-084336"]);
    let next = |after_gap| ReadOutcome::Next { after_gap };
    assert_eq!(outcomes, [next(false), next(true), next(false), ReadOutcome::Idle]);
}

#[test]
fn a_position_is_found_after_a_rename_and_compression() {
    let mut node = Node::new();
    node.append("0.log", "a");
    let (mut tail, _) = node.open(None);
    assert_eq!(node.read(&mut tail).0, ["a"]);
    let position = tail.position().unwrap();
    node.append("0.log", "b");
    node.rotate("20261123-084316");
    node.append("0.log", "c");
    let plain = fs::read(node.path("0.log.20261123-084316")).unwrap();
    for is_gz in [false, true] {
        if is_gz {
            let file = fs::File::create(node.path("0.log.20261123-084316.gz")).unwrap();
            let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            io::Write::write_all(&mut gz, &plain).unwrap();
            gz.finish().unwrap();
            fs::remove_file(node.path("0.log.20261123-084316")).unwrap();
        }
        let (mut tail, opened) = node.open(Some(&position));
        assert_eq!(opened, Opened::Found);
        node.now += CLOSE_TIMEOUT;
        assert_eq!(node.read(&mut tail).0, ["b", "c"]);
    }
    fs::remove_file(node.path("0.log.20261123-084316.gz")).unwrap();
    let (mut tail, opened) = node.open(Some(&position));
    assert_eq!(opened, Opened::PositionGone);
    assert_eq!(node.read(&mut tail).0, ["c"]);
}

#[test]
fn a_file_that_is_truncated_before_it_is_read_may_have_lost_lines() {
    for is_rotated in [false, true] {
        let mut node = Node::new();
        node.append("0.log", "a");
        let (mut tail, _) = node.open(None);
        fs::write(node.path("0.log"), "").unwrap();
        node.append("0.log", "b");
        if is_rotated {
            node.rotate("20261123-084316");
            assert!(tail.scan(node.now).unwrap());
            node.now += CLOSE_TIMEOUT;
        }
        let (texts, outcomes) = node.read(&mut tail);
        assert_eq!(texts, ["b"]);
        assert_eq!(outcomes[0], ReadOutcome::Next { after_gap: true });
    }
}

#[test]
fn a_damaged_compressed_file_is_a_gap_before_the_next_file() {
    let mut node = Node::new();
    fs::write(node.path("0.log.20261123-084306.gz"), b"no gzip").unwrap();
    node.append("0.log", "c");
    let (mut tail, _) = node.open(None);
    assert!(tail.read_next(&mut node.assembler, node.now).is_err() && tail.is_broken());
    let (texts, outcomes) = node.read(&mut tail);
    assert_eq!(texts, ["c"]);
    assert_eq!(outcomes, [ReadOutcome::Unreadable, ReadOutcome::Idle]);
}

#[test]
fn names_that_go_back_change_neither_order_nor_what_was_read() {
    let mut node = Node::new();
    node.append("0.log", "a");
    let (mut tail, _) = node.open(None);
    // The clock steps back an hour between rotations.
    let mut texts = Vec::new();
    for (time, text) in [("20261123-094316", "b"), ("20261123-084316", "c")] {
        node.rotate(time);
        node.append("0.log", text);
        assert!(tail.scan(node.now).unwrap());
        node.now += CLOSE_TIMEOUT;
        texts.extend(node.read(&mut tail).0);
        assert!(!tail.scan(node.now).unwrap(), "nothing new");
    }
    assert_eq!(texts, ["a", "b", "c"]);
    let position = tail.position().unwrap();
    assert_eq!(position.read.len(), 2);
    node.rotate("20261123-074316");
    node.append("0.log", "d");
    let (mut tail, opened) = node.open(Some(&position));
    assert_eq!(opened, Opened::Found);
    node.now += CLOSE_TIMEOUT;
    assert_eq!(node.read(&mut tail).0, ["d"]);
    assert!(!tail.scan(node.now).unwrap());
}
