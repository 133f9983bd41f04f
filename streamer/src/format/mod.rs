//! The output formats: one module each.
//!
//! Depends on lines only.

pub(crate) mod json;
pub(crate) mod ndjson;
pub(crate) mod sse;
pub(crate) mod text;
pub(crate) mod websocket;

use axum::http::{HeaderMap, header};
use bus::AppName;
use bytes::BytesMut;

use crate::line::{Line, NoticeLine};

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Logplex's layout: `2026-11-23T07:00:00.123456+00:00 myapp[web-7d4b9c-x2x9z]: text`.
    Text,
    /// One JSON object per line.
    Ndjson,
    /// Server-sent events, one JSON object each.
    Sse,
    /// WebSocket text messages: `{"cursor":…,"lines":[…]}`.
    WebSocket,
}

impl Format {
    /// Number of formats.
    pub(crate) const COUNT: usize = 4;

    /// Returns the first supported media type in `Accept`, or text.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(header::ACCEPT).iter();
        let mut names = accepts
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|range| range.split(';').next().unwrap_or_default().trim());
        names
            .find_map(|name| match name.to_ascii_lowercase().as_str() {
                "text/plain" => Some(Self::Text),
                ndjson::MEDIA_TYPE | "application/jsonl" | "application/json-seq" => Some(Self::Ndjson),
                sse::MEDIA_TYPE => Some(Self::Sse),
                _ => None,
            })
            .unwrap_or(Self::Text)
    }

    /// Returns the `Content-Type`. For text it includes the charset, without which some clients
    /// decode Latin-1.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Ndjson => ndjson::MEDIA_TYPE,
            Self::Sse | Self::WebSocket => sse::MEDIA_TYPE,
        }
    }

    /// Appends a line.
    pub(crate) fn write_line(self, out: &mut BytesMut, line: &Line) {
        match self {
            Self::Text => text::write_line(out, line),
            Self::Ndjson => ndjson::write(out, |out| json::write_line(out, line)),
            Self::Sse => sse::write(out, |out| json::write_line(out, line)),
            Self::WebSocket => websocket::write(out, |out| json::write_line(out, line)),
        }
    }

    /// Appends a notice.
    pub(crate) fn write_notice(self, out: &mut BytesMut, app: &AppName, notice: &NoticeLine) {
        match self {
            Self::Text => text::write_notice(out, app.as_str(), notice),
            Self::Ndjson => ndjson::write(out, |out| json::write_notice(out, app, notice)),
            Self::Sse => sse::write(out, |out| json::write_notice(out, app, notice)),
            Self::WebSocket => websocket::write(out, |out| json::write_notice(out, app, notice)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_supported_media_type_in_accept_is_used() {
        for (accept, format) in [
            ("*/*", Format::Text),
            ("text/html, application/xhtml+xml", Format::Text),
            ("application/x-ndjson", Format::Ndjson),
            ("text/event-stream", Format::Sse),
            ("Text/Event-Stream; q=0.9, text/plain", Format::Sse),
            ("image/png, application/x-ndjson;q=0.5", Format::Ndjson),
            ("", Format::Text),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Format::accepted(&headers), format, "{accept}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Text);
    }
}
