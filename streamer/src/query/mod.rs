//! Query parameters of `GET /api/apps/{app}/logs`.

pub(crate) mod filter;

use std::sync::Arc;

use axum::extract::{Query, rejection::QueryRejection};
use bus::{Level, PublishTime, Timestamp, cursor::Cursor};
use memchr::memmem::Finder;
use serde::Deserialize;
use utoipa::IntoParams;

use self::filter::{Filter, ProcessPattern};
use crate::{config::Config, error::ApiError};

/// Default of `num_lines`, as in Logplex.
const DEFAULT_NUM_LINES: u64 = 100;

/// Longest value of a text parameter.
const MAX_VALUE_BYTES: usize = 1000;

/// The query parameters as received.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RawLogsQuery {
    /// Keep the response open and stream new lines: `true`, `True`, `1`, `false`, `False` or `0`.
    #[param(default = "true", example = "false")]
    follow: Option<String>,
    /// Number of history lines to send first, counted after all filters; 0 sends none. The default
    /// is 100, or all with `since`. Values above the server's limit (1,000,000) are lowered to it.
    #[param(value_type = Option<u64>, minimum = 0, default = 100, example = 500)]
    num_lines: Option<String>,
    /// Send only lines with a timestamp at or after this: an RFC 3339 time, or an age such as
    /// `15m`.
    #[param(example = "15m")]
    since: Option<String>,
    /// Send only lines with a timestamp at or before this, in the same forms as `since`. A response
    /// with `follow` ends at this time.
    #[param(example = "2026-11-23T07:00:00Z")]
    until: Option<String>,
    /// Send only lines of this process, or with a trailing `*` of all processes with this prefix.
    /// At most 1000 bytes.
    #[param(min_length = 1, max_length = 1000, example = "web-*")]
    process: Option<String>,
    /// Send only lines of this origin: `app`, or a part of the platform such as `tributary`. At
    /// most 1000 bytes. `source` is an alias.
    #[serde(alias = "source")]
    #[param(min_length = 1, max_length = 1000, example = "app")]
    origin: Option<String>,
    /// Send only lines that contain this text. At most 1000 bytes.
    #[param(min_length = 1, max_length = 1000, example = "timeout")]
    contains: Option<String>,
    /// Send only lines that match this regular expression, in the syntax of the Rust crate `regex`
    /// (no look-around, no back-references). At most 1000 bytes.
    #[param(max_length = 1000, example = "^GET /api/")]
    regex: Option<String>,
    /// Send only JSON or logfmt lines of these levels, separated by commas: `trace`, `debug`,
    /// `info`, `warn`, `error`, `fatal`.
    #[param(example = "warn,error")]
    level: Option<String>,
    /// Resume after this cursor instead of sending `num_lines` lines of history: an `id:` of an
    /// event stream, or `cursor` of a WebSocket message. At most 4 KiB.
    #[param(max_length = 4096)]
    cursor: Option<String>,
    /// Token of a log session, instead of an API key.
    session: Option<String>,
}

/// The parsed query parameters.
#[derive(Clone, Debug)]
pub(crate) struct LogsQuery {
    pub(crate) follow: bool,
    /// Maximum number of history lines.
    pub(crate) num_lines: u64,
    /// `None` selects everything.
    pub(crate) filter: Option<Arc<Filter>>,
    pub(crate) cursor: Option<Arc<Cursor>>,
}

impl LogsQuery {
    /// Parses a query. `last_event_id` replaces `cursor`: a browser that reconnects sends both, and
    /// the URL has the older one. Unknown parameters are ignored.
    ///
    /// # Errors
    /// [`ApiError::InvalidParameter`].
    pub(crate) fn parse(
        raw: Result<Query<RawLogsQuery>, QueryRejection>,
        last_event_id: Option<&str>,
        config: &Config,
    ) -> Result<Self, ApiError> {
        let raw =
            raw.map_err(|_| ApiError::invalid("query", "cannot be parsed; give each parameter once, percent-encoded"))?;
        raw.0.parse(last_event_id, config)
    }

    /// Limits the time of the cursor to the time of the bus: what is published from now on is new,
    /// whatever the cursor says.
    pub(crate) fn limit_cursor(&mut self, now: PublishTime) {
        if let Some(cursor) = &mut self.cursor
            && now > PublishTime(0)
            && cursor.before > now
        {
            Arc::make_mut(cursor).before = now;
        }
    }

    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.filter.as_ref().and_then(|filter| filter.since)
    }

    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.filter.as_ref().and_then(|filter| filter.until)
    }
}

impl RawLogsQuery {
    /// Returns the token of a log session.
    pub(crate) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    fn parse(&self, last_event_id: Option<&str>, config: &Config) -> Result<LogsQuery, ApiError> {
        let follow = match self.follow.as_deref() {
            None | Some("true" | "True" | "1") => true,
            Some("false" | "False" | "0") => false,
            Some(text) => return Err(invalid("follow", text, "give true or false")),
        };
        let default = if self.since.is_some() {
            u64::MAX
        } else {
            DEFAULT_NUM_LINES
        };
        let num_lines = match self.num_lines.as_deref() {
            Some(text) => {
                parse_number(text).ok_or_else(|| invalid("num_lines", text, "give a number of lines, 0 or more"))?
            }
            None => default,
        };
        let cursor = match (last_event_id, &self.cursor) {
            // A browser sends an empty ID after an event that reset it.
            (Some(text), _) if !text.is_empty() => Some(parse_cursor("last-event-id", text)?),
            (_, Some(text)) => Some(parse_cursor("cursor", text)?),
            (_, None) => None,
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
            process: text("process", &self.process)?.map(ProcessPattern::parse),
            origin: text("origin", &self.origin)?.map(str::to_owned),
            contains: text("contains", &self.contains)?.map(|text| Finder::new(text).into_owned()),
            regex: match &self.regex {
                Some(pattern) => Some(filter::compile(pattern).map_err(|reason| ApiError::invalid("regex", reason))?),
                None => None,
            },
            since: parse_time("since", &self.since)?,
            until: parse_time("until", &self.until)?,
            levels: self.level.as_deref().map(parse_levels).transpose()?,
        };
        if let (Some(since), Some(until)) = (filter.since, filter.until)
            && since > until
        {
            let text = self.until.as_deref().unwrap_or_default();
            return Err(invalid("until", text, "give a time after since"));
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

/// Longest part of an invalid value that an error message quotes.
const MAX_QUOTED_CHARS: usize = 60;

fn invalid(name: &'static str, value: &str, advice: &str) -> ApiError {
    let quoted: String = value.chars().take(MAX_QUOTED_CHARS).collect();
    let dots = if quoted.len() < value.len() { "..." } else { "" };
    ApiError::invalid(name, format!("invalid value '{quoted}{dots}'; {advice}"))
}

/// Checks the length of a text parameter.
fn text<'a>(name: &'static str, value: &'a Option<String>) -> Result<Option<&'a str>, ApiError> {
    match value.as_deref() {
        Some("") => Err(ApiError::invalid(
            name,
            "the value is empty; give a value or omit the parameter",
        )),
        Some(text) if text.len() > MAX_VALUE_BYTES => Err(ApiError::invalid(
            name,
            format!("the value has {} bytes; give at most {MAX_VALUE_BYTES}", text.len()),
        )),
        value => Ok(value),
    }
}

/// Parses a number of any size; one that does not fit is larger than every limit.
fn parse_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Parses an RFC 3339 time or an age.
fn parse_time(name: &'static str, text: &Option<String>) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = text.as_deref() else { return Ok(None) };
    let by_age = || {
        let age = humantime::parse_duration(text).ok()?;
        let nanos = i64::try_from(age.as_nanos()).ok()?;
        Some(Timestamp(Timestamp::now().0.saturating_sub(nanos)))
    };
    // A plus sign that was not percent-encoded decodes to a space.
    let time = Timestamp::parse(text).or_else(|| Timestamp::parse(&text.replace(' ', "+")));
    let time = time.or_else(by_age);
    let advice = "give an RFC 3339 time such as 2026-11-23T07:00:00Z, or an age such as 15m";
    time.map(Some).ok_or_else(|| invalid(name, text, advice))
}

fn parse_levels(text: &str) -> Result<Vec<Level>, ApiError> {
    let levels: Option<Vec<Level>> = text.split(',').take(20).map(|word| Level::named(word.trim())).collect();
    levels.ok_or_else(|| invalid("level", text, "give trace, debug, info, warn, error or fatal"))
}

fn parse_cursor(name: &'static str, text: &str) -> Result<Cursor, ApiError> {
    Cursor::decode(text).map_err(|_| {
        let advice = "use a cursor of this API unchanged, or omit it to start with recent history";
        invalid(name, text, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(query: &str) -> Result<LogsQuery, ApiError> {
        let uri = format!(
            "/api/apps/a/logs?{}",
            query.replace(|c: char| c.is_control() || c == ' ' || !c.is_ascii(), "%")
        );
        let Ok(uri) = uri.parse() else {
            return Err(ApiError::UnknownPath);
        };
        LogsQuery::parse(Query::try_from_uri(&uri), None, &Config::default())
    }

    #[test]
    fn the_value_spellings_of_all_clients_are_accepted() {
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
            let parsed = parse(query).unwrap();
            assert_eq!((parsed.follow, parsed.num_lines), (follow, num_lines), "{query}");
        }
    }

    #[test]
    fn times_are_rfc_3339_or_ages() {
        let hour = Timestamp::parse("2026-11-23T07:00:00Z").unwrap();
        for query in [
            "since=2026-11-23T07:00:00Z",
            "since=2026-11-23T09:00:00%2B02:00",
            "since=2026-11-23T09:00:00+02:00",
        ] {
            assert_eq!(parse(query).unwrap().since(), Some(hour), "{query}");
        }
        let before = Timestamp::now().0 - 900_000_000_000;
        let since = parse("since=15m").unwrap().since().unwrap().0;
        assert!((before..=Timestamp::now().0 - 900_000_000_000).contains(&since));
    }

    #[test]
    fn invalid_values_are_rejected() {
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
        ] {
            assert!(
                matches!(parse(query), Err(ApiError::InvalidParameter { .. })),
                "{query}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_any_query_does_not_panic(query in ".{0,80}") {
            let _ = parse(&query);
        }

        #[test]
        fn parsing_any_value_does_not_panic(name in "num_lines|since|until|process|regex|level|cursor", value in ".{0,80}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let _ = parse(&format!("{name}={encoded}"));
        }
    }
}
