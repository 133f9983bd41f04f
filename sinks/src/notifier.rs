//! Publishes problems of a drain to the log of its app: at most one notice per kind and interval,
//! and never through the same drain.

use std::{sync::Arc, time::Duration};

use bus::{
    Batch, Bus, Epoch, StreamId, StreamMetadata, Timestamp,
    notice::{self, DrainNotice, Notice},
};
use futures::future::OptionFuture;
use registry::Drain;
use system::{clock, collections::HashMap, task};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// The maximum number of queued problems; more are dropped.
const MAX_QUEUED: usize = 64;

/// The timeout of publishing a notice, after which it is dropped.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProblemKind {
    /// The receiver rejects lines, which are lost.
    Rejected,
    /// The receiver is unavailable; lines wait.
    Failing,
    /// The receiver's certificate is invalid or TLS fails; lines wait.
    Tls,
}

/// A problem with a drain.
struct Problem {
    kind: ProblemKind,
    lines: u64,
    /// The error, without secrets.
    error: String,
}

/// Publishes the problems of one drain.
pub(crate) struct Notifier {
    problems: mpsc::Sender<Problem>,
    _publishing: AbortOnDropHandle<()>,
}

impl Notifier {
    /// Starts a notifier. `url` is the redacted URL, `node` the name of this process. `None` if the
    /// drain's app name is invalid.
    pub(crate) fn new(bus: Arc<dyn Bus>, drain: &Drain, url: String, node: &str, interval: Duration) -> Option<Self> {
        let container = format!("drain-{}", drain.id);
        let stream = StreamId::new(node, &container, "notices", Epoch::new()).ok()?;
        let metadata = StreamMetadata {
            about: Some(drain.id.to_string()),
            ..StreamMetadata::tributary(drain.app.parse().ok()?, stream, node)
        };
        let (problems, queued) = mpsc::channel(MAX_QUEUED);
        let publisher = Publisher {
            bus,
            metadata: Arc::new(metadata),
            drain: drain.id,
            url,
            seq: 0,
        };
        Some(Self {
            problems,
            _publishing: AbortOnDropHandle::new(task::spawn(publisher.run(queued, interval))),
        })
    }

    /// Queues a problem; problems of one kind are merged. Never blocks.
    pub(crate) fn notify(&self, kind: ProblemKind, lines: u64, error: String) {
        // If the queue is full, the queued problems are reported anyway.
        let _ = self.problems.try_send(Problem { kind, lines, error });
    }
}

struct Publisher {
    bus: Arc<dyn Bus>,
    metadata: Arc<StreamMetadata>,
    drain: u32,
    url: String,
    seq: u64,
}

/// The merged problems of one kind since the last notice.
#[derive(Default)]
struct Pending {
    /// When the next notice may be published.
    not_before: Option<Instant>,
    times: u64,
    lines: u64,
    error: String,
}

impl Publisher {
    async fn run(mut self, mut problems: mpsc::Receiver<Problem>, interval: Duration) {
        let mut pending: HashMap<ProblemKind, Pending> = HashMap::default();
        loop {
            let due = pending
                .values()
                .filter(|pending| pending.times > 0)
                .filter_map(|pending| pending.not_before)
                .min();
            tokio::select! {
                problem = problems.recv() => {
                    let Some(problem) = problem else { return };
                    let pending = pending.entry(problem.kind).or_default();
                    pending.times += 1;
                    pending.lines += problem.lines;
                    pending.error = problem.error;
                }
                Some(()) = OptionFuture::from(due.map(sleep_until)) => {}
            }
            let now = clock::steady();
            for (kind, pending) in &mut pending {
                if pending.times > 0 && pending.not_before.is_none_or(|time| time <= now) {
                    let notice = self.notice(*kind, pending);
                    *pending = Pending {
                        not_before: Some(now + interval),
                        ..Pending::default()
                    };
                    self.publish(notice).await;
                }
            }
        }
    }

    fn notice(&self, kind: ProblemKind, problems: &Pending) -> Notice {
        let about = DrainNotice {
            drain: self.drain,
            url: &self.url,
            times: problems.times,
            cause: &problems.error,
        };
        match kind {
            ProblemKind::Rejected => notice::drain_rejected(about, problems.lines),
            ProblemKind::Failing => notice::drain_failing(about),
            ProblemKind::Tls => notice::drain_certificate(about),
        }
    }

    async fn publish(&mut self, notice: Notice) {
        let batch = Batch {
            metadata: Arc::clone(&self.metadata),
            seq: self.seq,
            content: notice.into_content(Timestamp::now()),
        };
        let published = timeout(PUBLISH_TIMEOUT, self.bus.publish(batch)).await;
        match published {
            Ok(Ok(())) => self.seq += 1,
            // The bus may have accepted it. The next notice has the same sequence number, so that
            // readers see one of the two.
            Ok(Err(error)) => tracing::warn!(drain = self.drain, %error, "drain notice not published"),
            Err(_) => tracing::warn!(drain = self.drain, "drain notice not published: timeout"),
        }
    }
}
