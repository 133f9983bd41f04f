//! Whatever a node does between two readings, as long as it keeps the files: every line once, in order.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf, time::Duration};

use bus::Fd;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// So many whole lines are printed, of one output.
    Lines(u8, Fd),
    /// The beginning of a line.
    Part(Fd),
    /// The file is rotated; the oldest plain one is compressed.
    Rotate,
    /// The tail looks at the directory.
    Look,
    /// The tail reads a turn.
    Turn,
    /// The tail is dropped, and begun again where it last could.
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let fd = || prop_oneof![3 => Just(Fd::Out), 1 => Just(Fd::Err)];
    let act = prop_oneof![
        4 => (1..40_u8, fd()).prop_map(|(lines, fd)| Act::Lines(lines, fd)),
        2 => fd().prop_map(Act::Part),
        2 => Just(Act::Rotate),
        2 => Just(Act::Look),
        4 => Just(Act::Turn),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..60)
}

/// A node with one container, and one who reads it.
struct World {
    dir: TempDir,
    rotations: u32,
    printed: u32,
    is_open: BTreeMap<bool, bool>,
    /// What was printed, by output, as the API would show it.
    expected: [String; 2],
    tail: Tail,
    joiner: Joiner,
    had: [String; 2],
    /// From where to go on, and what was had there.
    base: Option<(Place, [usize; 2])>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self {
            tail: Tail::new(dir.path().to_owned(), 0),
            dir,
            rotations: 0,
            printed: 0,
            is_open: BTreeMap::new(),
            expected: Default::default(),
            joiner: Joiner::default(),
            had: Default::default(),
            base: None,
            now: Instant::now(),
        };
        world.append("");
        assert_eq!(world.tail.open(None, world.now).unwrap(), Opened::There);
        world
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
        // The kubelet goes by size.
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

    fn turn(&mut self) -> Turn {
        self.now += Duration::from_secs(1);
        let turn = self.tail.turn(&mut self.joiner, self.now).unwrap();
        assert_ne!(turn, Turn::Next { after_hole: true });
        for (fd, had) in [Fd::Out, Fd::Err].into_iter().zip(&mut self.had) {
            *had += std::str::from_utf8(self.joiner.frame(fd)).unwrap();
        }
        self.joiner.clear();
        if !self.joiner.is_open()
            && let Some(place) = self.tail.place()
        {
            self.base = Some((place, self.had.each_ref().map(String::len)));
        }
        turn
    }

    fn restart(&mut self) {
        self.tail = Tail::new(self.dir.path().to_owned(), 0);
        self.joiner = Joiner::default();
        let place = self.base.map(|(place, _)| place);
        assert_eq!(self.tail.open(place.as_ref(), self.now).unwrap(), Opened::There);
        let had = self.base.map_or([0; 2], |(_, had)| had);
        self.had.iter_mut().zip(had).for_each(|(text, len)| text.truncate(len));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Lines(lines, fd) => (0..lines).for_each(|_| self.print(fd, false)),
            Act::Part(fd) => self.print(fd, true),
            Act::Rotate => self.rotate(),
            Act::Look => drop(self.tail.scan(self.now).unwrap()),
            Act::Turn => drop(self.turn()),
            Act::Restart => self.restart(),
        }
    }

    fn read_to_the_end(&mut self) {
        loop {
            let turn = self.turn();
            if turn == Turn::Idle && !self.tail.scan(self.now).unwrap() {
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_line_comes_once_and_in_order(acts in acts()) {
        let mut world = World::new();
        acts.into_iter().for_each(|act| world.act(act));
        world.read_to_the_end();
        prop_assert_eq!(&world.had, &world.expected);
    }
}
