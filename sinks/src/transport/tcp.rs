//! Syslog over TCP, with or without TLS.

use std::{io, time::Duration};

use bytes::BytesMut;
use system::clock;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{connect::Connection, error::DeliveryError, outcome::Outcome, unconfirmed::Unconfirmed};
use crate::{reader::DrainReader, stats::DrainStats};

/// The bytes that are rendered and written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The interval at which acknowledgments are read from the kernel while nothing is written.
const ACK_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long the receiver may take to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends lines until the connection fails, reaches `max_age`, or shutdown is requested.
pub(crate) async fn run(
    reader: &mut DrainReader,
    connection: Connection,
    stats: &DrainStats,
    max_age: Duration,
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
    let expires = clock::steady() + max_age;
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
        tokio::select! {
            written = write_all(&mut write_half, &mut chunk), if is_writing => {
                if let Err(error) = written {
                    return Outcome::Failed(DeliveryError::Io(error));
                }
                is_writing = false;
                progress.unconfirmed.wrote(connection.written.bytes(), reader.queue.rendered());
                progress.acknowledge(reader, acknowledged());
            }
            // Syslog has no responses: received bytes are discarded, only the end matters.
            read = read_half.read(&mut received) => match read {
                Ok(0) => return Outcome::Failed(DeliveryError::Closed),
                Ok(_) => {}
                Err(error) => return Outcome::Failed(DeliveryError::Io(error)),
            },
            filled = reader.fill(), if reader.queue.has_room() => match filled {
                Some(Ok(())) => {}
                Some(Err(error)) => return Outcome::Bus(Some(error)),
                None => return Outcome::Bus(None),
            },
            _ = polls.tick() => progress.acknowledge(reader, acknowledged()),
            () = stop.cancelled() => {
                if close(read_half, write_half, is_writing.then_some(&mut chunk)).await {
                    progress.confirm_all(reader);
                }
                return Outcome::Stopped;
            }
            () = tokio::time::sleep_until(expires), if !is_writing => {
                if close(read_half, write_half, None).await {
                    progress.confirm_all(reader);
                }
                return Outcome::Expired;
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

/// Writes the rest, closes the connection, and returns whether the receiver closed its side as
/// well, which it does after it has read everything.
async fn close(
    mut read_half: impl AsyncRead + Unpin,
    mut write_half: impl AsyncWrite + Unpin,
    rest: Option<&mut BytesMut>,
) -> bool {
    let closing = async {
        if let Some(rest) = rest {
            write_all(&mut write_half, rest).await?;
        }
        // With TLS: close_notify, then FIN.
        write_half.shutdown().await?;
        let mut received = [0; 4096];
        while read_half.read(&mut received).await? > 0 {}
        io::Result::Ok(())
    };
    matches!(tokio::time::timeout(CLOSE_TIMEOUT, closing).await, Ok(Ok(())))
}
