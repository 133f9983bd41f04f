//! Syslog over TCP, with or without TLS.

use std::{io, time::Duration};

use bytes::BytesMut;
use futures::future::OptionFuture;
use system::clock;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    connect::Connection,
    error::DeliveryError,
    outcome::Outcome,
    unconfirmed::{CONFIRMING_TIME, Unconfirmed},
};
use crate::{reader::DrainReader, stats::DrainStats};

/// The bytes that are rendered and written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The interval at which acknowledgments are read from the kernel while nothing is written.
const ACK_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long the receiver may take to close its side after shutdown is requested.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take otherwise. A receiver that never closes confirms by time.
const CLOSE_TIMEOUT: Duration = CONFIRMING_TIME.saturating_add(Duration::from_secs(5));

/// When a connection is half-closed, which confirms what was sent on it.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// The lifetime.
    pub(crate) max_age: Duration,
    /// The time without a write, if the other side is known to close idle connections.
    pub(crate) max_idle: Option<Duration>,
}

/// Sends lines until the connection fails, reaches a limit, or shutdown is requested.
///
/// When the queue is full of unconfirmed lines, the connection is half-closed, and the drain goes on
/// with another one.
pub(crate) async fn run(
    reader: &mut DrainReader,
    connection: Connection,
    stats: &DrainStats,
    limits: ConnectionLimits,
    stop: &CancellationToken,
) -> Outcome {
    let (mut read_half, mut write_half) = tokio::io::split(connection.stream);
    let mut progress = Progress {
        unconfirmed: Unconfirmed::default(),
        stats,
    };
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES * 2);
    // Whether part of the chunk is still to be written.
    let mut is_writing = false;
    let mut received = [0; 4096];
    let mut polls = interval(ACK_POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let expires = clock::steady() + limits.max_age;
    let mut last_write = clock::steady();
    let acknowledged = || {
        let written = connection.written.bytes();
        // Without the kernel's answer nothing counts as acknowledged.
        connection
            .socket
            .unacknowledged()
            .map_or(0, |unacknowledged| written.saturating_sub(unacknowledged))
    };
    loop {
        if !is_writing && reader.queue.has_more() {
            reader.queue.render(&mut chunk, CHUNK_BYTES);
            is_writing = true;
        }
        let is_full = !is_writing && !progress.unconfirmed.is_empty() && !reader.queue.has_room();
        let idles = limits
            .max_idle
            .filter(|_| !is_writing && !progress.unconfirmed.is_empty());
        tokio::select! {
            () = stop.cancelled() => {
                if is_writing {
                    // Confirmed only if both sides close in order.
                    progress.unconfirmed.wrote(u64::MAX, reader.queue.rendered());
                }
                let rest = is_writing.then_some(&mut chunk);
                progress.close(reader, (read_half, write_half, rest), acknowledged, SHUTDOWN_TIMEOUT).await;
                return Outcome::Stopped;
            }
            () = std::future::ready(()), if is_full => {
                system::probe!("confirmation: a connection is half-closed because the queue is full");
                return progress.finish(reader, read_half, write_half, acknowledged).await;
            }
            written = write_all(&mut write_half, &mut chunk), if is_writing => {
                if let Err(error) = written {
                    return Outcome::Failed(DeliveryError::Io(error));
                }
                is_writing = false;
                last_write = clock::steady();
                progress.unconfirmed.wrote(connection.written.bytes(), reader.queue.rendered());
                progress.acknowledge(reader, acknowledged());
            }
            // Syslog has no responses: received bytes are discarded, only the end matters.
            read = read_half.read(&mut received) => match read {
                Ok(0) => return Outcome::Failed(DeliveryError::ClosedAfter(clock::since(last_write))),
                Ok(_) => {}
                Err(error) => return Outcome::Failed(DeliveryError::Io(error)),
            },
            filled = reader.fill(), if reader.queue.has_room() => match filled {
                Some(Ok(())) => {}
                Some(Err(error)) => return Outcome::Bus(Some(error)),
                None => return Outcome::Bus(None),
            },
            _ = polls.tick() => progress.acknowledge(reader, acknowledged()),
            () = tokio::time::sleep_until(expires), if !is_writing => {
                return progress.finish(reader, read_half, write_half, acknowledged).await;
            }
            Some(()) = OptionFuture::from(idles.map(|idle| tokio::time::sleep_until(last_write + idle))) => {
                return progress.finish(reader, read_half, write_half, acknowledged).await;
            }
        }
    }
}

/// What was sent on the connection, and what of it is confirmed.
struct Progress<'a> {
    unconfirmed: Unconfirmed,
    stats: &'a DrainStats,
}

impl Progress<'_> {
    /// Records that the receiver's kernel has acknowledged this many bytes.
    fn acknowledge(&mut self, reader: &mut DrainReader, bytes: u64) {
        let confirmed = self.unconfirmed.acknowledge(bytes, clock::steady());
        self.stats.add_delivered(reader.confirm(confirmed));
    }

    /// Half-closes the connection, and returns once what was sent on it is confirmed or not.
    async fn finish(
        &mut self,
        reader: &mut DrainReader,
        read_half: impl AsyncRead + Unpin,
        write_half: impl AsyncWrite + Unpin,
        acknowledged: impl Fn() -> u64,
    ) -> Outcome {
        let halves = (read_half, write_half, None);
        if self.close(reader, halves, acknowledged, CLOSE_TIMEOUT).await {
            Outcome::Expired
        } else {
            Outcome::Failed(DeliveryError::Unconfirmed)
        }
    }

    /// Writes the rest and half-closes the connection. Waits until the receiver has closed its side
    /// as well, which it does after it has read everything, or until the time confirms everything.
    /// Returns whether everything is confirmed.
    async fn close<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut DrainReader,
        (mut read_half, mut write_half, rest): (R, W, Option<&mut BytesMut>),
        acknowledged: impl Fn() -> u64,
        timeout: Duration,
    ) -> bool {
        let closing = async {
            if let Some(rest) = rest {
                write_all(&mut write_half, rest).await?;
            }
            // With TLS: close_notify, then FIN.
            write_half.shutdown().await?;
            let mut received = [0; 4096];
            loop {
                match read_half.read(&mut received).await {
                    Ok(0) => return io::Result::Ok(()),
                    Ok(_) => {}
                    // With TLS: FIN without close_notify.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::pin!(closing);
        let deadline = clock::steady() + timeout;
        let mut polls = interval(ACK_POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                closed = &mut closing => {
                    if closed.is_ok() {
                        self.confirm_all(reader);
                    }
                    return closed.is_ok();
                }
                _ = polls.tick() => self.acknowledge(reader, acknowledged()),
                () = tokio::time::sleep_until(deadline) => return false,
            }
            if self.unconfirmed.is_empty() {
                return true;
            }
        }
    }

    fn confirm_all(&mut self, reader: &mut DrainReader) {
        let confirmed = self.unconfirmed.confirm_all();
        self.stats.add_delivered(reader.confirm(confirmed));
    }
}

/// Writes the whole chunk to the socket.
///
/// *Cancel safety*: written bytes are removed from the chunk; call it again to continue.
async fn write_all(write_half: &mut (impl AsyncWrite + Unpin), chunk: &mut BytesMut) -> io::Result<()> {
    write_half.write_all_buf(chunk).await?;
    write_half.flush().await
}
