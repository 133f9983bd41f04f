//! What a reading request asks for.

use std::sync::Arc;

use axum::extract::{Query, rejection::QueryRejection};
use bus::{Level, PublishTime, Timestamp, cursor::Cursor};
use memchr::memmem::Finder;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    config::Config,
    error::ApiError,
    filter::{self, Filter, Process},
};

/// Lines of history where the request names no number: as Logplex.
const DEFAULT_NUM_LINES: u64 = 100;

/// The longest value that is looked at.
const MAX_VALUE_BYTES: usize = 1000;

/// How far ahead of ours the clock of whoever made a cursor can be.
const SLACK: std::time::Duration = std::time::Duration::from_secs(60);

/// The query of `GET /api/apps/{app}/logs`, as it came.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RawLogsQuery {
    /// Whether to go on with what is printed from now on: `true`, `True`, `1`, or left out for yes; `false`, `False`, `0` for no.
    follow: Option<String>,
    /// How many lines of history come first, counted behind all filters: 0 for none; left out, 100, or with `since` all. More than the server's limit means the limit.
    num_lines: Option<String>,
    /// Only lines printed at or after this: a time (RFC 3339), or how long ago (`15m`).
    since: Option<String>,
    /// Only lines printed at or before this, in the same forms. Following ends then.
    until: Option<String>,
    /// Only lines of this process, or with a `*` at its end of all that begin so.
    process: Option<String>,
    /// Only lines of this origin: `app`, or the part of the platform that spoke.
    #[serde(alias = "source")]
    origin: Option<String>,
    /// Only lines that hold this text.
    contains: Option<String>,
    /// Only lines that match this regular expression (syntax of the Rust crate `regex`: no look-around, no back-references).
    regex: Option<String>,
    /// Only lines that name one of these levels, where they are JSON or logfmt: `trace`, `debug`, `info`, `warn`, `error`, `fatal`, separated by commas.
    level: Option<String>,
    /// Goes on where an earlier reading was, instead of beginning with `num_lines` lines. From an `id:` of the event stream, or a WebSocket's message.
    cursor: Option<String>,
    /// Instead of a key: what a log session was opened with.
    session: Option<String>,
}

/// The same, read.
#[derive(Clone, Debug)]
pub(crate) struct LogsQuery {
    /// Go on after history.
    pub(crate) follow: bool,
    /// Lines of history at most.
    pub(crate) num_lines: u64,
    /// What is wanted; `None`: everything.
    pub(crate) filter: Option<Arc<Filter>>,
    /// Where an earlier reading was.
    pub(crate) cursor: Option<Arc<Cursor>>,
}

impl LogsQuery {
    /// Reads a request's query; `last_event_id` stands for a cursor that it does not name. Parameters that are not ours are left alone.
    ///
    /// # Errors
    /// [`ApiError::Query`]: 422 with the reason.
    pub(crate) fn read(
        raw: Result<Query<RawLogsQuery>, QueryRejection>,
        last_event_id: Option<&str>,
        config: &Config,
    ) -> Result<Self, ApiError> {
        let raw = raw.map_err(|_| wrong("query", "give each parameter once, percent-encoded"))?;
        raw.0.read(last_event_id, config)
    }

    /// Only lines printed since then.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.filter.as_ref().and_then(|filter| filter.since)
    }

    /// Only lines printed until then.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.filter.as_ref().and_then(|filter| filter.until)
    }
}

impl RawLogsQuery {
    /// The word of a log session.
    pub(crate) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    fn read(&self, last_event_id: Option<&str>, config: &Config) -> Result<LogsQuery, ApiError> {
        let follow = match self.follow.as_deref() {
            None | Some("true" | "True" | "1") => true,
            Some("false" | "False" | "0") => false,
            Some(_) => return Err(wrong("follow", "give true or false")),
        };
        let default = if self.since.is_some() {
            u64::MAX
        } else {
            DEFAULT_NUM_LINES
        };
        let num_lines = self.num_lines.as_deref().map_or(Some(default), read_number);
        let num_lines = num_lines.ok_or_else(|| wrong("num_lines", "give a number of lines, 0 or more"))?;
        let cursor = match (&self.cursor, last_event_id) {
            (Some(text), _) => Some(read_cursor("cursor", text)?),
            // An empty one is what a browser sends that was told to forget its own.
            (None, Some(text)) if !text.is_empty() => Some(read_cursor("last-event-id", text)?),
            (None, _) => None,
        };
        Ok(LogsQuery {
            follow,
            num_lines: num_lines.min(config.max_num_lines),
            filter: self.filter()?.map(Arc::new),
            cursor: cursor.map(Arc::new),
        })
    }

    fn filter(&self) -> Result<Option<Filter>, ApiError> {
        let filter = Filter {
            process: value("process", &self.process)?.map(Process::read),
            origin: value("origin", &self.origin)?.map(str::to_owned),
            contains: value("contains", &self.contains)?.map(|text| Finder::new(text).into_owned()),
            regex: match &self.regex {
                Some(pattern) => Some(filter::compile(pattern).map_err(|why| ApiError::query("regex", why))?),
                None => None,
            },
            since: read_time("since", &self.since)?,
            until: read_time("until", &self.until)?,
            levels: self.level.as_deref().map(read_levels).transpose()?,
        };
        if let (Some(since), Some(until)) = (filter.since, filter.until)
            && since > until
        {
            return Err(wrong("until", "give a time after since"));
        }
        let named = [
            &self.process,
            &self.origin,
            &self.contains,
            &self.regex,
            &self.since,
            &self.until,
            &self.level,
        ];
        Ok(named.iter().any(|value| value.is_some()).then_some(filter))
    }
}

fn wrong(name: &'static str, reason: &'static str) -> ApiError {
    ApiError::query(name, reason)
}

/// A value that has to hold something.
fn value<'a>(name: &'static str, value: &'a Option<String>) -> Result<Option<&'a str>, ApiError> {
    match value.as_deref() {
        Some("") => Err(wrong(name, "give a value, or leave it out")),
        Some(text) if text.len() > MAX_VALUE_BYTES => Err(wrong(name, "give at most 1000 bytes")),
        value => Ok(value),
    }
}

/// A number of any size: what is too large for us is larger than any limit.
fn read_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A time, or how long ago.
fn read_time(name: &'static str, text: &Option<String>) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = text.as_deref() else { return Ok(None) };
    let ago = || {
        let ago = humantime::parse_duration(text).ok()?;
        let nanos = i64::try_from(ago.as_nanos()).ok()?;
        Some(Timestamp(Timestamp::now().0.saturating_sub(nanos)))
    };
    // In a query, a plus that was not encoded reads as a space.
    let time = Timestamp::parse(text).or_else(|| Timestamp::parse(&text.replace(' ', "+")));
    let time = time.or_else(ago);
    let reason = "give a time such as 2026-11-23T07:00:00Z, or how long ago: 15m";
    time.map(Some).ok_or_else(|| wrong(name, reason))
}

fn read_levels(text: &str) -> Result<Vec<Level>, ApiError> {
    let levels: Option<Vec<Level>> = text.split(',').take(20).map(|word| Level::named(word.trim())).collect();
    levels.ok_or_else(|| wrong("level", "give trace, debug, info, warn, error or fatal"))
}

fn read_cursor(name: &'static str, text: &str) -> Result<Cursor, ApiError> {
    let cursor = Cursor::decode(text).map_err(|error| ApiError::query(name, error.to_string()))?;
    if cursor.before > PublishTime::now().later_by(SLACK) {
        return Err(wrong(name, "it is from the future"));
    }
    Ok(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(query: &str) -> Result<LogsQuery, ApiError> {
        let uri = format!(
            "/api/apps/a/logs?{}",
            query.replace(|c: char| c.is_control() || c == ' ' || !c.is_ascii(), "%")
        );
        let Ok(uri) = uri.parse() else {
            return Err(ApiError::UnknownPath);
        };
        LogsQuery::read(Query::try_from_uri(&uri), None, &Config::default())
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
            ("since=15m", true, 1_000_000),
            ("since=2026-11-23T07:00:00Z&num_lines=7", true, 7),
        ] {
            let read = read(query).unwrap();
            assert_eq!((read.follow, read.num_lines), (follow, num_lines), "{query}");
        }
    }

    #[test]
    fn times_are_given_as_they_are_printed_or_as_how_long_ago() {
        let hour = Timestamp::parse("2026-11-23T07:00:00Z").unwrap();
        for query in [
            "since=2026-11-23T07:00:00Z",
            "since=2026-11-23T09:00:00%2B02:00",
            "since=2026-11-23T09:00:00+02:00",
        ] {
            assert_eq!(read(query).unwrap().since(), Some(hour), "{query}");
        }
        let before = Timestamp::now().0 - 900_000_000_000;
        let since = read("since=15m").unwrap().since().unwrap().0;
        assert!((before..=Timestamp::now().0 - 900_000_000_000).contains(&since));
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
            "since=yesterday",
            "since=",
            "until=99999999999999999999y",
            "since=5m&until=10m",
            "process=",
            "contains=",
            "regex=(",
            "regex=(?=look)",
            "regex=(a{1000}){1000}",
            "level=loud",
            "level=",
            "cursor=",
            "cursor=abc",
            "cursor=AQD_________wEA",
        ] {
            assert!(matches!(read(query), Err(ApiError::Query { .. })), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_query_is_too_strange(query in ".{0,80}") {
            let _ = read(&query);
        }

        #[test]
        fn no_value_is_too_strange(name in "num_lines|since|until|process|regex|level|cursor", value in ".{0,80}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let _ = read(&format!("{name}={encoded}"));
        }
    }
}
