//! API keys and log sessions: authentication and authorization. Hashes and verifies in memory, without I/O.

mod grant;
mod keys;
mod session;

pub use grant::{Action, Grant, Role};
pub(crate) use keys::StoredKey;
pub use keys::{DEFAULT_KEY_LIFETIME, KeyHolder, KeyInfo, Keys, NewKey};
pub use session::SESSION_LIFETIME;
