//! Which container instance, as which collector read it.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use crate::time::PublishTime;

/// A collector's proof that a (stream, seq) never names two lines: its creation time in milliseconds and 32 random bits.
///
/// Made anew when a container is opened without a checkpoint, or when a resume cannot prove that what it reads joins what it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    /// Creation time, milliseconds since 1970.
    pub millis: u64,
    /// Tells two epochs of one millisecond apart.
    pub random: u32,
}

/// The id of a stream: the output of one container instance as one collector read it.
///
/// *Shape*: `POD_UID/CONTAINER/CONTAINER_ID/EPOCH`, where EPOCH is the creation time in decimal milliseconds, `-`, eight hex digits; with `--source files`
/// the container is followed by `:out` or `:err`. None of the parts holds a `/` (Kubernetes names and ids have none). Cheap to clone and to compare.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    text: Arc<str>,
    epoch: Epoch,
}

/// What is wrong with a text that should be a stream id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a stream id: POD_UID/CONTAINER/CONTAINER_ID/MILLIS-RANDOM")]
pub struct InvalidStreamId(pub String);

impl Epoch {
    /// A new one, now.
    pub fn new() -> Self {
        Self {
            millis: PublishTime::now().0 / 1000,
            random: rand::random(),
        }
    }

    /// When it was made, on the bus's time line.
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
    /// Names the stream that begins with this epoch.
    ///
    /// # Errors
    /// [`InvalidStreamId`] where a part is empty or holds a `/` or a control character.
    pub fn new(pod_uid: &str, container: &str, container_id: &str, epoch: Epoch) -> Result<Self, InvalidStreamId> {
        format!("{pod_uid}/{container}/{container_id}/{epoch}").parse()
    }

    /// The id as text, as it travels.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The epoch it ends in.
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
