//! A batch as attributes and data, the form every engine carries.

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    batch::{Batch, Content, Fd, Gap, GapReason, MAX_BATCH_BYTES, Part, StreamMetadata, VERSION},
    encoding,
    time::Timestamp,
};

/// The most bytes a message's data may have for us to look at it, as it comes and decompressed: Pub/Sub's own limit for a message.
const MAX_MESSAGE_BYTES: usize = 10_000_000;

/// A message that cannot be read as a batch. Its reader skips it, counts it and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a newer version.
    #[error("batch of unknown version {0:?}")]
    Version(String),
    /// Compressed in a way this version does not know.
    #[error("batch with unknown encoding {0:?}")]
    Encoding(String),
    /// Compressed data that cannot be read, or would be larger than a message may be.
    #[error("batch whose compressed data cannot be read: {0}")]
    Compressed(String),
    /// An attribute is missing or does not parse.
    #[error("batch with a bad attribute {name}: {value:?}")]
    Attribute {
        /// Which one.
        name: &'static str,
        /// As it came, empty where missing.
        value: String,
    },
    /// The data does not have the lines that the attributes tell.
    #[error("batch of {told} lines holds {found} whole ones")]
    Lines {
        /// As attributed.
        told: u64,
        /// Counted newlines.
        found: u64,
    },
    /// Larger than any message of ours.
    #[error("batch of {0} bytes")]
    Size(usize),
}

impl Batch {
    /// The attributes that say everything but the data.
    pub fn attributes(&self) -> Vec<(&'static str, String)> {
        let metadata = &self.metadata;
        let mut list = vec![
            ("v", VERSION.to_owned()),
            ("app", metadata.app.to_string()),
            ("process", metadata.process.clone()),
            ("stream", metadata.stream.to_string()),
            ("seq", self.seq.to_string()),
            ("lines", self.lines().to_string()),
            ("node", metadata.node.clone()),
            ("origin", metadata.origin.clone()),
        ];
        if let Some(fd) = metadata.fd {
            list.push(("fd", fd.to_string()));
        }
        if let Some(about) = &metadata.about {
            list.push(("about", about.clone()));
        }
        match &self.content {
            Content::Lines { part: None, .. } => {}
            Content::Lines { part: Some(part), .. } => list.push(("part", part.to_string())),
            Content::Gap(loss) => {
                list.push(("lost", loss.reason.to_string()));
                list.extend(loss.from.map(|from| ("from", from.to_string())));
                list.extend(loss.to.map(|to| ("to", to.to_string())));
            }
            Content::End => list.push(("end", "1".to_owned())),
            Content::Marker(nonce) => list.push(("marker", nonce.clone())),
        }
        list
    }

    /// Attributes and data, the data compressed where that pays.
    pub fn compressed(&self) -> (Vec<(&'static str, String)>, Bytes) {
        let mut attributes = self.attributes();
        let Some(data) = encoding::compress(self.data()) else {
            return (attributes, self.shared_data());
        };
        attributes.push(("encoding", encoding::ZSTD.to_owned()));
        (attributes, data)
    }

    /// Reads a message as a batch, decompressed where it was compressed, and proves that the data holds as many lines as told.
    ///
    /// # Errors
    /// [`Unreadable`]: the reader skips the message, counts it and says so.
    pub fn from_message(attributes: &HashMap<&str, &str>, data: Bytes) -> Result<Self, Unreadable> {
        let attributes = Attributes(attributes);
        let version = attributes.optional("v").unwrap_or_default();
        if version != VERSION {
            return Err(Unreadable::Version(version.to_owned()));
        }
        if data.len() > MAX_MESSAGE_BYTES {
            return Err(Unreadable::Size(data.len()));
        }
        let data = match attributes.optional("encoding") {
            Some(encoding::ZSTD) => encoding::decompress(&data, MAX_MESSAGE_BYTES).map_err(Unreadable::Compressed)?,
            Some(other) => return Err(Unreadable::Encoding(other.to_owned())),
            None => data,
        };
        let metadata = StreamMetadata {
            app: attributes.parsed("app")?,
            process: attributes.required("process")?.to_owned(),
            stream: attributes.parsed("stream")?,
            node: attributes.optional("node").unwrap_or_default().to_owned(),
            origin: attributes.required("origin")?.to_owned(),
            fd: attributes
                .optional("fd")
                .map(|fd| attributes.read("fd", fd, Fd::from_wire))
                .transpose()?,
            about: attributes.optional("about").map(str::to_owned),
        };
        let lines: u64 = attributes.parsed("lines")?;
        let seq: u64 = attributes.parsed("seq")?;
        if seq.checked_add(lines).is_none() {
            return Err(attributes.bad("seq"));
        }
        let content = attributes.content(lines, data)?;
        Ok(Self {
            metadata: Arc::new(metadata),
            seq,
            content,
        })
    }

    /// Whether it fits what the bus takes: at most [`MAX_BATCH_BYTES`] of data, save a single line or part, which may be as long as a line may be.
    pub fn fits(&self) -> bool {
        self.data().len() <= MAX_BATCH_BYTES
    }
}

struct Attributes<'a>(&'a HashMap<&'a str, &'a str>);

impl Attributes<'_> {
    fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name).copied()
    }

    fn required(&self, name: &'static str) -> Result<&str, Unreadable> {
        self.optional(name).ok_or_else(|| self.bad(name))
    }

    fn parsed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, Unreadable> {
        self.required(name)?.parse().map_err(|_| self.bad(name))
    }

    fn read<T>(&self, name: &'static str, value: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, Unreadable> {
        read(value).ok_or_else(|| self.bad(name))
    }

    fn bad(&self, name: &'static str) -> Unreadable {
        let value = self.optional(name).unwrap_or_default().chars().take(200).collect();
        Unreadable::Attribute { name, value }
    }

    fn content(&self, lines: u64, data: Bytes) -> Result<Content, Unreadable> {
        if let Some(nonce) = self.optional("marker") {
            return Ok(Content::Marker(nonce.to_owned()));
        }
        if self.optional("end").is_some() {
            return Ok(Content::End);
        }
        let time = |name| {
            self.optional(name)
                .map(|text| self.read(name, text, Timestamp::parse))
                .transpose()
        };
        if let Some(reason) = self.optional("lost") {
            let reason = GapReason::from_wire(reason);
            return Ok(Content::Gap(Gap {
                lines,
                reason,
                from: time("from")?,
                to: time("to")?,
            }));
        }
        let part = self
            .optional("part")
            .map(|part| self.read("part", part, Part::from_wire))
            .transpose()?;
        let found = memchr::memchr_iter(b'\n', &data).count() as u64;
        let whole = data.last() == Some(&b'\n');
        if found != lines || !whole || (part.is_some() && lines != 1) {
            return Err(Unreadable::Lines { told: lines, found });
        }
        Ok(Content::Lines { data, lines, part })
    }
}

impl Fd {
    fn from_wire(text: &str) -> Option<Self> {
        match text {
            "out" => Some(Self::Out),
            "err" => Some(Self::Err),
            _ => None,
        }
    }
}

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Out => "out",
            Self::Err => "err",
        })
    }
}

impl Part {
    fn from_wire(text: &str) -> Option<Self> {
        match text {
            "more" => Some(Self::More),
            "last" => Some(Self::Last),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::More => "more",
            Self::Last => "last",
        })
    }
}

/// The words that stand for the reasons on the wire.
const REASONS: [(&str, GapReason); 6] = [
    ("away", GapReason::Away),
    ("gone", GapReason::Gone),
    ("rotated", GapReason::Rotated),
    ("spool", GapReason::Spool),
    ("limit", GapReason::Limit),
    ("refused", GapReason::Refused),
];

impl GapReason {
    fn from_wire(text: &str) -> Self {
        let known = REASONS.into_iter().find(|(word, _)| *word == text);
        known.map_or_else(|| Self::Other(text.to_owned()), |(_, reason)| reason)
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Other(text) = self {
            return f.write_str(text);
        }
        let word = REASONS.iter().find(|(_, reason)| reason == self);
        f.write_str(word.map_or("unknown", |(word, _)| word))
    }
}
