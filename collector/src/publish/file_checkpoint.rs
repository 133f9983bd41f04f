//! File checkpoints: where a container's files are read again after a restart.

use bus::{Epoch, StreamId};
use serde::{Deserialize, Serialize};

/// A position in a container's files at which no line was open, and the number of lines of each
/// output before it.
///
/// It never lies after what the streams' checkpoints confirm. After a restart the files are read
/// from here, and lines are counted rather than searched for. The hash of the file's first line and
/// the anchor of the last confirmed line prove that the position is valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCheckpoint {
    /// The position.
    pub position: FilePosition,
    /// Lines of standard output.
    pub out: LineCount,
    /// Lines of standard error.
    pub err: LineCount,
}

/// A position in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// The file's device. Device and inode are tried first; both can be reused by another file.
    pub dev: u64,
    /// The file's inode.
    pub inode: u64,
    /// The hash of the first line, which identifies the file.
    pub head_hash: u64,
    /// Uncompressed bytes before the position.
    pub offset: u64,
    /// The hashes of the first lines of the files before it that the node had. All others come
    /// after it: the order of their names proves nothing.
    pub read: Vec<u64>,
}

/// The number of lines that a stream has before a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCount {
    millis: u64,
    random: u32,
    /// The sequence number of the next line.
    pub seq: u64,
}

impl LineCount {
    /// Creates the count of a stream.
    pub fn new(stream: &StreamId, seq: u64) -> Self {
        let Epoch { millis, random } = stream.epoch();
        Self { millis, random, seq }
    }

    /// Returns whether the count belongs to a stream.
    pub fn is_of(&self, stream: &StreamId) -> bool {
        let Epoch { millis, random } = stream.epoch();
        (self.millis, self.random) == (millis, random)
    }

    /// Returns the count some lines later.
    #[must_use]
    pub fn advanced_by(self, lines: u64) -> Self {
        Self {
            seq: self.seq + lines,
            ..self
        }
    }

    /// Returns whether both counts belong to the same stream.
    pub fn is_of_same(&self, other: &Self) -> bool {
        (self.millis, self.random) == (other.millis, other.random)
    }
}
