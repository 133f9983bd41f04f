//! Parameters of a log request, with the API server's validation and error texts.

use jiff::Timestamp;

use super::query::Query;
use super::status::{Cause, Status};

/// Parameters of a log request.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogOptions {
    pub(crate) container: Option<String>,
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) since: Option<Since>,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) limit_bytes: Option<u64>,
}

/// Start time of a log request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Since {
    /// A whole second, inclusive: the API server truncates fractions.
    Time(Timestamp),
    /// Seconds before now.
    Seconds(i64),
}

impl LogOptions {
    /// Parses and validates the parameters.
    ///
    /// *Errors*: 400 for a value that cannot be parsed, then 422 with all invalid values and the
    /// pod's name.
    pub(crate) fn parse(query: &Query, pod: &str) -> Result<Self, Status> {
        let since_seconds = query.number("sinceSeconds")?;
        let since_time = query.non_empty("sinceTime").map(parse_time).transpose()?;
        let tail_lines = query.number("tailLines")?;
        let limit_bytes = query.number("limitBytes")?;
        let mut causes = Vec::new();
        if let Some(lines) = tail_lines.filter(|lines| *lines < 0) {
            causes.push(Cause::invalid("tailLines", lines, "must be greater than or equal to 0"));
        }
        if let Some(bytes) = limit_bytes.filter(|bytes| *bytes < 1) {
            causes.push(Cause::invalid("limitBytes", bytes, "must be greater than 0"));
        }
        match (since_seconds, since_time) {
            (Some(_), Some(_)) => {
                causes.push(Cause::forbidden(
                    "[]",
                    "at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            (Some(seconds), None) if seconds < 1 => {
                causes.push(Cause::invalid("sinceSeconds", seconds, "must be greater than 0"));
            }
            _ => {}
        }
        if query.value("stream").is_some() {
            causes.push(Cause::forbidden("stream", "may not be specified"));
        }
        if !causes.is_empty() {
            return Err(Status::invalid("PodLogOptions", pod, causes));
        }
        Ok(Self {
            container: query.non_empty("container").map(str::to_owned),
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since: since_time.map(Since::Time).or(since_seconds.map(Since::Seconds)),
            tail_lines: tail_lines.and_then(|lines| u64::try_from(lines).ok()),
            limit_bytes: limit_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        })
    }

    /// Returns the query string that the API server sends to the kubelet.
    pub(crate) fn kubelet_query(&self) -> String {
        let mut pairs = Vec::new();
        let mut flag = |name: &str, on: bool| {
            if on {
                pairs.push(format!("{name}=true"));
            }
        };
        flag("follow", self.follow);
        flag("previous", self.previous);
        flag("timestamps", self.timestamps);
        match self.since {
            Some(Since::Seconds(seconds)) => pairs.push(format!("sinceSeconds={seconds}")),
            Some(Since::Time(time)) => {
                pairs.push(format!(
                    "sinceTime={}",
                    crate::time::rfc3339_seconds(time).replace(':', "%3A")
                ));
            }
            None => {}
        }
        pairs.extend(self.tail_lines.map(|lines| format!("tailLines={lines}")));
        pairs.extend(self.limit_bytes.map(|bytes| format!("limitBytes={bytes}")));
        pairs.sort();
        if pairs.is_empty() {
            String::new()
        } else {
            format!("?{}", pairs.join("&"))
        }
    }
}

fn parse_time(text: &str) -> Result<Timestamp, Status> {
    text.parse().map_err(|_| {
        let layout = "2006-01-02T15:04:05Z07:00";
        Status::bad_request(format!(
            "parsing time \"{text}\" as \"{layout}\": cannot parse \"{text}\" as \"2006\""
        ))
    })
}
