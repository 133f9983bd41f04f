//! The JSON of the registry file.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use system::random::random;

use crate::{
    drain::Drains,
    key::{Keys, StoredKey},
};

/// Text of the format version.
pub(super) const VERSION: &str = "tributary-registry-1";

/// The format version; a file of another version is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    /// Version 1.
    #[serde(rename = "tributary-registry-1")]
    V1,
}

/// Drains and keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    version: Version,
    /// The HMAC secret of the keys, in base64url.
    secret: Secret,
    pub(super) drains: Drains,
    pub(super) keys: Vec<StoredKey>,
}

/// 32 random bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Secret([u8; 32]);

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or("the secret is not 32 bytes of base64url")
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        URL_SAFE_NO_PAD.encode(secret.0)
    }
}

impl Content {
    /// An empty registry with a random secret.
    pub(super) fn new() -> Self {
        Self {
            version: Version::V1,
            secret: Secret(random()),
            drains: Drains::new(),
            keys: Vec::new(),
        }
    }

    pub(super) fn keys(&self) -> Keys {
        Keys::new(self.secret(), &self.keys)
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.secret.0
    }

    /// Whether keys and secret are the same.
    pub(super) fn has_same_keys(&self, other: &Self) -> bool {
        self.keys == other.keys && self.secret == other.secret
    }
}
