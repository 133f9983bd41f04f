//! Names, labels and content of the Secrets.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use ring::digest::{SHA256, digest};
use serde::{Serialize, de::DeserializeOwned};

use crate::{drain::Drain, key::StoredKey, lease::Leases};

/// The label of the registry's Secrets, and its values for watched and unwatched ones.
pub(super) const LABEL: &str = "tributary.dev/registry";
pub(super) const WATCHED: &str = "content";
const UNWATCHED: &str = "leases";

/// The name of the Secret that holds the HMAC secret of the keys.
pub(super) const SECRET_NAME: &str = "tributary-registry-secret";

/// The data keys of the Secrets.
const SECRET: &str = "secret";
const DRAINS: &str = "drains";
const KEY: &str = "key";
const LEASES: &str = "leases";

/// The content of a watched Secret.
pub(super) enum Content {
    /// The HMAC secret of the keys.
    Secret([u8; 32]),
    /// The drains of an app.
    Drains(Vec<Drain>),
    /// A key.
    Key(StoredKey),
}

/// The name of the Secret of an app's drains. It contains a digest, because an app name can be
/// longer and use other characters than a Secret's name.
pub(super) fn drains_name(app: &str) -> String {
    let digest = digest(&SHA256, app.as_bytes());
    let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("tributary-drains-{hex}")
}

pub(super) fn key_name(id: &str) -> String {
    format!("tributary-key-{id}")
}

pub(super) fn leases_name(shard: u32) -> String {
    format!("tributary-leases-{shard}")
}

pub(super) fn secret(secret: &[u8; 32]) -> Secret {
    object(SECRET_NAME, WATCHED, SECRET, secret.to_vec())
}

pub(super) fn drains(name: &str, drains: &Vec<Drain>) -> Secret {
    object(name, WATCHED, DRAINS, json(drains))
}

pub(super) fn key(name: &str, key: &StoredKey) -> Secret {
    object(name, WATCHED, KEY, json(key))
}

pub(super) fn leases(name: &str, leases: &Leases) -> Secret {
    object(name, UNWATCHED, LEASES, json(leases))
}

pub(super) fn read_drains(secret: &Secret) -> Result<Vec<Drain>, &'static str> {
    content(secret, DRAINS).and_then(parse)
}

pub(super) fn read_leases(secret: &Secret) -> Result<Leases, &'static str> {
    content(secret, LEASES).and_then(parse)
}

/// Reads a watched Secret. `None` if its content is of another kind, for example of a later
/// version. The error contains no part of the content.
pub(super) fn read(secret: &Secret) -> Result<Option<Content>, &'static str> {
    let has = |name| content(secret, name).is_ok();
    let content = match () {
        () if has(DRAINS) => Content::Drains(read_drains(secret)?),
        () if has(KEY) => Content::Key(content(secret, KEY).and_then(parse)?),
        () if has(SECRET) => {
            let bytes = content(secret, SECRET)?.try_into();
            Content::Secret(bytes.map_err(|_| "the secret is not 32 bytes")?)
        }
        () => return Ok(None),
    };
    Ok(Some(content))
}

fn content<'a>(secret: &'a Secret, name: &str) -> Result<&'a [u8], &'static str> {
    let data = secret.data.as_ref().and_then(|data| data.get(name));
    data.map(|bytes| bytes.0.as_slice()).ok_or("its data is missing")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, &'static str> {
    serde_json::from_slice(bytes).map_err(|_| "its data is not valid")
}

fn json(content: &impl Serialize) -> Vec<u8> {
    // Serialization cannot fail: map keys are numbers or strings.
    serde_json::to_vec(content).unwrap_or_default()
}

fn object(name: &str, label: &str, content: &str, bytes: Vec<u8>) -> Secret {
    let labels = [("app.kubernetes.io/managed-by", "tributary"), (LABEL, label)];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        type_: Some("tributary.dev/registry".to_owned()),
        data: Some(BTreeMap::from([(content.to_owned(), ByteString(bytes))])),
        ..Secret::default()
    }
}
