//! What a request says about who asks.

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};

/// A key, and with Basic whose it is said to be.
#[derive(PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) email: Option<String>,
    pub(super) key: String,
}

impl Credentials {
    /// What `Authorization` says: `Basic` of e-mail and key as the Gigalixir client sends it, or `Bearer` and the key.
    ///
    /// `None` where there is none, or one that says neither.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        authorization(headers).and_then(Self::parse)
    }

    /// The same, of the header's value.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self {
                email: None,
                key: rest.to_owned(),
            });
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (email, key) = pair.split_once(':')?;
        Some(Self {
            email: Some(email.to_owned()),
            key: key.to_owned(),
        })
    }
}

/// The value that says who asks. `None` where there is none, or more than one: two could mean one thing to us and another to a proxy before us, or to who decides.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Option<(Option<String>, String)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        Credentials::of(&headers).map(|read| (read.email, read.key))
    }

    #[test]
    fn both_ways_to_send_a_key_are_read_and_nothing_else() {
        let basic = (Some("a@b.example".to_owned()), "netrc-key".to_owned());
        assert_eq!(read(&["Basic YUBiLmV4YW1wbGU6bmV0cmMta2V5"]), Some(basic.clone()));
        assert_eq!(read(&["basic  YUBiLmV4YW1wbGU6bmV0cmMta2V5"]), Some(basic));
        assert_eq!(read(&["BEARER key"]), Some((None, "key".to_owned())));
        for nothing in [
            &[][..],
            &["Bearer"],
            &["Digest x"],
            &["Basic %%"],
            &["Basic YQ=="],
            &["Bearer a", "Bearer b"],
        ] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
    }
}
