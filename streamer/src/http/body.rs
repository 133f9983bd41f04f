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
const MIN_CURSOR_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum time between an event and the cursor that covers it.
const MAX_CURSOR_DELAY: Duration = Duration::from_secs(1);

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
        cursor_due: None,
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
    /// When the cursor of events that were sent without one is due.
    cursor_due: Option<Instant>,
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
            let cursor_due = self.cursor_due.map(tokio::time::sleep_until);
            let next = tokio::select! {
                biased;
                // Pending output is not sent once the permission has ended.
                () = self.grant.ended() => Next::Output(Output::last(Vec::new(), None)),
                output = self.tail.next() => Next::Output(output),
                Some(()) = OptionFuture::from(cursor_due) => Next::Cursor,
                Some(()) = OptionFuture::from(due) => Next::Heartbeat,
            };
            match next {
                Next::Output(output) => {
                    self.last_sent = clock::steady();
                    self.push_output(output);
                }
                Next::Cursor => self.push_cursor(),
                Next::Heartbeat => {
                    self.last_sent = clock::steady();
                    self.push_heartbeat();
                }
            }
        }
    }

    fn push_output(&mut self, output: Output) {
        let may_send = self
            .last_cursor
            .is_none_or(|last| last + MIN_CURSOR_INTERVAL <= self.last_sent);
        let cursor = output.cursor.as_ref();
        let cursor = cursor.filter(|_| self.format == Format::Sse && may_send && !output.ended);
        match (cursor, output.pieces.split_last()) {
            (Some(cursor), Some((last, others))) => {
                others.iter().for_each(|piece| self.push(piece));
                self.push(last.unterminated());
                self.push(&cursor.sse_id);
                self.record_cursor();
            }
            (Some(cursor), None) => {
                self.push(&cursor.sse_event);
                self.record_cursor();
            }
            (None, _) => output.pieces.iter().for_each(|piece| self.push(piece)),
        }
        if output.ended {
            self.push_end(output);
        } else if self.format == Format::Sse && cursor.is_none() && self.cursor_due.is_none() {
            self.cursor_due = Some(self.last_sent + MAX_CURSOR_DELAY);
        }
    }

    fn record_cursor(&mut self) {
        self.last_cursor = Some(clock::steady());
        self.cursor_due = None;
    }

    /// Sends the cursor of events that were sent without one, as soon as it is known.
    fn push_cursor(&mut self) {
        self.cursor_due = None;
        match self.tail.cursor() {
            Some(cursor) => {
                self.push(&cursor.sse_event);
                self.record_cursor();
            }
            // History is not sent completely, or lines were appended that are about to be sent.
            None => self.cursor_due = Some(clock::steady() + MAX_CURSOR_DELAY),
        }
    }

    fn push_heartbeat(&mut self) {
        if self.format == Format::Sse {
            self.push(&Bytes::from_static(sse::HEARTBEAT).into());
            if let Some(cursor) = self.tail.cursor() {
                self.push(&cursor.sse_event);
                self.record_cursor();
            }
        } else {
            self.out.push_back(Bytes::from_static(&gzip::HEARTBEAT));
        }
    }

    fn push_end(&mut self, output: Output) {
        let cursor = output.cursor.as_ref().map(|cursor| cursor.text.as_str());
        match (self.format, cursor) {
            (Format::Sse, None) if output.finished => self.push(&sse::closing(Some(sse::FINISHED_ID)).into()),
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

/// What a body does next.
enum Next {
    Output(Output),
    /// A cursor is due.
    Cursor,
    Heartbeat,
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
