//! Query strings, interpreted as the API server does: the first of several values counts, unknown
//! names are ignored.

use super::status::Status;

/// The decoded pairs of a query string.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes a query string.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            });
        Self { pairs: pairs.collect() }
    }

    /// Returns a parameter's first value.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns a parameter's first value unless it is empty.
    pub(crate) fn non_empty(&self, name: &str) -> Option<&str> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// Returns a boolean parameter: every value except `false` and `0` is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// Parses an integer parameter.
    ///
    /// *Errors*: 400 with the wording of Go.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|error: std::num::ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let why = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Status::bad_request(format!("strconv.ParseInt: parsing \"{value}\": {why}"))
        })
    }
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (hex(ahead.next()), hex(ahead.next())) {
                    (Some(high), Some(low)) => {
                        out.push((high * 16 + low) as u8);
                        bytes = ahead;
                    }
                    _ => out.push(b'%'),
                }
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_as_the_api_server_does() {
        let query = Query::parse(Some(
            "follow=yes&previous=False&a=0&b&sinceTime=2026-01-01T00%3A00%3A00%2B09:00&n=x",
        ));
        assert!(query.flag("follow") && query.flag("b"));
        assert!(!query.flag("previous") && !query.flag("a") && !query.flag("absent"));
        assert_eq!(query.value("sinceTime"), Some("2026-01-01T00:00:00+09:00"));
        let error = query.number("n").unwrap_err();
        assert_eq!(&*error.message, "strconv.ParseInt: parsing \"x\": invalid syntax");
    }
}
