//! A reader of an app whose topic is in several projects, or comes to be.
//!
//! Deliveries carry their stream and number, so it does not matter which topic a batch comes from: reassembly puts them in order and drops what comes twice.

use std::sync::Arc;

use futures::{
    StreamExt,
    future::try_join_all,
    stream::{self, BoxStream, SelectAll},
};
use tokio::sync::watch;

use super::{Projects, failure::Failure, placement::Displaced};
use crate::{AppName, BusError, Item, PublishTime, Reader, Start};

/// What is read.
#[derive(Clone)]
pub(super) enum Wanted {
    /// The app, from here on, for a reader that settles nothing.
    Follow(Start),
    /// A durable subscription of this name.
    Subscription(String),
}

/// An item, and whether it is of a part that the reader began with.
type Tagged = (bool, Result<Item, BusError>);

struct United {
    projects: Arc<Projects>,
    app: AppName,
    wanted: Wanted,
    /// Where the reader begins.
    since: PublishTime,
    parts: SelectAll<BoxStream<'static, Tagged>>,
    have: Vec<usize>,
    /// Of those the reader began with, how many have not caught up.
    behind: usize,
    looked: watch::Receiver<Displaced>,
}

/// Reads an app from these projects, which have it, and from those where it comes to be.
pub(super) async fn read(
    projects: &Arc<Projects>,
    app: &AppName,
    wanted: Wanted,
    found: Vec<usize>,
) -> Result<Reader, BusError> {
    let mut readers = match &wanted {
        Wanted::Follow(start) => try_join_all(found.iter().map(|at| projects.list[*at].follow(app, *start))).await?,
        Wanted::Subscription(name) => {
            let beginnings = beginnings(projects, app, name, &found).await?;
            let opened = beginnings
                .into_iter()
                .map(|(at, since)| projects.list[at].subscribe(app, name, since));
            try_join_all(opened).await?
        }
    };
    if projects.list.len() == 1
        && let Some(only) = readers.pop()
    {
        return Ok(only);
    }
    let since = readers.iter().map(Reader::since).min().unwrap_or(PublishTime(0));
    let ack_deadline = readers.iter().map(Reader::ack_deadline).max().unwrap_or_default();
    let united = United {
        projects: Arc::clone(projects),
        app: app.clone(),
        wanted,
        since,
        behind: readers.len(),
        parts: readers.into_iter().map(|reader| part(reader, true)).collect(),
        have: found,
        looked: projects.placement.looked(),
    };
    let items = stream::unfold(united, |mut united| async move { Some((united.next().await?, united)) });
    Ok(Reader::new(items.boxed(), since, false).with_ack_deadline(ack_deadline))
}

/// Where a durable subscription begins in each of these projects: with what comes after, unless another project has it already; then with all that is kept, none of
/// which its reader can have had.
pub(super) async fn beginnings(
    projects: &Projects,
    app: &AppName,
    name: &str,
    found: &[usize],
) -> Result<Vec<(usize, Option<PublishTime>)>, BusError> {
    if let [only] = found {
        return Ok(vec![(*only, None)]);
    }
    let asked = try_join_all(found.iter().map(|at| projects.list[*at].has_subscription(app, name))).await;
    let has = asked.map_err(Failure::into_bus_error)?;
    let is_anywhere = has.contains(&true);
    let beginning = |at: usize| projects.list[at].beginning(PublishTime::now());
    let begins = |(at, has): (&usize, bool)| (*at, (is_anywhere && !has).then(|| beginning(*at)));
    Ok(found.iter().zip(has).map(begins).collect())
}

fn part(reader: Reader, from_the_beginning: bool) -> BoxStream<'static, Tagged> {
    reader.items.map(move |item| (from_the_beginning, item)).boxed()
}

impl United {
    async fn next(&mut self) -> Option<Result<Item, BusError>> {
        loop {
            let (from_the_beginning, item) = tokio::select! {
                tagged = self.parts.next() => tagged?,
                Ok(()) = self.looked.changed() => {
                    self.look().await;
                    continue;
                }
            };
            if !matches!(item, Ok(Item::CaughtUp)) {
                return Some(item);
            }
            if from_the_beginning {
                self.behind = self.behind.saturating_sub(1);
                if self.behind == 0 {
                    return Some(item);
                }
            }
        }
    }

    /// Reads the app also where it has come to be meanwhile. What fails is tried again with the next look.
    async fn look(&mut self) {
        for at in self.projects.placement.missing(&self.app, &self.have) {
            let project = &self.projects.list[at];
            let opened = match &self.wanted {
                Wanted::Follow(_) => project.follow(&self.app, Start::At(self.since)).await,
                Wanted::Subscription(name) => {
                    let beginning = project.beginning(PublishTime::now());
                    project.subscribe(&self.app, name, Some(beginning)).await
                }
            };
            match opened {
                Ok(reader) => {
                    tracing::info!(app = %self.app, project = project.name(), "the app is in a second project");
                    self.parts.push(part(reader, false));
                    self.have.push(at);
                }
                Err(BusError::UnknownApp(_)) => {}
                Err(error) => tracing::debug!(app = %self.app, %error, "cannot read an app in a second project yet"),
            }
        }
    }
}
