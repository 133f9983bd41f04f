//! Whatever a node does between two reads, as long as it keeps the files, every line is read once
//! and in order.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf, time::Duration};

use bus::Fd;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// One step of a test run.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// Writes this many whole lines to an output.
    Lines(u8, Fd),
    /// Writes the start of a line.
    Part(Fd),
    /// Rotates the file; compresses the oldest plain one.
    Rotate,
    /// Scans the directory.
    Scan,
    /// Reads once.
    Read,
    /// Drops the tail and resumes at the last possible position.
    Restart,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let fd = || prop_oneof![3 => Just(Fd::Out), 1 => Just(Fd::Err)];
    let apply = prop_oneof![
        4 => (1..40_u8, fd()).prop_map(|(lines, fd)| Action::Lines(lines, fd)),
        2 => fd().prop_map(Action::Part),
        2 => Just(Action::Rotate),
        2 => Just(Action::Scan),
        4 => Just(Action::Read),
        1 => Just(Action::Restart),
    ];
    prop::collection::vec(apply, 1..60)
}

/// A node with one container, and its reader.
struct Model {
    dir: TempDir,
    rotations: u32,
    printed: u32,
    is_open: BTreeMap<bool, bool>,
    /// Expected output as the API would print it, by output.
    expected: [String; 2],
    tail: Tail,
    assembler: LineAssembler,
    read: [String; 2],
    /// The position to resume from, and the output read up to it.
    resume: Option<(FilePosition, [usize; 2])>,
    now: Instant,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Self {
            tail: Tail::new(dir.path().to_owned(), 0),
            dir,
            rotations: 0,
            printed: 0,
            is_open: BTreeMap::new(),
            expected: Default::default(),
            assembler: LineAssembler::default(),
            read: Default::default(),
            resume: None,
            now: Instant::now(),
        };
        model.append("");
        assert_eq!(model.tail.open(None, model.now).unwrap(), Opened::Found);
        model
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, text: &str) {
        let file = fs::File::options().append(true).create(true).open(self.path("0.log"));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn print(&mut self, fd: Fd, is_partial: bool) {
        let (at, name) = match fd {
            Fd::Out => (0, "stdout"),
            Fd::Err => (1, "stderr"),
        };
        let (n, tag) = (self.printed, if is_partial { 'P' } else { 'F' });
        self.printed += 1;
        let was_open = self.is_open.insert(at == 1, is_partial).unwrap_or_default();
        if !was_open {
            self.expected[at] += &format!("2026-11-23T08:46:44.{n:09}Z ");
        }
        self.expected[at] += &format!("entry {n}");
        if !is_partial {
            self.expected[at] += "\n";
        }
        self.append(&format!("2026-11-23T08:46:44.{n:09}Z {name} {tag} entry {n}\n"));
    }

    fn rotate(&mut self) {
        // The kubelet rotates by size.
        if fs::metadata(self.path("0.log")).unwrap().len() == 0 {
            return;
        }
        let time = |n: u32| format!("0.log.20261123-{n:06}");
        if self.rotations > 1 {
            let path = self.path(&time(self.rotations - 1));
            let plain = fs::read(&path).unwrap();
            let gz = fs::File::create(self.path(&format!("{}.gz", time(self.rotations - 1)))).unwrap();
            let mut gz = flate2::write::GzEncoder::new(gz, flate2::Compression::fast());
            gz.write_all(&plain).unwrap();
            gz.finish().unwrap();
            fs::remove_file(path).unwrap();
        }
        self.rotations += 1;
        fs::rename(self.path("0.log"), self.path(&time(self.rotations))).unwrap();
        self.append("");
    }

    fn read_next(&mut self) -> ReadOutcome {
        self.now += Duration::from_secs(1);
        let outcome = self.tail.read_next(&mut self.assembler, self.now).unwrap();
        assert_ne!(outcome, ReadOutcome::Next { after_gap: true });
        for (fd, read) in [Fd::Out, Fd::Err].into_iter().zip(&mut self.read) {
            *read += std::str::from_utf8(self.assembler.frame(fd)).unwrap();
        }
        self.assembler.clear();
        if !self.assembler.is_open()
            && let Some(position) = self.tail.position()
        {
            self.resume = Some((position, self.read.each_ref().map(String::len)));
        }
        outcome
    }

    fn restart(&mut self) {
        self.tail = Tail::new(self.dir.path().to_owned(), 0);
        self.assembler = LineAssembler::default();
        let position = self.resume.as_ref().map(|(position, _)| position);
        assert_eq!(self.tail.open(position, self.now).unwrap(), Opened::Found);
        let read = self.resume.as_ref().map_or([0; 2], |(_, read)| *read);
        self.read
            .iter_mut()
            .zip(read)
            .for_each(|(text, len)| text.truncate(len));
    }

    fn apply(&mut self, apply: Action) {
        match apply {
            Action::Lines(lines, fd) => (0..lines).for_each(|_| self.print(fd, false)),
            Action::Part(fd) => self.print(fd, true),
            Action::Rotate => self.rotate(),
            Action::Scan => drop(self.tail.scan(self.now).unwrap()),
            Action::Read => drop(self.read_next()),
            Action::Restart => self.restart(),
        }
    }

    fn read_to_the_end(&mut self) {
        loop {
            let outcome = self.read_next();
            if outcome == ReadOutcome::Idle && !self.tail.scan(self.now).unwrap() {
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_line_is_read_once_and_in_order(actions in actions()) {
        let mut model = Model::new();
        actions.into_iter().for_each(|apply| model.apply(apply));
        model.read_to_the_end();
        prop_assert_eq!(&model.read, &model.expected);
    }
}
