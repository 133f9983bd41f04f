//! From where a container's files are read again after a restart.

use bus::{Epoch, StreamId};
use serde::{Deserialize, Serialize};

/// A place in a container's files at which no line was open, and how many lines each output had up to it.
///
/// What its streams' records say was accepted lies at or behind it: after a restart the files are read from here, and lines are counted, not looked for. The proof
/// is the file's first line, and the anchor of the last line that was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCheckpoint {
    /// Where.
    pub position: FilePosition,
    /// Lines of standard output.
    pub out: LineCount,
    /// Lines of standard error.
    pub err: LineCount,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// Its device and inode: where it is looked for first. Both can be another file's by now.
    pub dev: u64,
    /// See `dev`.
    pub inode: u64,
    /// What its first line is known by.
    pub head_hash: u64,
    /// Bytes before the place, uncompressed.
    pub offset: u64,
}

/// How many lines a stream has up to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCount {
    millis: u64,
    random: u32,
    /// The seq of the next line.
    pub seq: u64,
}

impl LineCount {
    /// Of this stream.
    pub fn new(stream: &StreamId, seq: u64) -> Self {
        let Epoch { millis, random } = stream.epoch();
        Self { millis, random, seq }
    }

    /// Whether it counts this stream's lines.
    pub fn is_of(&self, stream: &StreamId) -> bool {
        let Epoch { millis, random } = stream.epoch();
        (self.millis, self.random) == (millis, random)
    }
}
