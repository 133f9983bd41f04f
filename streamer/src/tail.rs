//! One client's live reading of one app: a cursor into the ring.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use bus::Timestamp;
use bytes::Bytes;
use futures::stream::{self, Stream};
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::watch, time::Instant};

use crate::{
    frame::Settled,
    gather::notice_frame,
    history::{History, Rendered},
    hubs::Attached,
    notice,
    ring::Place,
};

/// How long after a read-back the ring can still bring what it had. Far above any way through the bus.
const SPLICE: Duration = Duration::from_secs(60);

/// What a client still has to get, and where it goes on.
pub(crate) struct Tail {
    attached: Attached,
    place: Place,
    grown: watch::Receiver<u64>,
    history: Rendered,
    ready: VecDeque<Bytes>,
    /// What the read-back showed, until the ring is past it.
    settled: Option<(Settled, Instant)>,
    served: Timestamp,
    overflowed: Counter,
}

impl Tail {
    /// A tail from this place of the ring on, after these texts.
    pub(crate) fn new(attached: Attached, place: Place, texts: Vec<Bytes>, overflowed: Counter) -> Self {
        let grown = attached.hub.ring.watch();
        Self {
            attached,
            place,
            grown,
            history: Rendered::default(),
            ready: texts.into(),
            settled: None,
            served: Timestamp::now(),
            overflowed,
        }
    }

    /// A tail from this place of the ring on, after a read-back that began when the place was the ring's end: what both have is shown once.
    pub(crate) fn after(attached: Attached, place: Place, history: History, overflowed: Counter) -> Self {
        let mut tail = Self::new(attached, place, Vec::new(), overflowed);
        tail.history = history.text;
        tail.settled = Some((history.settled, Instant::now() + SPLICE));
        tail
    }

    /// Its bytes, whole lines at a time. Ends when the hub is done.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut tail| async {
            let bytes = tail.next().await?;
            Some((Ok(bytes), tail))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.history.next().or_else(|| self.ready.pop_front()) {
                return Some(bytes);
            }
            let done = self.attached.hub.done.is_cancelled();
            self.grown.borrow_and_update();
            if self.refill() {
                continue;
            }
            if done {
                return None;
            }
            tokio::select! {
                changed = self.grown.changed() => changed.ok()?,
                () = self.attached.hub.done.cancelled() => {}
            }
        }
    }

    /// Takes what the ring has for this tail. False where there is nothing.
    fn refill(&mut self) -> bool {
        let taken = self.attached.hub.ring.take(self.place);
        self.place = taken.place;
        if taken.missed > 0 {
            self.overflowed.inc_by(taken.missed);
            let said = notice::overflow(taken.missed, self.served);
            self.ready
                .push_back(notice_frame(self.attached.hub.app.as_str(), &said).text);
        }
        if self.settled.as_ref().is_some_and(|(_, until)| *until < Instant::now()) {
            self.settled = None;
        }
        for frame in &taken.frames {
            match &self.settled {
                Some((settled, _)) => self.ready.extend(frame.unsettled(settled)),
                None => self.ready.push_back(frame.text.clone()),
            }
        }
        self.served = Timestamp::now();
        !taken.frames.is_empty() || taken.missed > 0
    }
}
