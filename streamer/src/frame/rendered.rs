//! Rendered bytes that many tails share.

use std::sync::{Arc, OnceLock};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;

use crate::frame::gzip::Block;

/// Rendered bytes with their compressed form, which is made once and shared by all tails.
#[derive(Clone)]
pub(crate) struct Rendered(Arc<Inner>);

struct Inner {
    plain: Bytes,
    block: OnceLock<Block>,
    message: OnceLock<(Arc<EncodedCursor>, Utf8Bytes)>,
    /// The same without its last byte.
    unterminated: OnceLock<Rendered>,
}

/// A cursor encoded once for all tails at the same position.
pub(crate) struct EncodedCursor {
    pub(crate) text: String,
    /// The cursor as the `id:` field that ends an event of an event stream.
    pub(crate) sse_id: Rendered,
    /// The cursor as an event of its own.
    pub(crate) sse_event: Rendered,
}

impl Rendered {
    /// Returns the uncompressed bytes.
    pub(crate) fn plain(&self) -> &Bytes {
        &self.0.plain
    }

    /// Returns the bytes as a block of a gzip member.
    pub(crate) fn block(&self) -> &Block {
        self.0.block.get_or_init(|| Block::new(&self.0.plain))
    }

    /// Returns the bytes without the last one: an event that is still to be ended by its ID.
    pub(crate) fn unterminated(&self) -> &Rendered {
        let plain = &self.0.plain;
        let end = plain.len().saturating_sub(1);
        self.0.unterminated.get_or_init(|| Self::from(plain.slice(..end)))
    }

    /// Returns the WebSocket message of these bytes and this cursor. The message built first is
    /// cached, so tails at the same position share it.
    pub(crate) fn message(&self, cursor: &Arc<EncodedCursor>, build: impl Fn() -> Utf8Bytes) -> Utf8Bytes {
        let (cached, message) = self.0.message.get_or_init(|| (Arc::clone(cursor), build()));
        if Arc::ptr_eq(cached, cursor) {
            message.clone()
        } else {
            build()
        }
    }
}

impl From<Bytes> for Rendered {
    fn from(plain: Bytes) -> Self {
        Self(Arc::new(Inner {
            plain,
            block: OnceLock::new(),
            message: OnceLock::new(),
            unterminated: OnceLock::new(),
        }))
    }
}
