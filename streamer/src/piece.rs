//! Bytes that many readers are sent alike.

use std::sync::{Arc, OnceLock};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;

use crate::{gzip::Block, ring::Mark};

/// Rendered bytes, and their compressed form once a reader has asked for it: made once, shared by all.
#[derive(Clone)]
pub(crate) struct Piece(Arc<Inner>);

struct Inner {
    plain: Bytes,
    block: OnceLock<Block>,
    message: OnceLock<(Arc<Mark>, Utf8Bytes)>,
}

impl Piece {
    /// The bytes as they are.
    pub(crate) fn plain(&self) -> &Bytes {
        &self.0.plain
    }

    /// The bytes as a block of a gzip member.
    pub(crate) fn block(&self) -> &Block {
        self.0.block.get_or_init(|| Block::new(&self.0.plain))
    }

    /// The bytes as a WebSocket's message with this cursor, put together by `new` where nobody has done it yet.
    pub(crate) fn message(&self, mark: &Arc<Mark>, new: impl Fn() -> Utf8Bytes) -> Utf8Bytes {
        let (known, message) = self.0.message.get_or_init(|| (Arc::clone(mark), new()));
        if Arc::ptr_eq(known, mark) {
            message.clone()
        } else {
            new()
        }
    }
}

impl From<Bytes> for Piece {
    fn from(plain: Bytes) -> Self {
        Self(Arc::new(Inner {
            plain,
            block: OnceLock::new(),
            message: OnceLock::new(),
        }))
    }
}
