//! Keys: who asks, and what that one may do.
//!
//! A key is 32 random bytes, which nobody can guess; so a slow hash, made for passwords that people think up, would cost a server a login's time for nothing. What a slow
//! hash does not do either, a stolen store must not give away: the keys are kept as HMAC-SHA256 under a secret of the store. A login is one such hash and one look into a
//! map; how long that look takes says nothing, because who does not have the secret cannot choose where it looks.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, Serialize};

/// How long a key is good for, unless told otherwise.
pub const KEY_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The least a key has: what is shorter is not looked at.
const MIN_KEY_CHARS: usize = 32;

/// The most: what is longer is not hashed.
const MAX_KEY_CHARS: usize = 256;

/// What somebody wants to do to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read its log.
    Read,
    /// See, add and remove its drains.
    Drains,
}

/// What somebody is to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads its log and manages its drains.
    Owner,
    /// Reads its log.
    Collaborator,
}

impl Role {
    /// As it is written in flags and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Collaborator => "collaborator",
        }
    }
}

/// An app, and what the key's holder is to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Which.
    pub app: String,
    /// As what.
    pub role: Role,
}

/// All of a key but the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyInfo {
    /// What it is listed and revoked by.
    pub id: String,
    /// Whose.
    pub email: String,
    /// For which apps.
    pub grants: Vec<Grant>,
    /// When it was made, seconds since 1970.
    pub created: u64,
    /// From when on it is good for nothing, seconds since 1970.
    pub expires: u64,
}

/// A key as the store keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    pub(crate) info: KeyInfo,
    /// HMAC-SHA256 of the key under the store's secret.
    pub(crate) hash: String,
}

/// A key that was just made.
pub struct NewKey {
    /// The key itself: to be shown once.
    pub key: String,
    /// The rest.
    pub info: KeyInfo,
}

/// Who holds a key that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(KeyInfo);

/// All keys that are known.
pub struct Keys {
    secret: hmac::Key,
    ids: HashMap<String, String>,
    infos: HashMap<String, KeyInfo>,
    apps: HashSet<String>,
}

impl Default for Keys {
    /// None, under a secret of its own.
    fn default() -> Self {
        Self::new(&rand::random::<[u8; 32]>(), &[])
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

    /// Whose key this is, where it is good just now; with an e-mail, it has to be that one's.
    pub fn holder(&self, key: &str, email: Option<&str>) -> Option<Holder> {
        let fits = (MIN_KEY_CHARS..=MAX_KEY_CHARS).contains(&key.len());
        let of_keys = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !fits || !key.bytes().all(of_keys) {
            return None;
        }
        let info = self.infos.get(self.ids.get(&hash(&self.secret, key))?)?;
        let theirs = email.is_none_or(|email| email.eq_ignore_ascii_case(&info.email));
        (theirs && seconds(SystemTime::now()) < info.expires).then(|| Holder(info.clone()))
    }

    /// Whose the key of this id is, where it is good just now.
    pub(crate) fn holder_of(&self, id: &str) -> Option<Holder> {
        let info = self.infos.get(id)?;
        (seconds(SystemTime::now()) < info.expires).then(|| Holder(info.clone()))
    }

    pub(crate) fn secret(&self) -> &hmac::Key {
        &self.secret
    }

    /// Whether this holder's key is still good, with what it was good for.
    pub fn still(&self, holder: &Holder) -> bool {
        let good = seconds(SystemTime::now()) < holder.0.expires;
        good && self.infos.get(&holder.0.id) == Some(&holder.0)
    }

    /// Whether the same keys are good for the same, under the same secret.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let probe = |keys: &Self| hash(&keys.secret, "probe");
        self.ids == other.ids && self.infos == other.infos && probe(self) == probe(other)
    }

    /// All of them, expired ones too, the oldest first.
    pub fn list(&self) -> Vec<KeyInfo> {
        let mut all: Vec<KeyInfo> = self.infos.values().cloned().collect();
        all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        all
    }

    /// Whether a key names this app: then it exists.
    pub fn name(&self, app: &str) -> bool {
        self.apps.contains(app)
    }
}

impl Holder {
    /// Whether this may be done to this app.
    pub fn may(&self, action: Action, app: &str) -> bool {
        let mut grants = self.0.grants.iter().filter(|grant| grant.app == app);
        grants.any(|grant| grant.role == Role::Owner || action == Action::Read)
    }

    /// Their key, without the key.
    pub fn info(&self) -> &KeyInfo {
        &self.0
    }
}

impl NewKey {
    /// Makes one, and what the store is to keep of it.
    pub(crate) fn make(secret: &[u8], email: &str, grants: Vec<Grant>, lifetime: Duration) -> (Self, StoredKey) {
        let key = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let created = seconds(SystemTime::now());
        let info = KeyInfo {
            id: format!("{:016x}", rand::random::<u64>()),
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

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Without the key.
impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// How many, not which.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("count", &self.infos.len())
            .finish_non_exhaustive()
    }
}
