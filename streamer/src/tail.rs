//! One client's reading of one app: what came before, then a cursor into the ring.

use std::{collections::VecDeque, sync::Arc};

use bus::{AppName, Timestamp, notice};
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::watch, time::Instant};

use crate::{
    backlog::Backlog,
    choose::Choose,
    format::Format,
    frame::{Frame, Told},
    hubs::Attached,
    piece::Piece,
    ring::{Mark, Place},
};

/// Bytes after which a reader's turn is over: what a write can carry, and what is rendered for one reader at a time.
const TURN_BYTES: usize = 256 * 1024;

/// What a client still has to get, and where it goes on.
pub(crate) struct Tail {
    app: AppName,
    format: Format,
    told: Vec<Told>,
    backlog: VecDeque<Arc<Frame>>,
    /// So many of the backlog's frames come from a read-back.
    read_back: usize,
    choose: Choose,
    live: Option<Live>,
}

/// Its place among the live lines.
struct Live {
    attached: Attached,
    place: Place,
    grown: watch::Receiver<u64>,
    served: Timestamp,
    overflowed: Counter,
    /// When it ends of itself.
    until: Option<Instant>,
    /// It has been told where it is though nothing came.
    caught_up: bool,
}

/// What a client is sent next.
pub(crate) struct Turn {
    /// In order. May be none.
    pub(crate) pieces: Vec<Piece>,
    /// Where the client is who has got them. `None` where more is waiting already.
    pub(crate) mark: Option<Arc<Mark>>,
    /// There will be no more.
    pub(crate) ended: bool,
}

impl Tail {
    /// A tail that ends behind its backlog.
    pub(crate) fn ended(app: AppName, format: Format, backlog: Backlog) -> Self {
        Self {
            app,
            format,
            told: backlog.told,
            backlog: backlog.frames.into(),
            read_back: backlog.read_back,
            choose: backlog.choose,
            live: None,
        }
    }

    /// A tail that goes on with what comes, until then.
    pub(crate) fn joined(
        attached: Attached,
        format: Format,
        mut backlog: Backlog,
        until: Option<Instant>,
        overflowed: Counter,
    ) -> Self {
        let grown = attached.hub.ring.watch();
        let place = backlog.place.take().unwrap_or_else(|| attached.hub.ring.end());
        let app = attached.hub.app.clone();
        Self {
            live: Some(Live {
                attached,
                place,
                grown,
                served: Timestamp::now(),
                overflowed,
                until,
                caught_up: false,
            }),
            ..Self::ended(app, format, backlog)
        }
    }

    /// Waits until there is something to send.
    ///
    /// *Cancel safety*: nothing is lost when the call is dropped.
    pub(crate) async fn next(&mut self) -> Turn {
        if let Some(turn) = self.next_of_backlog() {
            // Looking for lines takes time: others have their turn between two.
            if self.choose.looks_at_lines() {
                tokio::task::yield_now().await;
            }
            return turn;
        }
        let Some(live) = &mut self.live else {
            return Turn::end(Vec::new(), None);
        };
        loop {
            let stopping = live.is_over();
            live.grown.borrow_and_update();
            let (pieces, more) = live.take(&self.app, &mut self.choose, self.format);
            let ended = stopping && !more;
            let caught_up = !more && !std::mem::replace(&mut live.caught_up, true);
            if ended || caught_up || !pieces.is_empty() {
                let mark = live.mark(&self.choose);
                return Turn { pieces, mark, ended };
            }
            if more {
                // It looked at lines and wants none of them: others have their turn first.
                tokio::task::yield_now().await;
            } else if live.wait().await.is_err() {
                return Turn::end(pieces, live.mark(&self.choose));
            }
        }
    }

    /// Where the client is, when it has got all there is.
    pub(crate) fn mark(&self) -> Option<Arc<Mark>> {
        let live = self.live.as_ref().filter(|_| self.backlog.is_empty())?;
        live.mark(&self.choose)
    }

    fn next_of_backlog(&mut self) -> Option<Turn> {
        let app = &self.app;
        let told = self.told.drain(..).map(|told| said(app, told, self.format));
        let mut pieces: Vec<Piece> = told.collect();
        let mut bytes = 0;
        while bytes < TURN_BYTES
            && let Some(frame) = self.backlog.pop_front()
        {
            let live = self.read_back == 0;
            self.read_back = self.read_back.saturating_sub(1);
            if let Some(piece) = self.choose.render(&frame, live, self.format) {
                bytes += piece.plain().len();
                pieces.push(piece);
            } else if self.choose.looks_at_lines() {
                break;
            }
        }
        if pieces.is_empty() && self.backlog.is_empty() {
            return None;
        }
        let ended = self.live.is_none() && self.backlog.is_empty();
        Some(Turn {
            pieces,
            mark: None,
            ended,
        })
    }
}

impl Live {
    /// Takes what the ring has; true where there was something.
    fn take(&mut self, app: &AppName, choose: &mut Choose, format: Format) -> (Vec<Piece>, bool) {
        let taken = self.attached.hub.ring.take(self.place);
        self.place = taken.place;
        let mut pieces = Vec::with_capacity(taken.frames.len());
        if taken.missed > 0 {
            self.overflowed.inc_by(taken.missed);
            choose.overflowed();
            let told = Told::now(notice::slow_client(taken.missed, self.served));
            pieces.push(said(app, told, format));
        }
        let rendered = taken
            .frames
            .iter()
            .filter_map(|frame| choose.render(frame, true, format));
        pieces.extend(rendered);
        self.served = Timestamp::now();
        (pieces, !taken.frames.is_empty() || taken.missed > 0)
    }

    /// The ring's cursor says where this reader is once the ring has brought what it had from elsewhere.
    fn mark(&self, choose: &Choose) -> Option<Arc<Mark>> {
        let ring = &self.attached.hub.ring;
        choose.is_joined(ring).then(|| ring.cursor(self.place)).flatten()
    }

    fn is_over(&self) -> bool {
        self.attached.hub.done.is_cancelled() || self.until.is_some_and(|until| until <= Instant::now())
    }

    /// Waits for more. An error: there will be none.
    async fn wait(&mut self) -> Result<(), watch::error::RecvError> {
        let until = self.until;
        let over = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.grown.changed() => changed,
            () = self.attached.hub.done.cancelled() => Ok(()),
            () = over => Ok(()),
        }
    }
}

impl Turn {
    pub(crate) fn end(pieces: Vec<Piece>, mark: Option<Arc<Mark>>) -> Self {
        Self {
            pieces,
            mark,
            ended: true,
        }
    }
}

fn said(app: &AppName, told: Told, format: Format) -> Piece {
    Frame::told(app, told).piece(format).clone()
}
