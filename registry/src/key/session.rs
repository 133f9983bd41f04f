//! Log sessions: short-lived tokens for one app's log, for browsers, which cannot set a header on
//! an event stream or a WebSocket.
//!
//! A token is signed, not stored: HMAC-SHA256 over app, expiry time and key id, under a secret
//! derived from the store's secret and the day of expiry. A session ends with its key.
//!
//! If another service decides on access, the token instead contains the caller's `Authorization`
//! header, encrypted with a key derived the same way.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{aead, hmac};
use system::{clock, random::random};

use super::{
    grant::Action,
    keys::{KeyHolder, KeyInfo, Keys},
};

/// The lifetime of a session token. A tail that it opened continues while the key is valid.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Separates these signatures from others under the same secret. NUL cannot occur in an app name.
const PURPOSE: &[u8] = b"tributary log session 1\0";

/// Separates the encryption key from the signing key.
const SEAL: &[u8] = b"tributary log session seal 1";

/// Seconds for which a derived secret is used.
const DAY: u64 = 24 * 3600;

/// Bytes of an expiry time.
const EXPIRY_BYTES: usize = 8;

/// The maximum length of a signed token: several times the real length.
const MAX_SIGNED_CHARS: usize = 512;

/// The maximum length of a sealed token: a Kubernetes token has about 1,200 characters.
const MAX_SEALED_CHARS: usize = 16 * 1024;

impl Keys {
    /// Creates a token for an app's log, valid for [`SESSION_LIFETIME`] and no longer than the key.
    /// Returns it with its expiry time in seconds since 1970.
    pub fn create_session(&self, holder: &KeyHolder, app: &str) -> (String, u64) {
        let expires = (clock::wall() + SESSION_LIFETIME).as_secs().min(holder.info().expires);
        (self.sign(holder.info(), app, expires), expires)
    }

    /// The holder who created this token, if the token is for this app and unexpired, and the key
    /// is valid and may read the app.
    pub fn verify_session(&self, token: &str, app: &str) -> Option<KeyHolder> {
        if token.len() > MAX_SIGNED_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (expires, rest) = bytes.split_first_chunk::<EXPIRY_BYTES>()?;
        let (id, tag) = rest.split_at_checked(
            rest.len()
                .checked_sub(hmac::HMAC_SHA256.digest_algorithm().output_len())?,
        )?;
        let (expires, id) = (u64::from_be_bytes(*expires), std::str::from_utf8(id).ok()?);
        // Compares in constant time.
        hmac::verify(&self.signing_key(expires), &signed_data(app, expires, id), tag).ok()?;
        let holder = self.holder_by_id(id)?;
        let is_valid = clock::wall().as_secs() < expires && holder.is_allowed(Action::Read, app);
        is_valid.then_some(holder)
    }

    /// Creates a token that contains an `Authorization` header, encrypted, for an app's log and
    /// [`SESSION_LIFETIME`]. Returns it with its expiry time in seconds since 1970.
    pub fn seal_session(&self, authorization: &str, app: &str) -> (String, u64) {
        let expires = (clock::wall() + SESSION_LIFETIME).as_secs();
        let nonce: [u8; aead::NONCE_LEN] = random();
        let mut sealed = authorization.as_bytes().to_vec();
        let context = aead::Aad::from(signed_data(app, expires, ""));
        let encrypted = self.sealing_key(expires).map(|key| {
            let nonce = aead::Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce, context, &mut sealed)
        });
        // Encryption fails only for input of many gigabytes. The token is then invalid, not plain
        // text.
        if !matches!(encrypted, Some(Ok(()))) {
            sealed.clear();
        }
        (
            URL_SAFE_NO_PAD.encode([&expires.to_be_bytes(), &nonce[..], &sealed].concat()),
            expires,
        )
    }

    /// The `Authorization` header in a sealed token, if the token is for this app and unexpired.
    pub fn unseal_session(&self, token: &str, app: &str) -> Option<String> {
        if token.len() > MAX_SEALED_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (expires, rest) = bytes.split_first_chunk::<EXPIRY_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<{ aead::NONCE_LEN }>()?;
        let (expires, mut sealed) = (u64::from_be_bytes(*expires), sealed.to_vec());
        let context = aead::Aad::from(signed_data(app, expires, ""));
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .sealing_key(expires)?
            .open_in_place(nonce, context, &mut sealed)
            .ok()?;
        let is_valid = clock::wall().as_secs() < expires;
        is_valid.then(|| String::from_utf8(opened.to_vec()).ok()).flatten()
    }

    /// The encryption key of the day on which a session expires. Random 96-bit nonces do not repeat
    /// within a day's sessions.
    fn sealing_key(&self, expires: u64) -> Option<aead::LessSafeKey> {
        let secret = hmac::sign(&self.signing_key(expires), SEAL);
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, secret.as_ref()).ok()?;
        Some(aead::LessSafeKey::new(key))
    }

    fn sign(&self, info: &KeyInfo, app: &str, expires: u64) -> String {
        let tag = hmac::sign(&self.signing_key(expires), &signed_data(app, expires, &info.id));
        URL_SAFE_NO_PAD.encode([&expires.to_be_bytes(), info.id.as_bytes(), tag.as_ref()].concat())
    }

    /// The signing key of the day on which a session expires.
    fn signing_key(&self, expires: u64) -> hmac::Key {
        let day = [PURPOSE, &(expires / DAY).to_be_bytes()].concat();
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(self.secret(), &day).as_ref())
    }
}

fn signed_data(app: &str, expires: u64, id: &str) -> Vec<u8> {
    [PURPOSE, app.as_bytes(), b"\0", &expires.to_be_bytes(), id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Grant, NewKey, Role};

    const SECRET: &[u8] = &[7; 32];

    #[test]
    fn a_sealed_session_reveals_its_content_only_to_its_app_and_key() {
        let keys = Keys::new(SECRET, &[]);
        let (token, expires) = keys.seal_session("Bearer hunter2", "shop");
        assert_eq!(keys.unseal_session(&token, "shop").as_deref(), Some("Bearer hunter2"));
        assert_eq!(keys.unseal_session(&token, "blog"), None);
        assert_eq!(Keys::new(&[8; 32], &[]).unseal_session(&token, "shop"), None);
        assert!(expires <= (clock::wall() + SESSION_LIFETIME).as_secs());
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(
                keys.unseal_session(&URL_SAFE_NO_PAD.encode(changed), "shop"),
                None,
                "byte {at}"
            );
        }
    }

    fn key(app: &str, lifetime: Duration) -> (KeyHolder, Keys) {
        let grant = Grant {
            app: app.to_owned(),
            role: Role::Collaborator,
        };
        let (key, stored) = NewKey::generate(SECRET, "me@example.com", vec![grant], lifetime);
        let keys = Keys::new(SECRET, &[stored]);
        (keys.authenticate(&key.key, None).unwrap(), keys)
    }

    #[test]
    fn a_session_opens_its_own_app_until_it_or_its_key_expires() {
        let (holder, keys) = key("shop", Duration::from_secs(3600));
        let (token, expires) = keys.create_session(&holder, "shop");
        assert_eq!(keys.verify_session(&token, "shop"), Some(holder.clone()));
        assert!(expires <= (clock::wall() + SESSION_LIFETIME).as_secs());
        assert_eq!(keys.verify_session(&token, "blog"), None, "another app");
        assert_eq!(
            Keys::new(SECRET, &[]).verify_session(&token, "shop"),
            None,
            "revoked key"
        );
        assert_eq!(
            Keys::new(&[8; 32], &[]).verify_session(&token, "shop"),
            None,
            "another secret"
        );
        let expired = keys.sign(holder.info(), "shop", clock::wall().as_secs() - 1);
        assert_eq!(keys.verify_session(&expired, "shop"), None, "expired");
        let (holder, keys) = key("shop", Duration::from_secs(60));
        assert!(
            keys.create_session(&holder, "shop").1 <= holder.info().expires,
            "expires with its key"
        );
    }

    #[test]
    fn a_modified_token_is_refused() {
        let (holder, keys) = key("shop", Duration::from_secs(3600));
        let (token, _) = keys.create_session(&holder, "shop");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(keys.verify_session(&changed, "shop"), None, "at {at}");
        }
        for junk in ["", "A", "%", &"A".repeat(600), &token[..token.len() - 4]] {
            assert_eq!(keys.verify_session(junk, "shop"), None, "{junk}");
        }
    }
}
