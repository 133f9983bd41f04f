//! Credentials in a request.

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};

/// An API key or token, and with HTTP Basic the claimed e-mail of its holder.
#[derive(PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) email: Option<String>,
    pub(super) key: String,
}

impl Credentials {
    /// Parses the `Authorization` header: `Basic` with e-mail and key, as the Gigalixir client
    /// sends it, or `Bearer` with the key. `None` if there is no such header.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        authorization(headers).and_then(Self::parse)
    }

    /// Parses the value of an `Authorization` header.
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

/// Returns the value of the `Authorization` header. `None` if there is none or more than one: a
/// proxy or an authorizer could use another of them than this server.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Option<(Option<String>, String)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        Credentials::of(&headers).map(|credentials| (credentials.email, credentials.key))
    }

    #[test]
    fn basic_and_bearer_are_accepted_and_nothing_else() {
        let basic = (Some("a@b.example".to_owned()), "netrc-key".to_owned());
        assert_eq!(parse(&["Basic YUBiLmV4YW1wbGU6bmV0cmMta2V5"]), Some(basic.clone()));
        assert_eq!(parse(&["basic  YUBiLmV4YW1wbGU6bmV0cmMta2V5"]), Some(basic));
        assert_eq!(parse(&["BEARER key"]), Some((None, "key".to_owned())));
        for invalid in [
            &[][..],
            &["Bearer"],
            &["Digest x"],
            &["Basic %%"],
            &["Basic YQ=="],
            &["Bearer a", "Bearer b"],
        ] {
            assert_eq!(parse(invalid), None, "{invalid:?}");
        }
    }
}
