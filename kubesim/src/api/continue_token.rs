//! Continue tokens of paged lists, in the format of the API server (base64url of JSON).

use serde::{Deserialize, Serialize};

/// The position at which a list continues.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContinueToken {
    v: String,
    /// Resource version of all pages; -1 is the current version of each page.
    pub(crate) rv: i64,
    start: String,
}

impl ContinueToken {
    /// Creates the token that continues after a pod.
    pub(crate) fn after(version: i64, namespace: &str, name: &str) -> Self {
        Self {
            v: FORMAT.to_owned(),
            rv: version,
            start: format!("{namespace}/{name}\0"),
        }
    }

    /// Returns the same position without a fixed version.
    pub(crate) fn inconsistent(self) -> Self {
        Self { rv: -1, ..self }
    }

    /// Returns namespace and name of the last pod of the previous page.
    pub(crate) fn last(&self) -> Option<(&str, &str)> {
        self.start
            .trim_start_matches('/')
            .trim_end_matches('\0')
            .split_once('/')
    }

    /// Encodes the token.
    pub(crate) fn encode(&self) -> String {
        encode(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Decodes a token; `None` if it is invalid.
    pub(crate) fn decode(token: &str) -> Option<Self> {
        let parsed: Self = serde_json::from_slice(&decode(token)?).ok()?;
        (parsed.v == FORMAT && parsed.last().is_some()).then_some(parsed)
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..=group.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]));
        }
    }
    out
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            let value = ALPHABET.iter().position(|letter| letter == byte)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
        out.extend_from_slice(&bytes[1..group.len()]);
    }
    Some(out)
}

const FORMAT: &str = "meta.k8s.io/v1";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_real_api_server_round_trips() {
        let real = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTE5MSwic3RhcnQiOiIvZGVmYXVsdC9iYWRjbWRcdTAwMDAifQ";
        let token = ContinueToken::decode(real).unwrap();
        assert_eq!((token.rv, token.last()), (1191, Some(("default", "badcmd"))));
        assert_eq!(token.encode(), real);
        assert_eq!(
            ContinueToken::decode(&ContinueToken::after(7, "a", "b").encode())
                .unwrap()
                .last(),
            Some(("a", "b"))
        );
        assert!(ContinueToken::decode("!").is_none() && ContinueToken::decode("").is_none());
    }
}
