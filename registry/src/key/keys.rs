//! API keys: creation, storage as hashes, authentication.
//!
//! A key is 32 random bytes, which cannot be guessed, so a slow password hash would only cost CPU
//! time at each login. A stolen store must not reveal keys: they are stored as HMAC-SHA256 under a
//! secret of the store. Authentication is one HMAC and one map lookup. The lookup's timing reveals
//! nothing, because without the secret a caller cannot choose the hash.

use std::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, Serialize};
use system::{
    clock,
    collections::{HashMap, HashSet},
    random::random,
};

use super::grant::{Action, Grant};

/// The default lifetime of a key.
pub const DEFAULT_KEY_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The minimum length of a key; shorter input is refused unhashed.
const MIN_KEY_CHARS: usize = 32;

/// The maximum length of a key; longer input is refused unhashed.
const MAX_KEY_CHARS: usize = 256;

/// A key's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyInfo {
    /// The id for listing and revoking.
    pub id: String,
    /// The owner's e-mail address.
    pub email: String,
    /// The apps it gives access to.
    pub grants: Vec<Grant>,
    /// The creation time in seconds since 1970.
    pub created: u64,
    /// The expiry time in seconds since 1970.
    pub expires: u64,
}

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    pub(crate) info: KeyInfo,
    /// HMAC-SHA256 of the key under the store's secret.
    pub(crate) hash: String,
}

/// A newly created key.
pub struct NewKey {
    /// The key's text. It is not stored; show it once.
    pub key: String,
    /// The metadata.
    pub info: KeyInfo,
}

/// The holder of a valid key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHolder(KeyInfo);

/// All keys of a store.
pub struct Keys {
    secret: hmac::Key,
    ids: HashMap<String, String>,
    infos: HashMap<String, KeyInfo>,
    apps: HashSet<String>,
}

impl Default for Keys {
    /// No keys, with a random secret.
    fn default() -> Self {
        Self::new(&random::<[u8; 32]>(), &[])
    }
}

impl Keys {
    pub(crate) fn new(secret: &[u8], stored: &[StoredKey]) -> Self {
        let infos = || stored.iter().map(|key| &key.info);
        Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
            ids: stored
                .iter()
                .map(|key| (key.hash.clone(), key.info.id.clone()))
                .collect(),
            infos: infos().map(|info| (info.id.clone(), info.clone())).collect(),
            apps: infos()
                .flat_map(|info| &info.grants)
                .map(|grant| grant.app.clone())
                .collect(),
        }
    }

    /// The holder of a key, if the key is valid and, if `email` is given, belongs to that address.
    pub fn authenticate(&self, key: &str, email: Option<&str>) -> Option<KeyHolder> {
        let has_valid_length = (MIN_KEY_CHARS..=MAX_KEY_CHARS).contains(&key.len());
        let is_valid_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !has_valid_length || !key.bytes().all(is_valid_byte) {
            return None;
        }
        let info = self.infos.get(self.ids.get(&hash(&self.secret, key))?)?;
        let email_matches = email.is_none_or(|email| email.eq_ignore_ascii_case(&info.email));
        (email_matches && clock::wall().as_secs() < info.expires).then(|| KeyHolder(info.clone()))
    }

    /// The holder of the key with this id, if the key is valid.
    pub(crate) fn holder_by_id(&self, id: &str) -> Option<KeyHolder> {
        let info = self.infos.get(id)?;
        (clock::wall().as_secs() < info.expires).then(|| KeyHolder(info.clone()))
    }

    pub(crate) fn secret(&self) -> &hmac::Key {
        &self.secret
    }

    /// Whether the holder's key is still valid, with unchanged grants.
    pub fn is_valid(&self, holder: &KeyHolder) -> bool {
        let is_unexpired = clock::wall().as_secs() < holder.0.expires;
        is_unexpired && self.infos.get(&holder.0.id) == Some(&holder.0)
    }

    /// Whether keys, grants and secret are the same.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let probe = |keys: &Self| hash(&keys.secret, "probe");
        self.ids == other.ids && self.infos == other.infos && probe(self) == probe(other)
    }

    /// All keys, including expired ones, oldest first.
    pub fn list(&self) -> Vec<KeyInfo> {
        let mut all: Vec<KeyInfo> = self.infos.values().cloned().collect();
        all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        all
    }

    /// Whether any key grants access to this app.
    pub fn contains_app(&self, app: &str) -> bool {
        self.apps.contains(app)
    }
}

impl KeyHolder {
    /// Whether the key allows an action on an app.
    pub fn is_allowed(&self, action: Action, app: &str) -> bool {
        let mut grants = self.0.grants.iter().filter(|grant| grant.app == app);
        grants.any(|grant| grant.role.allows(action))
    }

    /// The key's metadata.
    pub fn info(&self) -> &KeyInfo {
        &self.0
    }
}

impl NewKey {
    /// Creates a key, and the record to store.
    pub(crate) fn generate(secret: &[u8], email: &str, grants: Vec<Grant>, lifetime: Duration) -> (Self, StoredKey) {
        let key = URL_SAFE_NO_PAD.encode(random::<[u8; 32]>());
        let created = clock::wall().as_secs();
        let info = KeyInfo {
            id: format!("{:016x}", random::<u64>()),
            email: email.to_owned(),
            grants,
            created,
            expires: created.saturating_add(lifetime.as_secs()),
        };
        let hash = hash(&hmac::Key::new(hmac::HMAC_SHA256, secret), &key);
        let stored = StoredKey {
            info: info.clone(),
            hash,
        };
        (Self { key, info }, stored)
    }
}

fn hash(secret: &hmac::Key, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(hmac::sign(secret, key.as_bytes()))
}

/// Omits the key.
impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Shows only the number of keys.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("count", &self.infos.len())
            .finish_non_exhaustive()
    }
}
