//! The batch format: a batch as attributes and data, the form in which every engine carries it.
//!
//! It is public; docs/reference/batch-format.md describes it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use system::collections::HashMap;

use crate::{
    batch::{Batch, Content, Fd, Gap, GapReason, Part, PlatformMessage, StreamMetadata, VERSION},
    encoding,
    time::Timestamp,
};

/// Maximum data of a readable message in bytes, both as received and decompressed: Pub/Sub's own
/// limit for a message.
const MAX_MESSAGE_BYTES: usize = 10_000_000;

/// Why a message is not a readable batch. A reader skips, counts and reports such a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The version is unknown.
    #[error("unknown batch version {0:?}")]
    Version(String),
    /// The compression is unknown.
    #[error("unknown batch encoding {0:?}")]
    Encoding(String),
    /// The compressed data is corrupt or exceeds the maximum size of a message.
    #[error("corrupt compressed data: {0}")]
    Compressed(String),
    /// An attribute is missing or invalid.
    #[error("invalid batch attribute {name}: {value:?}")]
    Attribute {
        /// Name of the attribute.
        name: &'static str,
        /// Its value, empty if it is missing.
        value: String,
    },
    /// The data does not hold the number of lines that the attributes state.
    #[error("batch of {stated} lines contains {found}")]
    Lines {
        /// Number of lines according to the attributes.
        stated: u64,
        /// Number of newlines in the data.
        found: u64,
    },
    /// The message exceeds the maximum size.
    #[error("batch of {0} bytes exceeds the maximum")]
    Size(usize),
}

impl Batch {
    /// Encodes everything but the data as attributes.
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
            Content::Message { message, .. } => {
                list.push(("code", message.code.clone()));
                list.push(("reason", message.reason.clone()));
            }
            Content::Gap(gap) => {
                list.push(("lost", gap.reason.to_string()));
                list.extend(gap.from.map(|from| ("from", from.to_string())));
                list.extend(gap.to.map(|to| ("to", to.to_string())));
            }
            Content::End => list.push(("end", "1".to_owned())),
            Content::Marker(nonce) => list.push(("marker", nonce.clone())),
        }
        list
    }

    /// Encodes the batch as attributes and data, with the data compressed if that saves bytes.
    pub fn compressed(&self) -> (Vec<(&'static str, String)>, Bytes) {
        let mut attributes = self.attributes();
        let Some(data) = encoding::compress(self.data()) else {
            return (attributes, self.shared_data());
        };
        attributes.push(("encoding", encoding::ZSTD.to_owned()));
        (attributes, data)
    }

    /// Decodes a message, decompresses its data, and verifies that it holds the stated number of
    /// lines. Unknown attributes are ignored.
    ///
    /// # Errors
    /// [`Unreadable`]: skip, count and report the message.
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
                .map(|fd| attributes.convert("fd", fd, Fd::from_wire))
                .transpose()?,
            about: attributes.optional("about").map(str::to_owned),
        };
        let lines: u64 = attributes.parsed("lines")?;
        let seq: u64 = attributes.parsed("seq")?;
        if seq.checked_add(lines).is_none() {
            return Err(attributes.invalid("seq"));
        }
        let content = attributes.content(lines, data)?;
        Ok(Self {
            metadata: Arc::new(metadata),
            seq,
            content,
        })
    }
}

struct Attributes<'a>(&'a HashMap<&'a str, &'a str>);

impl Attributes<'_> {
    fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name).copied()
    }

    fn required(&self, name: &'static str) -> Result<&str, Unreadable> {
        self.optional(name).ok_or_else(|| self.invalid(name))
    }

    fn parsed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, Unreadable> {
        self.required(name)?.parse().map_err(|_| self.invalid(name))
    }

    fn convert<T>(
        &self,
        name: &'static str,
        value: &str,
        convert: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Unreadable> {
        convert(value).ok_or_else(|| self.invalid(name))
    }

    fn invalid(&self, name: &'static str) -> Unreadable {
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
                .map(|text| self.convert(name, text, Timestamp::parse))
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
            .map(|part| self.convert("part", part, Part::from_wire))
            .transpose()?;
        let found = memchr::memchr_iter(b'\n', &data).count() as u64;
        let whole = data.last() == Some(&b'\n');
        if found != lines || !whole || (part.is_some() && lines != 1) {
            return Err(Unreadable::Lines { stated: lines, found });
        }
        if let Some(code) = self.optional("code") {
            if lines != 1 || part.is_some() {
                return Err(self.invalid("code"));
            }
            let message = Arc::new(PlatformMessage {
                code: code.to_owned(),
                reason: self.optional("reason").unwrap_or_default().to_owned(),
            });
            return Ok(Content::Message { data, message });
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

/// Values of attribute `lost`.
static REASONS: [(&str, GapReason); 8] = [
    ("away", GapReason::Away),
    ("gone", GapReason::Gone),
    ("rotated", GapReason::Rotated),
    ("spool", GapReason::Spool),
    ("limit", GapReason::Limit),
    ("refused", GapReason::Refused),
    ("suspected", GapReason::Suspected),
    ("may_repeat", GapReason::MayRepeat),
];

/// The label of reasons that this version does not know.
const OTHER: &str = "other";

impl GapReason {
    fn from_wire(text: &str) -> Self {
        let reason = REASONS.iter().find(|(token, _)| *token == text);
        reason.map_or_else(|| Self::Other(text.to_owned()), |(_, reason)| reason.clone())
    }

    /// Returns the values of [`label`](Self::label).
    pub fn labels() -> impl Iterator<Item = &'static str> {
        REASONS.iter().map(|(token, _)| *token).chain([OTHER])
    }

    /// Returns the label in metrics: the token on the bus, or `other` for one that this version does
    /// not know.
    pub fn label(&self) -> &'static str {
        let token = REASONS.iter().find(|(_, reason)| reason == self);
        token.map_or(OTHER, |(token, _)| token)
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other(text) => text,
            known => known.label(),
        })
    }
}
