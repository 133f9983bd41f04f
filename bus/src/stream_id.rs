//! Ids of streams.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use crate::time::PublishTime;

/// Distinguishes successive readings of one container instance, so that a stream and a sequence
/// number never identify two lines: the creation time in milliseconds and 32 random bits.
///
/// A collector starts a new epoch if it opens a container without a checkpoint, or if it does not
/// find the resume anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    /// Creation time, milliseconds since 1970.
    pub millis: u64,
    /// Distinguishes epochs of one millisecond.
    pub random: u32,
}

/// The id of a stream: the output of one container instance as read by one collector.
///
/// *Shape*: `POD_UID/CONTAINER/CONTAINER_ID/EPOCH`, where EPOCH is the creation time in decimal
/// milliseconds, `-`, and eight hex digits; with `--source files` the container is followed by
/// `:out` or `:err`. No part contains a `/` or a control character. Cheap to clone and to compare.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    text: Arc<str>,
    epoch: Epoch,
}

/// The text is not a stream id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid stream id {0:?}: expected POD_UID/CONTAINER/CONTAINER_ID/MILLIS-RANDOM")]
pub struct InvalidStreamId(pub String);

impl Epoch {
    /// Creates an epoch.
    pub fn new() -> Self {
        Self {
            millis: PublishTime::now().0 / 1000,
            random: system::random::random(),
        }
    }

    /// Returns the creation time as a publish time.
    pub fn created(self) -> PublishTime {
        PublishTime(0).later_by(Duration::from_millis(self.millis))
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.millis, self.random)
    }
}

impl StreamId {
    /// Creates the id of a stream.
    ///
    /// # Errors
    /// [`InvalidStreamId`] if a part is empty or contains a `/` or a control character.
    pub fn new(pod_uid: &str, container: &str, container_id: &str, epoch: Epoch) -> Result<Self, InvalidStreamId> {
        format!("{pod_uid}/{container}/{container_id}/{epoch}").parse()
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the part that names the container instance and its output: the id without its epoch.
    pub fn container_instance(&self) -> &str {
        self.text.rsplit_once('/').map_or(&*self.text, |(instance, _)| instance)
    }

    /// Returns the epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(text: &str) -> Result<Self, InvalidStreamId> {
        let invalid = || InvalidStreamId(text.chars().take(200).collect());
        let mut parts = text.split('/');
        let mut part = || parts.next().filter(|p| !p.is_empty() && !p.contains(char::is_control));
        let (Some(_), Some(_), Some(_), Some(epoch), None) = (part(), part(), part(), part(), part()) else {
            return Err(invalid());
        };
        let (millis, random) = epoch.split_once('-').ok_or_else(invalid)?;
        let epoch = Epoch {
            millis: millis.parse().map_err(|_| invalid())?,
            random: u32::from_str_radix(random, 16).map_err(|_| invalid())?,
        };
        Ok(Self {
            text: text.into(),
            epoch,
        })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
