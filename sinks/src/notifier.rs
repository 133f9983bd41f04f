//! What an app is told about a drain of its own: in its own log, once a minute at most, and never through that drain.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bus::{Batch, Bus, Content, Epoch, StreamId, StreamMetadata, Timestamp, notice::one_line};
use registry::Drain;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// What waits to be told. More than that in a minute adds nothing.
const MAX_WAITING: usize = 64;

/// How long the bus may take to accept a notice. One that it does not is dropped: it would tell of trouble that everybody sees.
const PUBLISH_WAIT: Duration = Duration::from_secs(30);

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The receiver refuses lines: they are gone.
    Refused,
    /// It cannot be sent to: lines wait.
    Failing,
    /// It does not prove who it is: lines wait.
    Identity,
}

/// Something to be told.
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    pub(crate) lines: u64,
    /// Without a secret.
    pub(crate) why: String,
}

/// Tells an app about one of its drains.
pub(crate) struct Herald {
    troubles: mpsc::Sender<Trouble>,
    _telling: AbortOnDropHandle<()>,
}

impl Herald {
    pub(crate) fn new(bus: Arc<dyn Bus>, drain: &Drain, shown: String, maker: &str, grain: Duration) -> Option<Self> {
        let container = format!("drain-{}", drain.id);
        let stream = StreamId::new(maker, &container, "notices", Epoch::new()).ok()?;
        let metadata = StreamMetadata {
            about: Some(drain.id.to_string()),
            ..StreamMetadata::tributary(drain.app.parse().ok()?, stream, maker)
        };
        let (troubles, waiting) = mpsc::channel(MAX_WAITING);
        let telling = Telling {
            bus,
            metadata: Arc::new(metadata),
            drain: drain.id,
            shown,
            seq: 0,
        };
        Some(Self {
            troubles,
            _telling: AbortOnDropHandle::new(tokio::spawn(telling.run(waiting, grain))),
        })
    }

    /// Tells it soon, with what else there is of the same kind. Never waits.
    pub(crate) fn tell(&self, kind: Kind, lines: u64, why: String) {
        // Full: there is more than enough to be told.
        let _ = self.troubles.try_send(Trouble { kind, lines, why });
    }
}

struct Telling {
    bus: Arc<dyn Bus>,
    metadata: Arc<StreamMetadata>,
    drain: u32,
    shown: String,
    seq: u64,
}

/// What is to be told of a kind, and when it may be.
#[derive(Default)]
struct Waiting {
    from: Option<Instant>,
    times: u64,
    lines: u64,
    why: String,
}

impl Telling {
    async fn run(mut self, mut troubles: mpsc::Receiver<Trouble>, grain: Duration) {
        let mut waiting: HashMap<Kind, Waiting> = HashMap::new();
        loop {
            let due = waiting
                .values()
                .filter(|waiting| waiting.times > 0)
                .filter_map(|waiting| waiting.from)
                .min();
            let reached = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                trouble = troubles.recv() => {
                    let Some(trouble) = trouble else { return };
                    let waiting = waiting.entry(trouble.kind).or_default();
                    waiting.times += 1;
                    waiting.lines += trouble.lines;
                    waiting.why = trouble.why;
                }
                () = reached => {}
            }
            let now = Instant::now();
            for (kind, waiting) in &mut waiting {
                if waiting.times > 0 && waiting.from.is_none_or(|from| from <= now) {
                    let text = self.text(*kind, waiting);
                    *waiting = Waiting {
                        from: Some(now + grain),
                        ..Waiting::default()
                    };
                    self.publish(&text).await;
                }
            }
        }
    }

    fn text(&self, kind: Kind, told: &Waiting) -> String {
        let Waiting { times, lines, why, .. } = told;
        let (drain, uri) = (self.drain, &self.shown);
        let times = if *times > 1 {
            format!(" ({times} times)")
        } else {
            String::new()
        };
        match kind {
            Kind::Refused => {
                format!("Error L13: {lines} messages lost: drain {drain} ({uri}) refuses them{times}: {why}")
            }
            Kind::Failing => format!("Error L13: drain {drain} ({uri}) cannot be sent to{times}, messages wait: {why}"),
            // Heroku's form.
            Kind::Identity => format!("Error L14 (certificate validation): error={why:?} uri=\"{uri}\"{times}"),
        }
    }

    async fn publish(&mut self, text: &str) {
        let text = one_line(text);
        let batch = Batch {
            metadata: Arc::clone(&self.metadata),
            seq: self.seq,
            content: Content::Lines {
                data: format!("{} {text}\n", Timestamp::now()).into(),
                lines: 1,
                part: None,
            },
        };
        let published = timeout(PUBLISH_WAIT, self.bus.publish(batch)).await;
        match published {
            Ok(Ok(())) => self.seq += 1,
            // Whether the bus has it nobody knows: under the same number comes the next one, so at most one of them is seen.
            Ok(Err(error)) => tracing::warn!(drain = self.drain, %error, "a notice was not taken by the bus"),
            Err(_) => tracing::warn!(drain = self.drain, "a notice was not taken by the bus in time"),
        }
    }
}
