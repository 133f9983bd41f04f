//! The live part of a tail: a position in its hub's ring.

use std::sync::Arc;

use bus::{AppName, Timestamp, notice};
use futures::future::OptionFuture;
use system::clock;
use tokio::{sync::watch, time::Instant};

use crate::{
    format::Format,
    frame::{
        Frame,
        rendered::{EncodedCursor, Rendered},
    },
    history::Selector,
    hub::{hubs::Attached, ring::RingPosition},
    line::NoticeLine,
    metrics::{Metrics, Reason},
};

/// A position in the ring of the hub that the tail is attached to.
pub(super) struct Live {
    attached: Attached,
    position: RingPosition,
    /// Notified when the ring gets new frames.
    appended: watch::Receiver<u64>,
    /// Time of the last read, reported by an L11 notice.
    last_read: Timestamp,
    metrics: Metrics,
    /// When the tail ends by itself.
    until: Option<Instant>,
    /// The tail has reported its cursor once, even without live lines.
    reported_cursor: bool,
}

impl Live {
    pub(super) fn new(
        attached: Attached,
        position: Option<RingPosition>,
        until: Option<Instant>,
        metrics: Metrics,
    ) -> Self {
        let appended = attached.hub.ring.watch();
        let position = position.unwrap_or_else(|| attached.hub.ring.end());
        Self {
            attached,
            position,
            appended,
            last_read: Timestamp::now(),
            metrics,
            until,
            reported_cursor: false,
        }
    }

    pub(super) fn app(&self) -> &AppName {
        &self.attached.hub.app
    }

    /// Marks all frames appended so far as seen by [`wait`](Self::wait).
    pub(super) fn mark_seen(&mut self) {
        self.appended.borrow_and_update();
    }

    /// Returns true on the first call.
    pub(super) fn report_cursor_once(&mut self) -> bool {
        !std::mem::replace(&mut self.reported_cursor, true)
    }

    /// Renders the next frames. The second value is false if the ring had none.
    pub(super) fn read(&mut self, selector: &mut Selector, format: Format) -> (Vec<Rendered>, bool) {
        let read = self.attached.hub.ring.read(self.position);
        self.position = read.position;
        let mut pieces = Vec::with_capacity(read.frames.len());
        if read.skipped > 0 {
            self.metrics.count_gap(Reason::SlowClient, read.skipped);
            selector.set_fell_behind();
            let notice = NoticeLine::now(notice::slow_client(read.skipped, self.last_read));
            pieces.push(Frame::notice(self.app(), notice).rendered(format).clone());
        }
        let rendered = read
            .frames
            .iter()
            .filter_map(|frame| selector.render(frame, true, format));
        pieces.extend(rendered);
        self.last_read = Timestamp::now();
        (pieces, !read.frames.is_empty() || read.skipped > 0)
    }

    /// Returns the ring's cursor. `None` unless it is valid for this tail, see
    /// [`Selector::is_joined`].
    pub(super) fn cursor(&self, selector: &Selector) -> Option<Arc<EncodedCursor>> {
        let ring = &self.attached.hub.ring;
        selector.is_joined(ring).then(|| ring.cursor(self.position)).flatten()
    }

    /// Returns whether the ring gets no more frames for this tail.
    pub(super) fn is_over(&self) -> bool {
        self.attached.hub.done.is_cancelled() || self.until.is_some_and(|until| until <= clock::steady())
    }

    /// Waits for new frames or the end.
    ///
    /// # Errors
    /// The ring is gone.
    pub(super) async fn wait(&mut self) -> Result<(), watch::error::RecvError> {
        let until = OptionFuture::from(self.until.map(tokio::time::sleep_until));
        tokio::select! {
            changed = self.appended.changed() => changed,
            () = self.attached.hub.done.cancelled() => Ok(()),
            Some(()) = until => Ok(()),
        }
    }
}
