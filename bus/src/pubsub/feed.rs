//! What feeds a reader: pulls a subscription, looks after it, and makes it again where it is lost.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use google_cloud_pubsub::{model::Message, subscriber::handler::Handler};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    admin::published,
    attachment::{Found, Watch},
    catch_up::{self, CatchUp, Step},
    durable::Durable,
    failure::Failure,
    message::{self, Read},
    project::Project,
    pull::Pull,
    temporary::{From, Temporary},
};
use crate::{Ack, AppName, Item, Outcome, PublishTime, Reader};

/// Items that wait for the reader; then no more is pulled. Each is a batch of at most 1 MiB.
const WAITING_ITEMS: usize = 32;

/// How long to wait before a stream or a lost subscription is made again, at first and at most: its topic may be gone, and come again with its app's next line.
const REMAKE_FIRST: Duration = Duration::from_millis(200);
const REMAKE_MOST: Duration = Duration::from_secs(10);

/// The subscription that is read.
pub(super) enum Source {
    /// The reader's own: acknowledged as it comes.
    Temporary(Temporary),
    /// One that lasts: the reader settles what it gets.
    Durable(Durable),
}

/// Where a reader begins, and what it is told of it.
pub(super) struct Beginning {
    /// What was published before is not asked for: a seek may need a minute to take full effect.
    pub(super) floor: PublishTime,
    /// The reader's own beginning.
    pub(super) since: PublishTime,
    /// Whether the end of what was there is to be told: at once, when it has come, or never.
    pub(super) told: Told,
}

/// When a reader is told that it has caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    AtOnce,
    WhenCome,
    Never,
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Self::Temporary(temporary) => temporary.name(),
            Self::Durable(durable) => durable.name(),
        }
    }

    /// Whether its messages are settled by who gets them, in their own time.
    fn is_durable(&self) -> bool {
        matches!(self, Self::Durable(_))
    }
}

/// Begins to read. The reader's end is the feed's.
pub(super) fn start(project: &Arc<Project>, app: AppName, source: Source, beginning: Beginning) -> Reader {
    let (out, mut items) = mpsc::channel(WAITING_ITEMS);
    let feed = Feed {
        pull: Pull::start(Arc::clone(&project.clients), source.name(), source.is_durable()),
        project: Arc::clone(project),
        app,
        source,
        watch: Watch::default(),
        out,
        floor: beginning.floor,
        catch_up: (beginning.told == Told::WhenCome).then(|| CatchUp::new(Instant::now())),
        newest: beginning.since,
    };
    let stop = project.closing.child_token();
    let guard = stop.clone().drop_guard();
    project.tasks.spawn(async move {
        // Ends where the reader is gone, or the bus closes.
        let _ = stop.run_until_cancelled(feed.run(beginning.told)).await;
    });
    let items = stream::poll_fn(move |context| {
        let _reads = &guard;
        items.poll_recv(context)
    });
    Reader::new(items.map(Ok).boxed(), beginning.since, false)
}

struct Feed {
    project: Arc<Project>,
    app: AppName,
    source: Source,
    pull: Pull,
    watch: Watch,
    out: mpsc::Sender<Item>,
    floor: PublishTime,
    catch_up: Option<CatchUp>,
    /// The newest that came.
    newest: PublishTime,
}

/// The reader is gone.
struct Gone;

impl Feed {
    async fn run(mut self, told: Told) -> Result<(), Gone> {
        match told {
            Told::AtOnce => self.hand_over(Item::CaughtUp).await?,
            Told::WhenCome => self.mark().await,
            Told::Never => {}
        }
        loop {
            let overdue = self.catch_up.as_ref().map(CatchUp::deadline);
            let interval = self.project.settings.check_interval;
            tokio::select! {
                pulled = self.pull.next() => match pulled {
                    Ok((message, handler)) => self.take(message, handler).await?,
                    Err(Failure::NotFound) => self.remake().await?,
                    Err(failure) => {
                        tracing::debug!(app = %self.app, ?failure, "a stream ended");
                        sleep(REMAKE_FIRST).await;
                        self.pull_anew();
                    }
                },
                found = self.watch.next(&self.project.maker.admin, self.source.name(), interval) => match found {
                    Found::Lost => self.remake().await?,
                    Found::Back => self.pull_anew(),
                },
                () = wait_until(overdue) => self.overdue().await?,
                () = self.out.closed() => return Err(Gone),
            }
        }
    }

    async fn take(&mut self, message: Message, handler: Handler) -> Result<(), Gone> {
        let published = published(message.publish_time.as_ref());
        let ack = match self.source {
            Source::Temporary(_) => {
                handler.ack();
                None
            }
            Source::Durable(_) => Some(Ack::new(move |outcome| match outcome {
                Outcome::Accepted => handler.ack(),
                Outcome::GivenBack => handler.nack(),
            })),
        };
        if published < self.floor {
            ack.into_iter().for_each(Ack::accept);
            return Ok(());
        }
        self.newest = self.newest.max(published);
        match message::read(message, published, ack) {
            Read::Item(item) => {
                if let Some(catch_up) = &mut self.catch_up {
                    catch_up.saw_batch(published, Instant::now());
                }
                self.hand_over(item).await
            }
            Read::Marker(text) => {
                let catch_up = self.catch_up.as_mut();
                match catch_up.map_or(Step::Wait, |catch_up| catch_up.saw_marker(&text, published)) {
                    Step::Mark => self.mark().await,
                    Step::Done => self.caught_up().await?,
                    Step::Wait | Step::Cut => {}
                }
                Ok(())
            }
        }
    }

    /// Publishes the next marker. Where that fails, the deadline says what it means.
    async fn mark(&mut self) {
        let Some(catch_up) = &mut self.catch_up else { return };
        match catch_up::batch(&self.app, catch_up.next_marker(Instant::now())) {
            Ok(marker) => {
                if let Err(failure) = self.project.publish(&marker).await {
                    tracing::debug!(app = %self.app, ?failure, "marker not published");
                }
            }
            Err(error) => tracing::error!(%error, "no marker"),
        }
    }

    async fn overdue(&mut self) -> Result<(), Gone> {
        let step = self.catch_up.as_ref().map(|catch_up| catch_up.overdue(Instant::now()));
        if step != Some(Step::Cut) {
            return Ok(());
        }
        let (from, to) = (self.floor, PublishTime::now());
        self.hand_over(Item::Break { from, to }).await?;
        self.caught_up().await
    }

    async fn caught_up(&mut self) -> Result<(), Gone> {
        self.catch_up = None;
        self.hand_over(Item::CaughtUp).await
    }

    fn pull_anew(&mut self) {
        self.pull = Pull::start(
            Arc::clone(&self.project.clients),
            self.source.name(),
            self.source.is_durable(),
        );
    }

    /// The subscription is lost, with what it had not delivered: makes another, from the topic's beginning on, and tells the break.
    async fn remake(&mut self) -> Result<(), Gone> {
        tracing::warn!(app = %self.app, subscription = self.source.name(), "lost a subscription, makes another");
        self.pull.end().await;
        let mut wait = REMAKE_FIRST;
        while let Err(failure) = self.make_again().await {
            tracing::debug!(app = %self.app, ?failure, "no other subscription yet");
            tokio::select! {
                () = sleep(wait) => wait = (wait * 2).min(REMAKE_MOST),
                () = self.out.closed() => return Err(Gone),
            }
        }
        self.pull_anew();
        let (from, to) = (self.newest, PublishTime::now());
        self.hand_over(Item::Break { from, to }).await?;
        if self.catch_up.is_some() {
            self.catch_up = Some(CatchUp::new(Instant::now()));
            self.mark().await;
        }
        Ok(())
    }

    async fn make_again(&mut self) -> Result<(), Failure> {
        let beginning = self.project.beginning(PublishTime::now());
        match &mut self.source {
            Source::Temporary(temporary) => {
                *temporary = self.project.maker.make(&self.app, From::Time(beginning)).await?;
                Ok(())
            }
            Source::Durable(durable) => durable.make_again(&self.project.maker, &self.app, beginning).await,
        }
    }

    async fn hand_over(&mut self, item: Item) -> Result<(), Gone> {
        self.out.send(item).await.map_err(|_| Gone)
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
