//! API keys and the log sessions derived from them. Hashes and verifies in memory; it performs no I/O.

mod keys;
mod session;

pub(crate) use keys::StoredKey;
pub use keys::{Action, Grant, Holder, KEY_LIFETIME, KeyInfo, Keys, NewKey, Role};
pub use session::SESSION_LIFETIME;
