//! One client's read of one app: history first, then live lines.
//!
//! Depends on history and the hub; the protocol that carries the output is the caller's.

mod live;
mod output;

use std::{collections::VecDeque, sync::Arc};

use bus::AppName;
use tokio::time::Instant;

use self::live::Live;
pub(crate) use self::output::Output;
use crate::{
    format::Format,
    frame::{
        Frame,
        rendered::{EncodedCursor, Rendered},
    },
    history::{History, Selector},
    hub::hubs::Attached,
    line::NoticeLine,
    metrics::Metrics,
};

/// Bytes after which an output is complete: about one write, and the limit of what is rendered for
/// one tail before others run.
const OUTPUT_BYTES: usize = 256 * 1024;

/// A client's remaining history and its position among live lines.
pub(crate) struct Tail {
    app: AppName,
    format: Format,
    notices: Vec<NoticeLine>,
    history: VecDeque<Arc<Frame>>,
    /// Number of leading history frames that come from a history read.
    read_frames: usize,
    selector: Selector,
    live: Option<Live>,
}

impl Tail {
    /// Creates a tail that ends after its history.
    pub(crate) fn finite(app: AppName, format: Format, history: History) -> Self {
        Self {
            app,
            format,
            notices: history.notices,
            history: history.frames.into(),
            read_frames: history.read_frames,
            selector: history.selector,
            live: None,
        }
    }

    /// Creates a tail that continues with live lines, until `until`.
    pub(crate) fn live(
        attached: Attached,
        format: Format,
        mut history: History,
        until: Option<Instant>,
        metrics: Metrics,
    ) -> Self {
        let live = Live::new(attached, history.position.take(), until, metrics);
        let app = live.app().clone();
        Self {
            live: Some(live),
            ..Self::finite(app, format, history)
        }
    }

    /// Waits for the next output.
    ///
    /// *Cancel safety*: dropping the call loses nothing.
    pub(crate) async fn next(&mut self) -> Output {
        if let Some(output) = self.next_of_history() {
            // Filtering takes time; let other tasks run in between.
            if self.selector.is_filtered() {
                tokio::task::yield_now().await;
            }
            return output;
        }
        let Some(live) = &mut self.live else {
            return Output {
                finished: true,
                ..Output::last(Vec::new(), None)
            };
        };
        loop {
            let over = live.is_over();
            live.mark_seen();
            let (pieces, more) = live.read(&mut self.selector, self.format);
            let ended = over && !more;
            let report_cursor = !more && live.report_cursor_once();
            if ended || report_cursor || !pieces.is_empty() {
                let cursor = live.cursor(&self.selector);
                return Output {
                    pieces,
                    cursor,
                    ended,
                    finished: false,
                };
            }
            if more {
                // Filtered frames took time and selected nothing; let other tasks run.
                tokio::task::yield_now().await;
            } else if live.wait().await.is_err() {
                return Output::last(pieces, live.cursor(&self.selector));
            }
        }
    }

    /// Returns the current cursor. `None` until all history has been sent.
    pub(crate) fn cursor(&self) -> Option<Arc<EncodedCursor>> {
        let live = self.live.as_ref().filter(|_| self.history.is_empty())?;
        live.cursor(&self.selector)
    }

    fn next_of_history(&mut self) -> Option<Output> {
        let app = &self.app;
        let notices = self.notices.drain(..);
        let mut pieces: Vec<Rendered> = notices
            .map(|notice| Frame::notice(app, notice).rendered(self.format).clone())
            .collect();
        let mut bytes = 0;
        while bytes < OUTPUT_BYTES
            && let Some(frame) = self.history.pop_front()
        {
            let live = self.read_frames == 0;
            self.read_frames = self.read_frames.saturating_sub(1);
            if let Some(piece) = self.selector.render(&frame, live, self.format) {
                bytes += piece.plain().len();
                pieces.push(piece);
            } else if self.selector.is_filtered() {
                break;
            }
        }
        if pieces.is_empty() && self.history.is_empty() {
            return None;
        }
        let ended = self.live.is_none() && self.history.is_empty();
        Some(Output {
            pieces,
            cursor: None,
            ended,
            finished: ended,
        })
    }
}
