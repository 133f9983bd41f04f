//! A tail as the body of an HTTP response.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures::{future::OptionFuture, stream};
use system::clock::{self, Instant};

use crate::{
    access::Grant,
    format::{Format, ndjson, sse},
    frame::{
        gzip::{self, Member},
        rendered::Rendered,
    },
    tail::{Output, Tail},
    tail_limits::Admitted,
};

/// Minimum time between two cursors in an event stream.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);

/// Returns whether the client accepts gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = accepts
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.split_once('=').is_some_and(|(_, q)| q.trim().parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// Returns the body of a tail: chunks of whole lines, each sent immediately.
///
/// The body ends when `grant` does. After `heartbeat` without output, formats that have a heartbeat
/// send one.
pub(crate) fn body(
    tail: Tail,
    grant: Grant,
    admitted: Admitted,
    format: Format,
    gzip: bool,
    heartbeat: Duration,
) -> Body {
    let member = gzip.then(Member::default);
    let state = BodyState {
        tail,
        grant,
        _admitted: admitted,
        heartbeat,
        format,
        // The gzip header is sent immediately, so that decoders detect the format.
        out: member.iter().map(|_| Bytes::from_static(&gzip::HEADER)).collect(),
        member,
        last_cursor: None,
        last_sent: clock::steady(),
        ended: false,
    };
    Body::from_stream(stream::unfold(state, |mut state| async {
        let bytes = state.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), state))
    }))
}

struct BodyState {
    tail: Tail,
    grant: Grant,
    _admitted: Admitted,
    heartbeat: Duration,
    format: Format,
    member: Option<Member>,
    out: VecDeque<Bytes>,
    /// When an event stream last sent a cursor.
    last_cursor: Option<Instant>,
    last_sent: Instant,
    ended: bool,
}

impl BodyState {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            let has_heartbeat = self.format == Format::Sse || self.member.is_some();
            let due = has_heartbeat.then(|| tokio::time::sleep_until(self.last_sent + self.heartbeat));
            let output = tokio::select! {
                biased;
                // Pending output is not sent once the permission has ended.
                () = self.grant.ended() => Some(Output::last(Vec::new(), None)),
                output = self.tail.next() => Some(output),
                Some(()) = OptionFuture::from(due) => None,
            };
            self.last_sent = clock::steady();
            match output {
                Some(output) => self.push_output(output),
                None => self.push_heartbeat(),
            }
        }
    }

    fn push_output(&mut self, output: Output) {
        output.pieces.iter().for_each(|piece| self.push(piece));
        if output.ended {
            return self.push_end(output);
        }
        let due = self
            .last_cursor
            .is_none_or(|last| last + CURSOR_INTERVAL <= self.last_sent);
        if self.format == Format::Sse
            && due
            && let Some(cursor) = output.cursor
        {
            self.last_cursor = Some(self.last_sent);
            self.push(&cursor.sse_id);
        }
    }

    fn push_heartbeat(&mut self) {
        if self.format == Format::Sse {
            self.push(&Bytes::from_static(sse::HEARTBEAT).into());
            if let Some(cursor) = self.tail.cursor() {
                self.last_cursor = Some(self.last_sent);
                self.push(&cursor.sse_id);
            }
        } else {
            self.out.push_back(Bytes::from_static(&gzip::HEARTBEAT));
        }
    }

    fn push_end(&mut self, output: Output) {
        let cursor = output.cursor.as_ref().map(|cursor| cursor.text.as_str());
        match (self.format, cursor) {
            (Format::Sse, cursor) => self.push(&sse::closing(cursor).into()),
            (Format::Ndjson, Some(cursor)) => self.push(&ndjson::closing(cursor).into()),
            _ => {}
        }
        self.out.extend(self.member.take().map(Member::finish));
        self.ended = true;
    }

    fn push(&mut self, piece: &Rendered) {
        let bytes = match &mut self.member {
            Some(member) => member.add(piece.block()),
            None => piece.plain().clone(),
        };
        // An empty chunk would end the body.
        if !bytes.is_empty() {
            self.out.push_back(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_if_the_client_accepts_it() {
        for (accept_encoding, accepted) in [
            ("gzip, deflate", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br, deflate", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accept_encoding.parse().unwrap())]);
            assert_eq!(accepts_gzip(&headers), accepted, "{accept_encoding}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
