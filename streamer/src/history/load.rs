//! Loads the history that a tail starts with: from the ring if it reaches back far enough,
//! otherwise from the bus.

use std::{sync::Arc, time::Duration};

use bus::{AppName, BusError, PublishTime, cursor::StreamKey, notice};
use system::{clock, collections::HashSet, task};

use crate::{
    frame::Frame,
    history::{
        read::{self, ReadRequest},
        select::Selector,
    },
    hub::{
        app_hub::Hub,
        cached_history::{CachedHistory, HistorySegment},
        delivered::Delivered,
        hubs::Hubs,
        ring::{Contents, RingPosition},
    },
    line::NoticeLine,
    query::{LogsQuery, filter::Filter},
};

/// How long after a history read the ring can still repeat its lines; far above any delay of the
/// bus.
const REPEAT_PERIOD: Duration = Duration::from_secs(60);

/// How much earlier than its publish time a line's timestamp can be and still be found by `since`.
const PUBLISH_DELAY: Duration = Duration::from_secs(60);

/// How long a history larger than a ring is cached, so that tails that connect together share it.
const LARGE_CACHE_TIME: Duration = Duration::from_secs(10);

/// History is read from this much before a cursor, because the cursors of the next tails are often
/// slightly older.
const CURSOR_MARGIN: Duration = Duration::from_secs(60);

/// What a tail receives before live lines.
pub(crate) struct History {
    /// Sent first.
    pub(crate) notices: Vec<NoticeLine>,
    /// Frames, of which `selector` selects the lines.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Number of leading frames that come from a history read; the frames after them may repeat
    /// it.
    pub(crate) read_frames: usize,
    pub(crate) selector: Selector,
    /// Where live lines begin in the ring.
    pub(crate) position: Option<RingPosition>,
}

/// Loads history for a request that does not follow.
///
/// # Errors
/// The error of the bus.
pub(crate) async fn load(hubs: &Hubs, app: &AppName, query: &LogsQuery) -> Result<History, BusError> {
    let mut segment = HistorySegment::default();
    if query.cursor.is_some() || query.num_lines > 0 {
        segment = read(hubs, app, query).await?;
    }
    let notices = std::mem::take(&mut segment.notices);
    let frames = std::mem::take(&mut segment.frames);
    let mut history = History {
        notices,
        read_frames: frames.len(),
        frames,
        selector: selector(query),
        position: None,
    };
    history.report_expired_cursor(query, &segment, hubs.bus.now().unwrap_or_else(PublishTime::now));
    history.keep_last(query).await;
    Ok(history)
}

/// Loads history for a live tail. Each hub reads the bus once at a time.
///
/// If the read fails, a notice takes the place of the history.
pub(crate) async fn load_for_tail(hubs: &Hubs, hub: &Arc<Hub>, query: &mut LogsQuery) -> History {
    query.limit_cursor(hub.ring.now());
    let query = &*query;
    if query.cursor.is_none() && query.num_lines == 0 {
        return History {
            notices: Vec::new(),
            frames: Vec::new(),
            read_frames: 0,
            selector: selector(query),
            position: Some(hub.ring.end()),
        };
    }
    if let Some(history) = from_hub(hub, query).await {
        return history;
    }
    let _turn = hub.history_read.lock().await;
    // The tail before this one may have read what this one needs.
    if let Some(history) = from_hub(hub, query).await {
        return history;
    }
    let position = hub.ring.end();
    let segment = match read(hubs, &hub.app, query).await {
        Ok(segment) => segment,
        Err(error) => {
            tracing::warn!(app = %hub.app, %error, "history read failed");
            HistorySegment {
                notices: vec![NoticeLine::now(notice::history_failed())],
                reached: hub.ring.now(),
                ..HistorySegment::default()
            }
        }
    };
    let cached = Arc::new(CachedHistory {
        segment,
        position,
        created: clock::steady(),
    });
    if query.filter.is_none() || query.cursor.is_some() {
        cache(hub, &cached, hubs.config.ring_bytes);
    }
    // If the ring has already evicted this position, the tail gets an L11 notice.
    let contents = hub.ring.since(position);
    let mut history = from_cached(hub, cached, contents, query);
    history.keep_last(query).await;
    history
}

/// Caches a history read for later tails.
fn cache(hub: &Arc<Hub>, cached: &Arc<CachedHistory>, small: usize) {
    *hub.cached_history.lock() = Some(Arc::clone(cached));
    if cached.segment.bytes() <= small {
        return;
    }
    let (hub, cached) = (Arc::downgrade(hub), Arc::downgrade(cached));
    task::spawn(async move {
        tokio::time::sleep(LARGE_CACHE_TIME).await;
        if let (Some(hub), Some(cached)) = (hub.upgrade(), cached.upgrade()) {
            hub.cached_history
                .lock()
                .take_if(|current| Arc::ptr_eq(current, &cached));
        }
    });
}

async fn read(hubs: &Hubs, app: &AppName, query: &LogsQuery) -> Result<HistorySegment, BusError> {
    // The semaphore is never closed.
    let _permit = hubs.history_reads.acquire().await.map_err(|_| BusError::Closed)?;
    hubs.metrics.history_reads.inc();
    let request = match &query.cursor {
        Some(cursor) => ReadRequest {
            lines: u64::MAX,
            since: Some(cursor.before.earlier_by(CURSOR_MARGIN)),
            filter: None,
        },
        None => ReadRequest {
            lines: query.num_lines,
            since: published_since(query),
            filter: query.filter.clone(),
        },
    };
    read::read(&*hubs.bus, app, &request, hubs.history_budget(), &hubs.config).await
}

/// Returns the earliest publish time of lines that match `since`.
fn published_since(query: &LogsQuery) -> Option<PublishTime> {
    let micros = u64::try_from(query.since()?.0 / 1000).unwrap_or_default();
    Some(PublishTime(micros).earlier_by(PUBLISH_DELAY))
}

fn selector(query: &LogsQuery) -> Selector {
    let resumed = query.cursor.as_deref().map(Delivered::from);
    Selector::new(query.filter.clone(), resumed, clock::steady() + REPEAT_PERIOD)
}

/// Loads history from the hub: from its ring, or from its cached history and the ring after it.
/// `None` if neither reaches back far enough.
async fn from_hub(hub: &Hub, query: &LogsQuery) -> Option<History> {
    let needed = query
        .cursor
        .as_ref()
        .map(|cursor| cursor.before)
        .or_else(|| published_since(query));
    let reaches = |complete_from: PublishTime| {
        complete_from == PublishTime(0) || needed.is_some_and(|needed| complete_from <= needed)
    };
    if query.filter.is_none()
        && query.cursor.is_none()
        && let Some(contents) = hub.ring.last_lines(query.num_lines)
    {
        let mut history = from_ring(contents, query);
        history.keep_last(query).await;
        return Some(history);
    }
    let contents = hub.ring.all();
    let enough = reaches(contents.complete_from);
    let mut history = from_ring(contents, query);
    if history.keep_last(query).await || enough {
        return Some(history);
    }
    let cached = Arc::clone(hub.cached_history.lock().as_ref()?);
    let contents = hub.ring.since(cached.position)?;
    // Reading truncated history again would not return more.
    let enough = cached.segment.complete_from.is_some_and(reaches) || cached.segment.truncated;
    let mut history = from_cached(hub, cached, Some(contents), query);
    (history.keep_last(query).await || enough).then_some(history)
}

fn from_ring(contents: Contents, query: &LogsQuery) -> History {
    History {
        notices: Vec::new(),
        frames: contents.frames,
        read_frames: 0,
        selector: selector(query),
        position: Some(contents.end),
    }
}

/// Combines cached history with the ring's contents after it.
fn from_cached(hub: &Hub, cached: Arc<CachedHistory>, contents: Option<Contents>, query: &LogsQuery) -> History {
    let mut frames = cached.segment.frames.clone();
    let read_frames = frames.len();
    let mut position = cached.position;
    if let Some(contents) = contents {
        frames.extend(contents.frames);
        position = contents.end;
    }
    let mut history = History {
        notices: cached.segment.notices.clone(),
        frames,
        read_frames,
        selector: selector(query),
        position: Some(position),
    };
    history.report_expired_cursor(query, &cached.segment, hub.ring.now());
    let until = cached.created + REPEAT_PERIOD;
    history.selector.deduplicate(cached, until);
    history
}

impl History {
    /// Adds a notice if the cursor is older than the history that could be read: an unknown number
    /// of lines between them is lost to this tail.
    fn report_expired_cursor(&mut self, query: &LogsQuery, segment: &HistorySegment, now: PublishTime) {
        let Some(cursor) = &query.cursor else { return };
        let reached = if segment.truncated {
            // The start of what is left is unknown.
            now.max(PublishTime(cursor.before.0.saturating_add(1)))
        } else {
            segment.reached
        };
        if reached > cursor.before {
            self.notices
                .push(NoticeLine::now(notice::cursor_expired(cursor.before, reached)));
        }
    }

    /// Drops everything before the newest `num_lines` selected lines. Returns whether there are
    /// that many.
    async fn keep_last(&mut self, query: &LogsQuery) -> bool {
        if query.cursor.is_some() {
            return false;
        }
        let mut missing = query.num_lines;
        let mut first = self.frames.len();
        while first > 0 && missing > 0 {
            first -= 1;
            let frame = &self.frames[first];
            let found = self.selector.count(frame, first >= self.read_frames);
            if found > missing {
                self.selector.skip(found - missing);
            }
            missing = missing.saturating_sub(found);
            if self.selector.is_filtered() {
                // Filtering a frame takes some hundred microseconds; let other tasks run in
                // between.
                tokio::task::yield_now().await;
            }
        }
        self.keep_repeat_notices(first, query.filter.as_deref());
        let dropped = self.frames.drain(..first);
        for frame in dropped.skip(self.read_frames) {
            self.selector.pass_over(&frame);
        }
        self.read_frames = self.read_frames.saturating_sub(first);
        missing == 0
    }

    /// Keeps, of the first frames, the notices that lines of a stream may be repeated, if lines of the
    /// stream follow, or none precede and live ones can follow: history is sorted by time, so that
    /// those that are repeated can follow as well.
    fn keep_repeat_notices(&mut self, frames: usize, filter: Option<&Filter>) {
        let (dropped, kept) = self.frames.split_at(frames);
        let mut notices: Vec<&NoticeLine> = dropped.iter().flat_map(|frame| frame.repeat_notices()).collect();
        if notices.is_empty() {
            return;
        }
        let streams: HashSet<StreamKey> = kept.iter().flat_map(|frame| frame.streams()).collect();
        let started: HashSet<StreamKey> = dropped.iter().flat_map(|frame| frame.streams()).collect();
        notices.retain(|notice| {
            let is_followed = |key| streams.contains(&key) || !started.contains(&key);
            let is_followed = notice.gap.as_ref().is_some_and(|gap| is_followed(gap.key));
            is_followed && filter.is_none_or(|filter| filter.matches_notice(notice))
        });
        self.notices.extend(notices.into_iter().cloned());
    }
}
