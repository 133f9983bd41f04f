//! The task of a reader: pulls a subscription, monitors it, and recreates it when it is lost.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{StreamExt, future::OptionFuture, stream};
use system::{clock::steady, random::random, task::spawn_tracked};
use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until},
};

use super::{
    attachment::{AttachmentChange, AttachmentMonitor},
    catch_up::{self, CatchUp, CatchUpStep},
    durable::{DURABLE_ACK_DEADLINE, Durable, EMULATED_ACK_DEADLINE},
    failure::Failure,
    first_marker::{self, FirstMarker},
    message::{self, Decoded},
    project::Project,
    pull::{self, Pull},
    service::{PullOptions, ReceivedMessage},
    temporary::{SubscriptionStart, Temporary},
};
use crate::{Ack, AckOutcome, AppName, BusError, PublishTime, Reader, ReaderItem, Start};

/// Maximum items that wait for the reader; then pulling pauses. Each is a batch of at most 1 MiB.
const MAX_WAITING_ITEMS: usize = 32;

/// Delay before a stream or a lost subscription is recreated. A deleted topic reappears with the
/// app's next line.
const MIN_RECREATE_DELAY: Duration = Duration::from_millis(200);
const MAX_RECREATE_DELAY: Duration = Duration::from_secs(10);

/// Reads an app without acknowledgement, through a temporary subscription.
pub(super) async fn follow(project: &Arc<Project>, app: &AppName, start: Start) -> Result<Reader, BusError> {
    let oldest = project.oldest();
    let (at, since, caught_up) = match start {
        Start::Now => (SubscriptionStart::Now, PublishTime(0), CaughtUpSignal::Immediately),
        Start::At(time) => {
            let since = time.max(oldest);
            (SubscriptionStart::Time(since), since, CaughtUpSignal::AfterHistory)
        }
        Start::Oldest => (SubscriptionStart::Time(oldest), oldest, CaughtUpSignal::AfterHistory),
    };
    let created = Temporary::create(&project.factory, app, at).await;
    let temporary = created.map_err(|failure| match failure {
        Failure::NotFound => BusError::UnknownApp(app.clone()),
        failure => failure.into_bus_error(),
    })?;
    let (first_marker, awaited) = first_marker::new();
    let beginning = Beginning {
        since,
        caught_up,
        first_marker: (start == Start::Now).then_some(first_marker),
    };
    let reader = spawn(project, app.clone(), Source::Temporary(temporary), beginning);
    if start == Start::Now {
        // A new subscription starts at a time that the service's clock decides.
        return awaited.wait(project, app, reader).await;
    }
    Ok(reader)
}

/// Reads a durable subscription, which is created if it does not exist and then starts at `since`,
/// or with new messages.
pub(super) async fn subscribe(
    project: &Arc<Project>,
    app: &AppName,
    name: &str,
    since: Option<PublishTime>,
) -> Result<Reader, BusError> {
    let durable = project.reservations.open(&project.factory, app, name, since).await?;
    let beginning = Beginning {
        since: PublishTime(0),
        caught_up: CaughtUpSignal::Never,
        first_marker: None,
    };
    // Only with the emulator does a new subscription start with a backlog.
    let ack_deadline = if project.factory.starts_with_backlog {
        EMULATED_ACK_DEADLINE
    } else {
        DURABLE_ACK_DEADLINE
    };
    let reader = spawn(project, app.clone(), Source::Durable(durable), beginning);
    Ok(reader.with_ack_deadline(ack_deadline))
}

/// The subscription of a reader task.
enum Source {
    /// The reader's own; messages are acknowledged on arrival.
    Temporary(Temporary),
    /// A durable one; the reader acknowledges.
    Durable(Durable),
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Self::Temporary(temporary) => temporary.name(),
            Self::Durable(durable) => durable.name(),
        }
    }

    fn pull_options(&self, project: &Project) -> PullOptions {
        match self {
            Self::Temporary(_) => pull::temporary_options(project.shared.settings.ack_deadline),
            Self::Durable(_) => pull::durable_options(),
        }
    }

    fn start_pull(&self, project: &Project) -> Pull {
        Pull::start(
            Arc::clone(&project.shared.service),
            self.name(),
            self.pull_options(project),
        )
    }
}

/// Where a reader task starts.
struct Beginning {
    /// The start of the reader. Messages published earlier are dropped: a seek may take a minute to
    /// become effective.
    since: PublishTime,
    caught_up: CaughtUpSignal,
    first_marker: Option<FirstMarker>,
}

/// When a reader task sends [`ReaderItem::CaughtUp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CaughtUpSignal {
    Immediately,
    AfterHistory,
    Never,
}

/// Spawns a reader task. It ends with its reader, or when the engine closes.
fn spawn(project: &Arc<Project>, app: AppName, source: Source, beginning: Beginning) -> Reader {
    let (out, mut items) = mpsc::channel(MAX_WAITING_ITEMS);
    let Beginning {
        since,
        caught_up,
        first_marker,
    } = beginning;
    let task = ReaderTask {
        pull: source.start_pull(project),
        project: Arc::clone(project),
        app,
        source,
        attachment: AttachmentMonitor::default(),
        out,
        since,
        first_marker,
        catch_up: (caught_up == CaughtUpSignal::AfterHistory).then(|| CatchUp::new(steady())),
        newest: since,
    };
    let stop = project.shared.closing.child_token();
    let guard = stop.clone().drop_guard();
    spawn_tracked(&project.shared.tasks, async move {
        let _ = stop.run_until_cancelled(task.run(caught_up)).await;
    });
    let items = stream::poll_fn(move |context| {
        let _stops_with_the_stream = &guard;
        items.poll_recv(context)
    });
    let clock = Arc::clone(&project.shared.clock);
    Reader::new(items.map(Ok).boxed(), since, false).with_clock(clock)
}

struct ReaderTask {
    project: Arc<Project>,
    app: AppName,
    source: Source,
    pull: Pull,
    attachment: AttachmentMonitor,
    out: mpsc::Sender<ReaderItem>,
    since: PublishTime,
    first_marker: Option<FirstMarker>,
    catch_up: Option<CatchUp>,
    /// Publish time of the newest message received.
    newest: PublishTime,
}

/// The reader was dropped.
struct ReaderDropped;

impl ReaderTask {
    async fn run(mut self, caught_up: CaughtUpSignal) -> Result<(), ReaderDropped> {
        match caught_up {
            CaughtUpSignal::Immediately => self.send(ReaderItem::CaughtUp).await?,
            CaughtUpSignal::AfterHistory => self.publish_marker().await,
            CaughtUpSignal::Never => {}
        }
        loop {
            let deadline = self.catch_up.as_ref().map(CatchUp::deadline);
            let interval = self.project.shared.settings.check_interval;
            let admin = &self.project.factory.admin;
            // The check of the attachment starts anew after each message, so it may be last.
            tokio::select! {
                biased;
                () = self.out.closed() => return Err(ReaderDropped),
                Some(()) = OptionFuture::from(deadline.map(sleep_until)) => self.check_catch_up_deadline().await?,
                pulled = self.pull.next() => match pulled {
                    Ok(message) => self.receive(message).await?,
                    Err(Failure::NotFound) => self.recreate().await?,
                    Err(failure) => {
                        tracing::debug!(app = %self.app, ?failure, "pull stream ended");
                        sleep(MIN_RECREATE_DELAY).await;
                        self.restart_pull();
                    }
                },
                change = self.attachment.next(admin, self.source.name(), interval) => match change {
                    AttachmentChange::Lost => self.recreate().await?,
                    AttachmentChange::Recovered => self.restart_pull(),
                },
            }
        }
    }

    async fn receive(&mut self, message: ReceivedMessage) -> Result<(), ReaderDropped> {
        let is_timed = message.published.is_some();
        if let Some(published) = message.published {
            self.project.shared.clock.record(published);
        }
        let published = message.published.unwrap_or_else(|| self.project.now());
        let handle = message.ack;
        let ack = match self.source {
            Source::Temporary(_) => {
                handle.ack();
                None
            }
            Source::Durable(_) => Some(Ack::new(move |outcome| match outcome {
                AckOutcome::Acked => handle.ack(),
                AckOutcome::Nacked => handle.nack(),
            })),
        };
        if published < self.since {
            ack.into_iter().for_each(Ack::ack);
            return Ok(());
        }
        self.newest = self.newest.max(published);
        match message::decode(&message.attributes, message.data, published, ack) {
            Decoded::Item(item) => {
                if let Some(catch_up) = &mut self.catch_up {
                    catch_up.record_batch(published, steady());
                }
                self.send(item).await
            }
            Decoded::Marker(text) => {
                if let Some(first) = self.first_marker.take_if(|first| is_timed && first.text == text) {
                    // The reader may have been dropped.
                    let _ = first.arrived.send(published);
                }
                let catch_up = self.catch_up.as_mut();
                match catch_up.map_or(CatchUpStep::Wait, |catch_up| catch_up.record_marker(&text, published)) {
                    CatchUpStep::PublishMarker => self.publish_marker().await,
                    CatchUpStep::Done => self.finish_catch_up().await?,
                    CatchUpStep::Wait | CatchUpStep::TimedOut => {}
                }
                Ok(())
            }
        }
    }

    /// Publishes the next marker. If that fails, the catch-up deadline passes.
    async fn publish_marker(&mut self) {
        let Some(catch_up) = &mut self.catch_up else { return };
        match catch_up::marker_batch(&self.app, catch_up.next_marker(steady())) {
            Ok(marker) => {
                if let Err(failure) = self.project.publish(&marker).await {
                    tracing::debug!(app = %self.app, ?failure, "marker publish failed");
                }
            }
            Err(error) => tracing::error!(app = %self.app, %error, "marker creation failed"),
        }
    }

    async fn check_catch_up_deadline(&mut self) -> Result<(), ReaderDropped> {
        let catch_up = self.catch_up.as_ref();
        let step = catch_up.map(|catch_up| catch_up.check_deadline(steady()));
        if step != Some(CatchUpStep::TimedOut) {
            return Ok(());
        }
        let (from, to) = (self.since, self.project.now());
        self.send(ReaderItem::HistoryCut { from, to }).await?;
        self.finish_catch_up().await
    }

    async fn finish_catch_up(&mut self) -> Result<(), ReaderDropped> {
        self.catch_up = None;
        self.send(ReaderItem::CaughtUp).await
    }

    fn restart_pull(&mut self) {
        self.pull = self.source.start_pull(&self.project);
    }

    /// Replaces a lost subscription, and with it its undelivered messages, by one that starts with
    /// the oldest stored message, and reports the interruption.
    async fn recreate(&mut self) -> Result<(), ReaderDropped> {
        tracing::warn!(app = %self.app, subscription = self.source.name(), "subscription lost, recreating it");
        self.pull.end().await;
        let mut delays = recreate_delays();
        while let Err(failure) = self.recreate_subscription().await {
            tracing::debug!(app = %self.app, ?failure, "subscription recreation failed");
            tokio::select! {
                biased;
                () = sleep(delays.next().unwrap_or(MAX_RECREATE_DELAY)) => {}
                () = self.out.closed() => return Err(ReaderDropped),
            }
        }
        self.restart_pull();
        let (from, to) = (self.newest, self.project.now());
        self.send(ReaderItem::Interrupted { from, to }).await?;
        if self.catch_up.is_some() {
            self.catch_up = Some(CatchUp::new(steady()));
            self.publish_marker().await;
        }
        Ok(())
    }

    async fn recreate_subscription(&mut self) -> Result<(), Failure> {
        let oldest = self.project.oldest();
        let factory = &self.project.factory;
        match &mut self.source {
            Source::Temporary(temporary) => {
                *temporary = Temporary::create(factory, &self.app, SubscriptionStart::Time(oldest)).await?;
                Ok(())
            }
            Source::Durable(durable) => durable.recreate(factory, &self.app, oldest).await,
        }
    }

    async fn send(&mut self, item: ReaderItem) -> Result<(), ReaderDropped> {
        self.out.send(item).await.map_err(|_| ReaderDropped)
    }
}

fn recreate_delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_RECREATE_DELAY)
        .with_max_delay(MAX_RECREATE_DELAY)
        .with_jitter()
        .with_jitter_seed(random())
        .without_max_times()
        .build()
}
