//! Syslog over a connection: TCP, or TLS within it.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    reader::Feed, stats::Counts, transport::connect::Connection, transport::error::Failure, transport::outcome::End,
    transport::unconfirmed::Unconfirmed,
};

/// How much is rendered and written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// How often it is looked what was confirmed, while nothing is written.
const LOOK: Duration = Duration::from_millis(500);

/// How long a receiver may take to close what we ended.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Sends what the feed has until the connection ends, or is to.
pub(crate) async fn run(
    feed: &mut Feed,
    connection: Connection,
    counts: &Counts,
    age: Duration,
    stop: &CancellationToken,
) -> End {
    let (mut reading, mut writing) = tokio::io::split(connection.stream);
    let mut sending = Sending {
        unconfirmed: Unconfirmed::default(),
        counts,
    };
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES * 2);
    // Whether the chunk is not wholly in the socket yet.
    let mut open = false;
    let mut told = [0; 4096];
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let old = Instant::now() + age;
    let acknowledged = || {
        let written = connection.written.bytes();
        // Where the kernel does not say, nothing is.
        connection
            .queue
            .unacknowledged()
            .map_or(0, |waiting| written.saturating_sub(waiting))
    };
    loop {
        if !open && feed.queue.has_more() {
            feed.queue.render(&mut chunk, CHUNK_BYTES);
            open = true;
        }
        tokio::select! {
            wrote = push(&mut writing, &mut chunk), if open => {
                if let Err(error) = wrote {
                    return End::Failed(Failure::Broke(error));
                }
                open = false;
                sending.unconfirmed.wrote(connection.written.bytes(), feed.queue.rendered());
                sending.confirm(feed, acknowledged());
            }
            // What a receiver says is nothing that syslog knows; that it has gone is.
            read = reading.read(&mut told) => match read {
                Ok(0) => return End::Failed(Failure::Closed),
                Ok(_) => {}
                Err(error) => return End::Failed(Failure::Broke(error)),
            },
            filled = feed.fill(), if feed.queue.has_room() => match filled {
                Some(Ok(())) => {}
                Some(Err(error)) => return End::Bus(Some(error)),
                None => return End::Bus(None),
            },
            _ = looks.tick() => sending.confirm(feed, acknowledged()),
            () = stop.cancelled() => {
                if close(reading, writing, open.then_some(&mut chunk)).await {
                    sending.all(feed);
                }
                return End::Stopped;
            }
            () = tokio::time::sleep_until(old), if !open => {
                if close(reading, writing, None).await {
                    sending.all(feed);
                }
                return End::Renewed;
            }
        }
    }
}

/// What was sent, and what of it is sure.
struct Sending<'a> {
    unconfirmed: Unconfirmed,
    counts: &'a Counts,
}

impl Sending<'_> {
    fn confirm(&mut self, feed: &mut Feed, bytes: u64) {
        let sure = self.unconfirmed.confirm(bytes, Instant::now());
        self.settle(feed, sure);
    }

    fn all(&mut self, feed: &mut Feed) {
        let sure = self.unconfirmed.all();
        self.settle(feed, sure);
    }

    fn settle(&self, feed: &mut Feed, sure: u64) {
        let lines = feed.settle(sure);
        if lines > 0 {
            self.counts.note(|report| report.delivered += lines);
        }
    }
}

/// Writes all of it, down to the socket.
///
/// *Cancel safety*: what was written is no longer in the chunk; call it again.
async fn push(writing: &mut (impl AsyncWrite + Unpin), chunk: &mut BytesMut) -> io::Result<()> {
    writing.write_all_buf(chunk).await?;
    writing.flush().await
}

/// Ends it in good order; `true` where the receiver has read all of it and did the same.
async fn close(
    mut reading: impl AsyncRead + Unpin,
    mut writing: impl AsyncWrite + Unpin,
    rest: Option<&mut BytesMut>,
) -> bool {
    let closing = async {
        if let Some(rest) = rest {
            push(&mut writing, rest).await?;
        }
        // Within TLS, close_notify and then the end.
        writing.shutdown().await?;
        let mut told = [0; 4096];
        while reading.read(&mut told).await? > 0 {}
        io::Result::Ok(())
    };
    matches!(tokio::time::timeout(CLOSE_WAIT, closing).await, Ok(Ok(())))
}
