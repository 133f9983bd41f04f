//! What every container printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;

/// Which output of a container a line was written to, if the source distinguishes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Output {
    /// Both, in the order in which they were written.
    Both,
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Output {
    /// Returns the name in JSON formats, if the source distinguishes the outputs.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Both => None,
            Self::Out => Some("out"),
            Self::Err => Some("err"),
        }
    }
}

/// A sequence of lines that must arrive in order: the output of one container instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit {
    /// The container id, without the runtime's prefix.
    pub instance: String,
    /// Which of its outputs.
    pub output: Output,
}

/// The lines of a unit.
#[derive(Clone, Debug, Default)]
pub struct UnitLines {
    /// The app.
    pub app: String,
    /// The process, as clients see it.
    pub process: String,
    /// When each line was printed, in virtual time.
    pub times: Vec<Duration>,
    /// The timestamp of each line.
    pub stamps: Vec<Timestamp>,
}

/// What every container printed.
#[derive(Clone, Debug, Default)]
pub struct Printed {
    units: BTreeMap<Unit, UnitLines>,
    by_text: BTreeMap<String, (Unit, usize)>,
    /// When pods were deleted, by process.
    deleted: BTreeMap<String, Duration>,
    /// From the kill of a collector whose checkpoints were then damaged until it started again.
    without_checkpoints: Vec<Range<Duration>>,
    /// Whether the API has served a pod, by process.
    served: BTreeMap<String, Arc<AtomicBool>>,
    /// Processes whose pod is gone.
    gone: BTreeSet<String>,
}

/// What a container printed this long before a kill may not be published, and its pod may be deleted
/// this long before its last line is read.
const IN_FLIGHT: Duration = Duration::from_secs(3);

impl Printed {
    /// Adds a unit, or returns the one that exists.
    pub fn unit(&mut self, unit: &Unit, app: &str, process: &str) -> &mut UnitLines {
        self.units.entry(unit.clone()).or_insert_with(|| UnitLines {
            app: app.to_owned(),
            process: process.to_owned(),
            ..UnitLines::default()
        })
    }

    /// Adds a line, whose text no other line has, with its timestamp and the time at which it was
    /// printed.
    pub fn add(&mut self, unit: &Unit, app: &str, process: &str, text: String, (stamp, at): (Timestamp, Duration)) {
        let lines = self.unit(unit, app, process);
        let index = lines.times.len();
        lines.times.push(at);
        lines.stamps.push(stamp);
        self.by_text.insert(text, (unit.clone(), index));
    }

    /// Records that a pod is deleted.
    pub fn delete_pod(&mut self, process: String, at: Duration) {
        self.deleted.insert(process, at);
    }

    /// Records that a collector was killed and lost checkpoints.
    pub fn lose_checkpoints(&mut self, killed: Duration, down: Duration) {
        self.without_checkpoints
            .push(killed.saturating_sub(IN_FLIGHT)..killed + down + IN_FLIGHT);
    }

    /// Returns how many lines of a unit a collector can read. Nothing names the last ones if neither a
    /// checkpoint nor its pod is left.
    pub fn collectable(&self, lines: &UnitLines) -> usize {
        let deleted = self.deleted.get(&lines.process);
        let mut absences = self.without_checkpoints.iter();
        let absence = deleted.and_then(|deleted| absences.find(|absence| absence.contains(deleted)));
        absence.map_or(lines.times.len(), |absence| {
            lines.times.partition_point(|at| *at < absence.start)
        })
    }

    /// Adds a pod; `is_served` tells whether the API has served it.
    pub fn add_pod(&mut self, process: &str, is_served: Arc<AtomicBool>) {
        self.served.insert(process.to_owned(), is_served);
    }

    /// Records that a pod is gone.
    pub fn remove_pod(&mut self, process: &str) {
        self.gone.insert(process.to_owned());
    }

    /// Returns whether a pod was created and deleted without being in any response of the API: a
    /// collector cannot report its lines.
    pub fn is_unheard(&self, process: &str) -> bool {
        let served = self.served.get(process);
        self.gone.contains(process) && served.is_some_and(|served| !served.load(Ordering::Relaxed))
    }

    /// Returns unit and index of a line.
    pub fn find(&self, text: &str) -> Option<(&Unit, usize)> {
        self.by_text.get(text).map(|(unit, index)| (unit, *index))
    }

    /// Returns the unit of a stream, by its id.
    pub fn unit_of_stream(&self, stream: &str) -> Option<&Unit> {
        let mut parts = stream.split('/');
        let (container, instance) = (parts.nth(1)?, parts.next()?);
        let output = match container.split_once(':') {
            Some((_, "out")) => Output::Out,
            Some((_, "err")) => Output::Err,
            _ => Output::Both,
        };
        let mut units = self.units.keys();
        units.find(|unit| unit.instance == instance && unit.output == output)
    }

    /// Returns all units.
    pub fn units(&self) -> impl Iterator<Item = (&Unit, &UnitLines)> {
        self.units.iter()
    }

    /// Returns the lines of a unit.
    pub fn lines(&self, unit: &Unit) -> Option<&UnitLines> {
        self.units.get(unit)
    }

    /// Returns the number of all lines.
    pub fn count(&self) -> usize {
        self.by_text.len()
    }
}
