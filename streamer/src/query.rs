//! What a reading request asks for.

use axum::extract::{Query, rejection::QueryRejection};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{config::Config, error::ApiError};

/// Lines of history where the request names no number: as Logplex.
const DEFAULT_NUM_LINES: u64 = 100;

/// The query of `GET /api/apps/{app}/logs`, as it came.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RawLogsQuery {
    /// Whether to go on with what is printed from now on: `true`, `True`, `1`, or left out for yes; `false`, `False`, `0` for no.
    follow: Option<String>,
    /// How many lines of history come first: 0 for none, 100 where left out. More than the server's limit means the limit.
    num_lines: Option<String>,
}

/// The same, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogsQuery {
    /// Go on after history.
    pub(crate) follow: bool,
    /// Lines of history at most.
    pub(crate) num_lines: u64,
}

impl LogsQuery {
    /// Reads a request's query. Parameters that are not ours are left alone.
    ///
    /// # Errors
    /// [`ApiError::Query`]: 422 with the reason.
    pub(crate) fn read(raw: Result<Query<RawLogsQuery>, QueryRejection>, config: &Config) -> Result<Self, ApiError> {
        let unreadable = ApiError::Query {
            name: "query",
            reason: "give each parameter once, percent-encoded",
        };
        raw.map_err(|_| unreadable)?.0.read(config)
    }
}

impl RawLogsQuery {
    fn read(&self, config: &Config) -> Result<LogsQuery, ApiError> {
        let follow = match self.follow.as_deref() {
            None | Some("true" | "True" | "1") => true,
            Some("false" | "False" | "0") => false,
            Some(_) => {
                return Err(ApiError::Query {
                    name: "follow",
                    reason: "give true or false",
                });
            }
        };
        let num_lines = self.num_lines.as_deref().map_or(Some(DEFAULT_NUM_LINES), read_number);
        let Some(num_lines) = num_lines else {
            return Err(ApiError::Query {
                name: "num_lines",
                reason: "give a number of lines, 0 or more",
            });
        };
        Ok(LogsQuery {
            follow,
            num_lines: num_lines.min(config.max_num_lines),
        })
    }
}

/// A number of any size: what is too large for us is larger than any limit.
fn read_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(query: &str) -> Result<LogsQuery, ApiError> {
        let uri = format!(
            "http://x/?{}",
            query.replace(|c: char| c.is_control() || c == ' ' || !c.is_ascii(), "%")
        );
        let Ok(uri) = uri.parse() else {
            return Err(ApiError::UnknownPath);
        };
        LogsQuery::read(Query::try_from_uri(&uri), &Config::default())
    }

    #[test]
    fn the_spellings_of_every_client_are_understood() {
        for (query, follow, num_lines) in [
            ("", true, 100),
            ("follow=True", true, 100),
            ("num_lines=5&follow=False", false, 5),
            ("follow=0&num_lines=0", false, 0),
            ("follow=1&num_lines=99999999999", true, 1_000_000),
            ("num_lines=99999999999999999999999999&x=y", true, 1_000_000),
        ] {
            assert_eq!(read(query).unwrap(), LogsQuery { follow, num_lines }, "{query}");
        }
    }

    #[test]
    fn junk_is_refused_with_the_reason() {
        for query in [
            "num_lines=abc",
            "num_lines=-5",
            "num_lines=",
            "num_lines=1.5",
            "follow=maybe",
            "follow=",
            "follow=1&follow=1",
        ] {
            assert!(matches!(read(query), Err(ApiError::Query { .. })), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_query_is_too_strange(query in ".{0,80}") {
            let _ = read(&query);
        }
    }
}
