//! A tail as the body of an HTTP answer.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures::stream;
use tokio::time::Instant;

use crate::{
    format::{Format, ndjson, sse},
    gzip::{self, Member},
    limits::Admitted,
    piece::Piece,
    tail::{Tail, Turn},
};

/// How often an event stream is told where it is.
const ID_INTERVAL: Duration = Duration::from_secs(1);

/// Whether the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
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

/// A body: whole lines at a time, each as soon as it is there.
///
/// `heartbeat`: how long nothing is sent at most, where there is a way to send nothing that anybody sees.
pub(crate) fn body(tail: Tail, admitted: Admitted, format: Format, gzip: bool, heartbeat: Duration) -> Body {
    let member = gzip.then(Member::default);
    let sending = Sending {
        tail,
        _admitted: admitted,
        heartbeat,
        format,
        // At once: a decoder that has its header knows that it is one.
        out: member.iter().map(|_| Bytes::from_static(&gzip::HEADER)).collect(),
        member,
        told: None,
        sent: Instant::now(),
        ended: false,
    };
    Body::from_stream(stream::unfold(sending, |mut sending| async {
        let bytes = sending.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), sending))
    }))
}

struct Sending {
    tail: Tail,
    _admitted: Admitted,
    heartbeat: Duration,
    format: Format,
    member: Option<Member>,
    out: VecDeque<Bytes>,
    /// When an event stream was last told where it is.
    told: Option<Instant>,
    sent: Instant,
    ended: bool,
}

impl Sending {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            let beats = self.format == Format::Sse || self.member.is_some();
            let turn = if beats {
                tokio::time::timeout_at(self.sent + self.heartbeat, self.tail.next())
                    .await
                    .ok()
            } else {
                Some(self.tail.next().await)
            };
            self.sent = Instant::now();
            match turn {
                Some(turn) => self.add(turn),
                None => self.beat(),
            }
        }
    }

    fn add(&mut self, turn: Turn) {
        turn.pieces.iter().for_each(|piece| self.push(piece));
        if turn.ended {
            return self.end(turn);
        }
        let due = self.told.is_none_or(|told| told + ID_INTERVAL <= self.sent);
        if self.format == Format::Sse
            && due
            && let Some(mark) = turn.mark
        {
            self.told = Some(self.sent);
            self.push(&mark.id);
        }
    }

    fn beat(&mut self) {
        if self.format == Format::Sse {
            self.push(&Bytes::from_static(sse::HEARTBEAT).into());
            if let Some(mark) = self.tail.mark() {
                self.told = Some(self.sent);
                self.push(&mark.id);
            }
        } else {
            self.out.push_back(Bytes::from_static(&gzip::HEARTBEAT));
        }
    }

    fn end(&mut self, turn: Turn) {
        let cursor = turn.mark.as_ref().map(|mark| mark.cursor.as_str());
        match (self.format, cursor) {
            (Format::Sse, cursor) => self.push(&sse::closing(cursor).into()),
            (Format::Ndjson, Some(cursor)) => self.push(&ndjson::closing(cursor).into()),
            _ => {}
        }
        self.out.extend(self.member.take().map(Member::finish));
        self.ended = true;
    }

    fn push(&mut self, piece: &Piece) {
        let bytes = match &mut self.member {
            Some(member) => member.add(piece.block()),
            None => piece.plain().clone(),
        };
        // An empty chunk would be the end.
        if !bytes.is_empty() {
            self.out.push_back(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (accepts, takes) in [
            ("gzip, deflate", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br, deflate", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accepts.parse().unwrap())]);
            assert_eq!(takes_gzip(&headers), takes, "{accepts}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
