//! Log sessions: a word that opens one app's log for a short time, for browsers, which can set no header on an event stream or a WebSocket.
//!
//! It is signed, not kept: HMAC-SHA256 over app, end and key under a secret of its own day, derived from the store's. So it ends with its key, and yesterday's secret signs
//! nothing any more.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{aead, hmac};

use super::keys::{Action, Holder, KeyInfo, Keys, seconds};

/// How long a session's word opens the log. What is open goes on, for as long as the key is good.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What is signed is a log session and nothing else. Ends in what no app's name holds.
const PURPOSE: &[u8] = b"tributary log session 1\0";

/// What a seal's key is derived for.
const SEAL: &[u8] = b"tributary log session seal 1";

/// A secret's life.
const DAY: u64 = 24 * 3600;

/// Bytes of an end.
const END: usize = 8;

/// The longest that is looked at: several times what we make.
const MAX_CHARS: usize = 512;

/// The same of sealed ones: a cluster's token is some 1,200.
const MAX_SEALED_CHARS: usize = 16 * 1024;

impl Keys {
    /// A word that opens this app's log for [`SESSION_LIFETIME`], for whoever has it; and when it ends, seconds since 1970. As good as the holder's key is.
    pub fn open_session(&self, holder: &Holder, app: &str) -> (String, u64) {
        let end = seconds(SystemTime::now() + SESSION_LIFETIME).min(holder.info().expires);
        (self.sign(holder.info(), app, end), end)
    }

    /// Who opened the session of this word, where it is one for this app, not over, and the key behind it is good and may read the app.
    pub fn session(&self, word: &str, app: &str) -> Option<Holder> {
        if word.len() > MAX_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(word).ok()?;
        let (end, rest) = bytes.split_first_chunk::<END>()?;
        let (id, tag) = rest.split_at_checked(
            rest.len()
                .checked_sub(hmac::HMAC_SHA256.digest_algorithm().output_len())?,
        )?;
        let (end, id) = (u64::from_be_bytes(*end), std::str::from_utf8(id).ok()?);
        // In constant time.
        hmac::verify(&self.secret_of(end), &signed(app, end, id), tag).ok()?;
        let holder = self.holder_of(id)?;
        let open = seconds(SystemTime::now()) < end && holder.may(Action::Read, app);
        open.then_some(holder)
    }

    /// A word that stands for what somebody else decides by, sealed, for this app's log and [`SESSION_LIFETIME`]; and when it ends.
    pub fn seal_session(&self, authorization: &str, app: &str) -> (String, u64) {
        let end = seconds(SystemTime::now() + SESSION_LIFETIME);
        let nonce: [u8; aead::NONCE_LEN] = rand::random();
        let mut sealed = authorization.as_bytes().to_vec();
        let about = aead::Aad::from(signed(app, end, ""));
        let made = self.seal_of(end).map(|key| {
            let nonce = aead::Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce, about, &mut sealed)
        });
        // Fails for what is longer than memory holds alone. What was not sealed is not given away: the word opens nothing.
        if !matches!(made, Some(Ok(()))) {
            sealed.clear();
        }
        (
            URL_SAFE_NO_PAD.encode([&end.to_be_bytes(), &nonce[..], &sealed].concat()),
            end,
        )
    }

    /// What a sealed word stands for, where it is one for this app and not over.
    pub fn unseal_session(&self, word: &str, app: &str) -> Option<String> {
        if word.len() > MAX_SEALED_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(word).ok()?;
        let (end, rest) = bytes.split_first_chunk::<END>()?;
        let (nonce, sealed) = rest.split_first_chunk::<{ aead::NONCE_LEN }>()?;
        let (end, mut sealed) = (u64::from_be_bytes(*end), sealed.to_vec());
        let about = aead::Aad::from(signed(app, end, ""));
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let opened = self.seal_of(end)?.open_in_place(nonce, about, &mut sealed).ok()?;
        let open = seconds(SystemTime::now()) < end;
        open.then(|| String::from_utf8(opened.to_vec()).ok()).flatten()
    }

    /// What is sealed under on the day on which a session ends. Nonces are random: 96 bits, for a day's sessions.
    fn seal_of(&self, end: u64) -> Option<aead::LessSafeKey> {
        let secret = hmac::sign(&self.secret_of(end), SEAL);
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, secret.as_ref()).ok()?;
        Some(aead::LessSafeKey::new(key))
    }

    fn sign(&self, info: &KeyInfo, app: &str, end: u64) -> String {
        let tag = hmac::sign(&self.secret_of(end), &signed(app, end, &info.id));
        URL_SAFE_NO_PAD.encode([&end.to_be_bytes(), info.id.as_bytes(), tag.as_ref()].concat())
    }

    /// The secret of the day on which a session ends.
    fn secret_of(&self, end: u64) -> hmac::Key {
        let day = [PURPOSE, &(end / DAY).to_be_bytes()].concat();
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(self.secret(), &day).as_ref())
    }
}

fn signed(app: &str, end: u64, id: &str) -> Vec<u8> {
    [PURPOSE, app.as_bytes(), b"\0", &end.to_be_bytes(), id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Grant, NewKey, Role};

    const SECRET: &[u8] = &[7; 32];

    #[test]
    fn a_sealed_session_stands_for_what_was_sealed_for_its_app_alone_and_shows_nothing_of_it() {
        let keys = Keys::new(SECRET, &[]);
        let (word, end) = keys.seal_session("Bearer hunter2", "shop");
        assert_eq!(keys.unseal_session(&word, "shop").as_deref(), Some("Bearer hunter2"));
        assert_eq!(keys.unseal_session(&word, "blog"), None);
        assert_eq!(Keys::new(&[8; 32], &[]).unseal_session(&word, "shop"), None);
        assert!(end <= seconds(SystemTime::now() + SESSION_LIFETIME));
        let bytes = URL_SAFE_NO_PAD.decode(&word).unwrap();
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

    fn key(app: &str, lifetime: Duration) -> (Holder, Keys) {
        let grant = Grant {
            app: app.to_owned(),
            role: Role::Collaborator,
        };
        let (made, stored) = NewKey::make(SECRET, "me@example.com", vec![grant], lifetime);
        let keys = Keys::new(SECRET, &[stored]);
        (keys.holder(&made.key, None).unwrap(), keys)
    }

    #[test]
    fn a_session_opens_its_app_for_a_while_as_long_as_its_key_is_good() {
        let (holder, keys) = key("shop", Duration::from_secs(3600));
        let (word, end) = keys.open_session(&holder, "shop");
        assert_eq!(keys.session(&word, "shop"), Some(holder.clone()));
        assert!(end <= seconds(SystemTime::now() + SESSION_LIFETIME));
        assert_eq!(keys.session(&word, "blog"), None, "another app");
        assert_eq!(
            Keys::new(SECRET, &[]).session(&word, "shop"),
            None,
            "a key that was revoked"
        );
        assert_eq!(Keys::new(&[8; 32], &[]).session(&word, "shop"), None, "another secret");
        let over = keys.sign(holder.info(), "shop", seconds(SystemTime::now()) - 1);
        assert_eq!(keys.session(&over, "shop"), None, "its time is over");
        let (holder, keys) = key("shop", Duration::from_secs(60));
        assert!(
            keys.open_session(&holder, "shop").1 <= holder.info().expires,
            "not beyond its key"
        );
    }

    #[test]
    fn a_word_that_was_changed_opens_nothing() {
        let (holder, keys) = key("shop", Duration::from_secs(3600));
        let (word, _) = keys.open_session(&holder, "shop");
        for at in 0..word.len() {
            let mut changed = word.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(keys.session(&changed, "shop"), None, "at {at}");
        }
        for junk in ["", "A", "%", &"A".repeat(600), &word[..word.len() - 4]] {
            assert_eq!(keys.session(junk, "shop"), None, "{junk}");
        }
    }
}
