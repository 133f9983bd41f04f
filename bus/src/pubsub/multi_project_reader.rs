//! Reads an app whose topic exists in several projects, or comes to exist in another one.
//!
//! Deliveries carry their stream and sequence number, so it does not matter from which topic a
//! batch comes: reassembly orders batches and trims repeats.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    StreamExt,
    future::try_join_all,
    stream::{self, BoxStream},
};
use tokio::sync::watch;

use super::{app_placement::Displaced, failure::Failure, projects::Projects, reader_task};
use crate::{AppName, BusError, PublishTime, Reader, ReaderItem, Start};

/// What to read.
#[derive(Clone)]
pub(super) enum Target {
    /// The app, without acknowledgement.
    App(Start),
    /// The durable subscription of this name.
    Subscription(String),
}

/// Key of a part: the project, and whether the reader was opened with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    project: usize,
    is_initial: bool,
}

type Item = Result<ReaderItem, BusError>;

type Items = BoxStream<'static, Item>;

/// The streams of all parts, polled in turn.
#[derive(Default)]
struct Parts {
    list: Vec<(Part, Items)>,
    /// Index of the part that is polled first.
    first: usize,
}

impl Parts {
    fn add(&mut self, part: Part, items: Items) {
        self.list.push((part, items));
    }

    /// Polls for the next item. `None` if all parts have ended.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(Part, Item)>> {
        let mut index = self.first;
        for _ in 0..self.list.len() {
            index %= self.list.len();
            let (part, items) = &mut self.list[index];
            match items.poll_next_unpin(context) {
                Poll::Ready(Some(item)) => {
                    self.first = index + 1;
                    return Poll::Ready(Some((*part, item)));
                }
                Poll::Ready(None) => drop(self.list.remove(index)),
                Poll::Pending => index += 1,
            }
        }
        if self.list.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

struct MultiProjectReader {
    projects: Arc<Projects>,
    app: AppName,
    target: Target,
    /// Where the reader starts.
    since: PublishTime,
    parts: Parts,
    reading: Vec<usize>,
    /// Number of initial parts that have not caught up.
    behind: usize,
    refreshed: watch::Receiver<Displaced>,
}

/// Reads an app from the projects in `found`, which have its topic, and from those that get it
/// later.
pub(super) async fn read(
    projects: &Arc<Projects>,
    app: &AppName,
    target: Target,
    found: Vec<usize>,
) -> Result<Reader, BusError> {
    let mut readers = match &target {
        Target::App(start) => {
            let opened = found
                .iter()
                .map(|index| reader_task::follow(&projects.list[*index], app, *start));
            try_join_all(opened).await?
        }
        Target::Subscription(name) => {
            let starts = subscription_starts(projects, app, name, &found).await?;
            let opened = starts
                .into_iter()
                .map(|(index, since)| reader_task::subscribe(&projects.list[index], app, name, since));
            try_join_all(opened).await?
        }
    };
    if projects.list.len() == 1
        && let Some(only) = readers.pop()
    {
        return Ok(only);
    }
    // Before this, a part that starts with new messages may have missed some.
    let since = match &target {
        Target::App(Start::Now) => readers.iter().map(Reader::since).max(),
        _ => readers.iter().map(Reader::since).min(),
    };
    let since = since.unwrap_or(PublishTime(0));
    let ack_deadline = readers.iter().map(Reader::ack_deadline).max().unwrap_or_default();
    let mut reader = MultiProjectReader {
        projects: Arc::clone(projects),
        app: app.clone(),
        target,
        since,
        behind: readers.len(),
        parts: Parts::default(),
        reading: found.clone(),
        refreshed: projects.placement.subscribe(),
    };
    for (project, part) in found.into_iter().zip(readers) {
        reader.add(project, true, part);
    }
    let items = stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) });
    let clock = Arc::clone(&projects.shared.clock);
    let reader = Reader::new(items.boxed(), since, false).with_clock(clock);
    Ok(reader.with_ack_deadline(ack_deadline))
}

/// Returns where a new durable subscription starts in each project: with new messages, or, if the
/// subscription already exists in another project, with the oldest stored message, because its
/// reader has not seen this project's.
pub(super) async fn subscription_starts(
    projects: &Projects,
    app: &AppName,
    name: &str,
    found: &[usize],
) -> Result<Vec<(usize, Option<PublishTime>)>, BusError> {
    if let [only] = found {
        return Ok(vec![(*only, None)]);
    }
    let exists = found
        .iter()
        .map(|index| projects.list[*index].has_subscription(app, name));
    let exists = try_join_all(exists).await.map_err(Failure::into_bus_error)?;
    let exists_anywhere = exists.contains(&true);
    let oldest = |index: usize| projects.list[index].oldest();
    let start = |(index, exists): (&usize, bool)| (*index, (exists_anywhere && !exists).then(|| oldest(*index)));
    Ok(found.iter().zip(exists).map(start).collect())
}

impl MultiProjectReader {
    async fn next(&mut self) -> Option<Item> {
        loop {
            let (part, item) = tokio::select! {
                biased;
                Ok(()) = self.refreshed.changed() => {
                    self.open_new_parts().await;
                    continue;
                }
                next = poll_fn(|context| self.parts.poll_next(context)) => next?,
            };
            if !matches!(item, Ok(ReaderItem::CaughtUp)) {
                return Some(item);
            }
            if part.is_initial {
                self.behind = self.behind.saturating_sub(1);
                if self.behind == 0 {
                    return Some(item);
                }
            }
        }
    }

    fn add(&mut self, project: usize, is_initial: bool, reader: Reader) {
        self.parts.add(Part { project, is_initial }, reader.items);
    }

    /// Opens the projects that got the app's topic meanwhile. A failure is retried after the next
    /// refresh.
    async fn open_new_parts(&mut self) {
        for index in self.projects.placement.unread_projects(&self.app, &self.reading) {
            let project = &self.projects.list[index];
            let opened = match &self.target {
                Target::App(_) => reader_task::follow(project, &self.app, Start::At(self.since)).await,
                Target::Subscription(name) => {
                    let oldest = project.oldest();
                    reader_task::subscribe(project, &self.app, name, Some(oldest)).await
                }
            };
            match opened {
                Ok(reader) => {
                    tracing::info!(app = %self.app, project = project.name(), "app found in another project");
                    self.add(index, false, reader);
                    self.reading.push(index);
                }
                Err(BusError::UnknownApp(_)) => {}
                Err(error) => {
                    tracing::debug!(app = %self.app, project = project.name(), %error, "opening another project failed");
                }
            }
        }
    }
}
