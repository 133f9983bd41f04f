//! What a reader is shown before the live lines: chosen from the ring where it reaches, else from a read-back of the bus.

use std::{sync::Arc, time::Duration};

use bus::{AppName, BusError, PublishTime, notice};
use tokio::time::Instant;

use crate::{
    choose::Choose,
    frame::{Frame, Told},
    history::{self, Past, Shared, Want},
    hub::Hub,
    hubs::Hubs,
    query::LogsQuery,
    ring::{Contents, Place},
    settled::Settled,
};

/// How long after a read-back the ring can still bring what it had. Far above any way through the bus.
const SPLICE: Duration = Duration::from_secs(60);

/// How long before it was published a line can have been printed, or its node's clock be behind, and still be found by `since`.
const PRINTED: Duration = Duration::from_secs(60);

/// How long a read-back is kept for others that is larger than a ring: a deploy's thousand tails come within this.
const LARGE_KEPT: Duration = Duration::from_secs(10);

/// How far further back is read than a cursor asks: those of the next tails lie a little earlier.
const EARLIER: Duration = Duration::from_secs(60);

/// What comes before the live lines.
pub(crate) struct Backlog {
    /// Said first.
    pub(crate) told: Vec<Told>,
    /// The lines, to be shown as `choose` says.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// So many of the frames come from a read-back; what comes later may hold the same.
    pub(crate) read_back: usize,
    pub(crate) choose: Choose,
    /// Where the live lines begin.
    pub(crate) place: Option<Place>,
}

/// History that ends: for a reader that does not follow.
///
/// # Errors
/// The bus's.
pub(crate) async fn ended(hubs: &Hubs, app: &AppName, query: &LogsQuery) -> Result<Backlog, BusError> {
    let mut past = Past::default();
    if query.cursor.is_some() || query.num_lines > 0 {
        past = read_back(hubs, app, query).await?;
    }
    let told = std::mem::take(&mut past.told);
    let frames = std::mem::take(&mut past.frames);
    let mut backlog = Backlog {
        told,
        read_back: frames.len(),
        frames,
        choose: choose(query),
        place: None,
    };
    backlog.say_where_out_of_reach(query, &past);
    backlog.keep_last(query).await;
    Ok(backlog)
}

/// History that joins the live lines of a hub: one read-back at a time.
pub(crate) async fn joined(hubs: &Hubs, hub: &Arc<Hub>, query: &LogsQuery) -> Backlog {
    if query.cursor.is_none() && query.num_lines == 0 {
        return Backlog {
            told: Vec::new(),
            frames: Vec::new(),
            read_back: 0,
            choose: choose(query),
            place: Some(hub.ring.end()),
        };
    }
    if let Some(backlog) = from_hub(hub, query).await {
        return backlog;
    }
    let _turn = hub.read_backs.lock().await;
    // Whoever had the turn before may have read what is wanted here.
    if let Some(backlog) = from_hub(hub, query).await {
        return backlog;
    }
    let place = hub.ring.end();
    let past = match read_back(hubs, &hub.app, query).await {
        Ok(past) => past,
        Err(error) => {
            tracing::warn!(app = %hub.app, %error, "no history for a tail");
            Past {
                told: vec![Told::now(notice::history_failed())],
                reached: PublishTime::now(),
                ..Past::default()
            }
        }
    };
    let shared = Arc::new(Shared {
        past,
        place,
        made: Instant::now(),
    });
    if query.filter.is_none() || query.cursor.is_some() {
        keep(hub, &shared, hubs.config.ring_bytes);
    }
    // The ring can hardly have passed the place meanwhile; where it has, the tail is told what it missed.
    let contents = hub.ring.since(place);
    let mut backlog = after(shared, contents, query);
    backlog.keep_last(query).await;
    backlog
}

/// Keeps a read-back for those who come next.
fn keep(hub: &Arc<Hub>, shared: &Arc<Shared>, small: usize) {
    *hub.past.lock() = Some(Arc::clone(shared));
    if shared.past.bytes() <= small {
        return;
    }
    let (hub, shared) = (Arc::downgrade(hub), Arc::downgrade(shared));
    tokio::spawn(async move {
        tokio::time::sleep(LARGE_KEPT).await;
        if let (Some(hub), Some(shared)) = (hub.upgrade(), shared.upgrade()) {
            hub.past.lock().take_if(|kept| Arc::ptr_eq(kept, &shared));
        }
    });
}

async fn read_back(hubs: &Hubs, app: &AppName, query: &LogsQuery) -> Result<Past, BusError> {
    // The semaphore is never closed.
    let _turn = hubs.read_backs.acquire().await.map_err(|_| BusError::Closed)?;
    hubs.metrics.read_backs.inc();
    let want = match &query.cursor {
        Some(cursor) => Want {
            lines: u64::MAX,
            since: Some(cursor.before.earlier_by(EARLIER)),
            filter: None,
        },
        None => Want {
            lines: query.num_lines,
            since: since(query),
            filter: query.filter.clone(),
        },
    };
    history::read_back(&*hubs.bus, app, &want, hubs.room(), &hubs.config).await
}

/// From when on the bus can have taken what is wanted.
fn since(query: &LogsQuery) -> Option<PublishTime> {
    let micros = u64::try_from(query.since()?.0 / 1000).unwrap_or_default();
    Some(PublishTime(micros).earlier_by(PRINTED))
}

fn choose(query: &LogsQuery) -> Choose {
    Choose::new(query.filter.clone(), query.cursor.as_deref().map(Settled::from))
}

/// From what the hub has: its ring, or a read-back that it keeps and the ring behind it. `None` where that does not reach far enough.
async fn from_hub(hub: &Hub, query: &LogsQuery) -> Option<Backlog> {
    let needed = query
        .cursor
        .as_ref()
        .map(|cursor| cursor.before)
        .or_else(|| since(query));
    let reaches = |complete_from: PublishTime| {
        complete_from == PublishTime(0) || needed.is_some_and(|needed| complete_from <= needed)
    };
    if query.filter.is_none()
        && query.cursor.is_none()
        && let Some(contents) = hub.ring.last_lines(query.num_lines)
    {
        let mut backlog = from_ring(contents, query);
        backlog.keep_last(query).await;
        return Some(backlog);
    }
    let contents = hub.ring.all();
    let enough = reaches(contents.complete_from);
    let mut backlog = from_ring(contents, query);
    if backlog.keep_last(query).await || enough {
        return Some(backlog);
    }
    let shared = Arc::clone(hub.past.lock().as_ref()?);
    let contents = hub.ring.since(shared.place)?;
    // What was cut to its bounds has no more for anybody.
    let enough = shared.past.complete_from.is_some_and(reaches) || shared.past.cut;
    let mut backlog = after(shared, Some(contents), query);
    (backlog.keep_last(query).await || enough).then_some(backlog)
}

fn from_ring(contents: Contents, query: &LogsQuery) -> Backlog {
    let mut choose = choose(query);
    // The replica that this reader was at may have been ahead of this one.
    choose.resume(Instant::now() + SPLICE);
    Backlog {
        told: Vec::new(),
        frames: contents.frames,
        read_back: 0,
        choose,
        place: Some(contents.end),
    }
}

/// A read-back, and what the ring has behind it.
fn after(shared: Arc<Shared>, contents: Option<Contents>, query: &LogsQuery) -> Backlog {
    let mut frames = shared.past.frames.clone();
    let read_back = frames.len();
    let mut place = shared.place;
    if let Some(contents) = contents {
        frames.extend(contents.frames);
        place = contents.end;
    }
    let mut backlog = Backlog {
        told: shared.past.told.clone(),
        frames,
        read_back,
        choose: choose(query),
        place: Some(place),
    };
    backlog.say_where_out_of_reach(query, &shared.past);
    let until = shared.made + SPLICE;
    backlog.choose.splice(shared, until);
    backlog
}

impl Backlog {
    /// A cursor from before what could be read: what lies between is lost to this reader, in a count that nobody knows.
    fn say_where_out_of_reach(&mut self, query: &LogsQuery, past: &Past) {
        let Some(cursor) = &query.cursor else { return };
        let reached = match past.complete_from {
            Some(_) => past.reached,
            // Cut: it holds the newest, and says so; from when on is not known.
            None => PublishTime::now(),
        };
        if reached > cursor.before {
            self.told
                .push(Told::now(notice::cursor_expired(cursor.before, reached)));
        }
    }

    /// Leaves out all but the newest lines that are wanted. True where there are as many as are wanted.
    async fn keep_last(&mut self, query: &LogsQuery) -> bool {
        if query.cursor.is_some() {
            return false;
        }
        let mut missing = query.num_lines;
        let mut first = self.frames.len();
        while first > 0 && missing > 0 {
            first -= 1;
            let frame = &self.frames[first];
            let found = self.choose.count(frame, first >= self.read_back);
            if found > missing {
                self.choose.skip(found - missing);
            }
            missing = missing.saturating_sub(found);
            if self.choose.looks_at_lines() {
                // A frame is some hundred microseconds of looking: others have their turn between two.
                tokio::task::yield_now().await;
            }
        }
        self.frames.drain(..first);
        self.read_back = self.read_back.saturating_sub(first);
        missing == 0
    }
}
