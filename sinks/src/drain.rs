//! Runs one drain: its subscription, one connection after another, and the pauses between attempts.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bus::{BusError, PublishTime};
use registry::{Drain, DrainTarget, Protocol, RegistryError};
use system::{clock, random::random_range};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    context::DrainContext,
    idle_timeout::IdleTimeout,
    notifier::{Notifier, ProblemKind},
    reader::{DrainReader, ReaderConfig},
    render::MessageFormat,
    stats::DrainStats,
    transport::{
        error::DeliveryError,
        https::{ConnectionLimits, FrameSender, Rejection},
        outcome::Outcome,
        tcp, udp,
    },
};

/// A connection of this age resets the backoff.
const GOOD_CONNECTION_AGE: Duration = Duration::from_secs(30);

/// The buffer limit of a drain over HTTP or UDP, whose lines are confirmed at once.
const SMALL_BUFFER_BYTES: usize = 4 << 20;

/// After so many connections in a row that the receiver closed and that confirmed nothing, long
/// lines are sent in smaller messages.
const STALLED_CONNECTIONS: u32 = 3;

/// The sizes of messages that are tried for a receiver that does not take longer ones. Receivers of
/// syslog should accept 2048 bytes (RFC 5424, section 6.1).
const SMALLER_MESSAGES: [usize; 3] = [8192, 2048, 480];

/// Only lines longer than this suggest that a receiver closes connections because of them: many
/// receivers take messages of up to 64 KiB. A receiver that is down closes connections as well.
const LONG_LINE_BYTES: usize = 32 << 10;

/// How long a connection attempt may continue after shutdown is requested: longer than a connection
/// takes to close.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// Sends a drain's lines until shutdown is requested; confirmed lines are acknowledged by then.
pub(crate) async fn run(context: Arc<DrainContext>, drain: Drain, stats: Arc<DrainStats>, stop: CancellationToken) {
    let target = match drain.target() {
        Ok(target) => target,
        Err(reason) => {
            tracing::error!(drain = drain.id, app = drain.app, reason, "drain URL invalid");
            stats.set_failing(reason);
            return stop.cancelled().await;
        }
    };
    let config = &context.config;
    let notifier = Notifier::new(
        Arc::clone(&context.bus),
        &drain,
        target.redacted(),
        &config.holder,
        config.notice_interval,
    );
    let Some(notifier) = notifier else {
        stats.set_failing("the app name is invalid; remove the drain");
        return stop.cancelled().await;
    };
    let mut worker = Worker {
        backoff: Backoff::new(config.max_backoff),
        frames: FrameSender::new(&target, &drain.token),
        context: &context,
        drain: &drain,
        target,
        stats,
        notifier,
        idle_timeout: IdleTimeout::default(),
        stalled: 0,
        max_message_bytes: usize::MAX,
    };
    let before = worker.last_delivered().await;
    let mut is_new = matches!(before, Ok(None));
    let mut lost = before
        .ok()
        .flatten()
        .and_then(|delivered| worker.span_beyond_retention(delivered));
    while !stop.is_cancelled() {
        match worker.subscribe(is_new, lost).await {
            Ok(mut reader) => {
                (lost, is_new) = (None, false);
                if worker.send(&mut reader, &stop).await == Sent::Stopped {
                    return;
                }
                // The bus redelivers the lines of a pending frame.
                worker.frames = FrameSender::new(&worker.target, &drain.token);
            }
            Err(error) => {
                tracing::warn!(drain = drain.id, app = drain.app, %error, "drain subscription failed");
                worker.stats.set_failing("the bus is unavailable");
            }
        }
        worker.backoff.pause(None, &stop).await;
    }
}

/// Why a worker stopped sending.
#[derive(PartialEq, Eq)]
enum Sent {
    /// Shutdown was requested.
    Stopped,
    /// A new subscription is needed.
    Resubscribe,
}

struct Worker<'a> {
    context: &'a DrainContext,
    drain: &'a Drain,
    target: DrainTarget,
    stats: Arc<DrainStats>,
    notifier: Notifier,
    frames: FrameSender,
    backoff: Backoff,
    idle_timeout: IdleTimeout,
    /// Connections in a row that the receiver closed before anything was confirmed.
    stalled: u32,
    /// The limit of messages that the receiver has shown.
    max_message_bytes: usize,
}

impl Worker<'_> {
    /// The time of the last complete delivery; `None` for a drain that no process has run yet.
    async fn last_delivered(&self) -> Result<Option<SystemTime>, RegistryError> {
        let delivered = self.context.registry.last_delivered(self.drain.id).await;
        delivered.inspect_err(|error| {
            tracing::warn!(drain = self.drain.id, %error, "last delivery time of a drain not read");
        })
    }

    /// The span between the last complete delivery and the retention of the bus, if there is one.
    fn span_beyond_retention(&self, delivered: SystemTime) -> Option<(PublishTime, PublishTime)> {
        let since = delivered.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let (from, to) = (
            PublishTime(0).later_by(since),
            PublishTime::now().earlier_by(self.context.config.retention),
        );
        (from < to).then_some((from, to))
    }

    /// Opens the drain's subscription, and creates it if needed.
    async fn subscribe(&self, is_new: bool, lost: Option<(PublishTime, PublishTime)>) -> Result<DrainReader, BusError> {
        let (bus, name) = (&self.context.bus, self.drain.subscription());
        let app = self.drain.app.parse();
        let app = app.map_err(|_| BusError::Refused("invalid app name".to_owned()))?;
        let reader = match bus.subscribe(&app, &name).await {
            // An app with a drain exists, even if it has not printed anything yet.
            Err(BusError::UnknownApp(_)) => {
                bus.create(&app).await?;
                bus.subscribe(&app, &name).await?
            }
            opened => opened?,
        };
        let config = &self.context.config;
        let max_buffer_bytes = match self.target.protocol {
            Protocol::Tcp | Protocol::Tls => config.max_buffer_bytes,
            _ => config.max_buffer_bytes.min(SMALL_BUFFER_BYTES),
        };
        let mut format = MessageFormat::of(&self.target);
        format.limit_message_bytes(self.max_message_bytes);
        let reader_config = ReaderConfig {
            format,
            retention: config.retention,
            max_buffer_bytes,
            budget: Arc::clone(&self.context.budget),
            is_new,
            lost,
        };
        Ok(DrainReader::new(
            reader,
            self.drain,
            reader_config,
            Arc::clone(&self.stats),
        ))
    }

    /// Sends lines until shutdown is requested or the subscription fails.
    async fn send(&mut self, reader: &mut DrainReader, stop: &CancellationToken) -> Sent {
        loop {
            // Connects only when there are lines to send.
            while !reader.queue.has_more() && !self.frames.has_pending() {
                tokio::select! {
                    filled = reader.fill() => match filled {
                        Some(Ok(())) => {}
                        Some(Err(error)) => return self.on_bus_failure(Some(&error)),
                        None => return self.on_bus_failure(None),
                    },
                    () = stop.cancelled() => return Sent::Stopped,
                }
            }
            let started = clock::steady();
            let delivered_before = self.stats.report().delivered;
            let outcome = tokio::select! {
                outcome = self.connect_and_run(reader, stop) => outcome,
                () = async { stop.cancelled().await; sleep(SHUTDOWN_TIMEOUT).await } => Outcome::Stopped,
            };
            let was_good =
                clock::since(started) >= GOOD_CONNECTION_AGE || self.stats.report().delivered > delivered_before;
            if was_good {
                self.backoff.reset();
            }
            if !self.target.protocol.is_http() {
                // Unconfirmed lines are resent even if there are no new ones.
                reader.queue.rewind();
            }
            match outcome {
                Outcome::Stopped => return Sent::Stopped,
                Outcome::Expired => {}
                Outcome::Bus(error) => return self.on_bus_failure(error.as_ref()),
                Outcome::Failed(error) => {
                    if let DeliveryError::ClosedAfter(idle) = &error {
                        self.idle_timeout.record(*idle);
                    }
                    self.record_stall(reader, &error, delivered_before);
                    self.on_failure(&error, was_good);
                    if self.context.budget.is_scarce() {
                        // Frees the buffer; the bus redelivers the lines.
                        return Sent::Resubscribe;
                    }
                    let requested = error
                        .retry_after()
                        .map(|pause| pause.min(self.context.config.max_retry_after));
                    self.backoff.pause(requested, stop).await;
                    if stop.is_cancelled() {
                        return Sent::Stopped;
                    }
                }
            }
        }
    }

    /// Sends long lines in smaller messages if the receiver closes every connection on which they
    /// are sent.
    fn record_stall(&mut self, reader: &mut DrainReader, error: &DeliveryError, delivered_before: u64) {
        if self.stats.report().delivered > delivered_before {
            self.stalled = 0;
        } else if error.is_close() {
            self.stalled += 1;
        }
        if self.stalled < STALLED_CONNECTIONS {
            return;
        }
        let longest = reader.queue.longest_line();
        if longest <= LONG_LINE_BYTES {
            return;
        }
        let longest = longest.min(self.max_message_bytes);
        let Some(smaller) = SMALLER_MESSAGES.into_iter().find(|size| *size < longest) else {
            return;
        };
        tracing::warn!(
            drain = self.drain.id,
            app = self.drain.app,
            url = self.target.redacted(),
            connections = self.stalled,
            max_message_bytes = smaller,
            "drain receiver closes at the same lines, sending smaller messages"
        );
        self.stalled = 0;
        self.max_message_bytes = smaller;
        reader.queue.limit_message_bytes(smaller);
    }

    async fn connect_and_run(&mut self, reader: &mut DrainReader, stop: &CancellationToken) -> Outcome {
        let (connector, max_age) = (
            &self.context.connector,
            jittered(self.context.config.max_connection_age),
        );
        if self.target.protocol == Protocol::Udp {
            let opened = async { udp::open(&connector.resolver.resolve(&self.target).await?).await };
            let socket = match opened.await {
                Ok(socket) => socket,
                Err(error) => return Outcome::Failed(error),
            };
            self.set_connected();
            return udp::run(reader, &socket, &self.stats, clock::steady() + max_age, stop).await;
        }
        let opened = tokio::select! {
            opened = connector.open(&self.target) => opened,
            () = stop.cancelled() => return Outcome::Stopped,
        };
        let connection = match opened {
            Ok(connection) => connection,
            Err(error) => return Outcome::Failed(error),
        };
        self.set_connected();
        if self.target.protocol.is_http() {
            let notifier = &self.notifier;
            let on_rejection = |rejection: Rejection| {
                // A rejected notice does not cause another one.
                if rejection.lines > 0 {
                    let error = format!("the receiver responded with HTTP {}", rejection.status);
                    notifier.notify(ProblemKind::Rejected, rejection.lines, error);
                }
            };
            let limits = ConnectionLimits {
                max_age,
                response_timeout: self.context.config.response_timeout,
            };
            self.frames
                .run(reader, connection, &self.stats, limits, stop, on_rejection)
                .await
        } else {
            let limits = tcp::ConnectionLimits {
                max_age,
                max_idle: self.idle_timeout.limit(),
            };
            tcp::run(reader, connection, &self.stats, limits, stop).await
        }
    }

    fn set_connected(&self) {
        tracing::debug!(
            drain = self.drain.id,
            app = self.drain.app,
            url = self.target.redacted(),
            "drain connected"
        );
        self.stats.set_connected();
    }

    fn on_failure(&self, error: &DeliveryError, was_good: bool) {
        let text = error.to_string();
        tracing::info!(
            drain = self.drain.id,
            app = self.drain.app,
            url = self.target.redacted(),
            error = text,
            "drain failed"
        );
        self.stats.set_failing(&text);
        // Receivers close idle connections: only a failure to reconnect is reported to the app.
        if was_good && error.is_close() {
            return;
        }
        let kind = if error.is_tls() {
            ProblemKind::Tls
        } else {
            ProblemKind::Failing
        };
        self.notifier.notify(kind, 0, text);
    }

    fn on_bus_failure(&self, error: Option<&BusError>) -> Sent {
        match error {
            Some(error) => tracing::warn!(drain = self.drain.id, %error, "drain subscription failed"),
            None => tracing::info!(drain = self.drain.id, "drain subscription ended"),
        }
        Sent::Resubscribe
    }
}

/// Varies a duration by 10%, so that connections that began together do not end together.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(random_range(0.9..1.1))
}
