//! Syslog over UDP: a message a datagram. What is lost on the way nobody can know; what this machine could not send is sent again.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use tokio::{net::UdpSocket, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{reader::Feed, stats::Counts, transport::error::Failure, transport::outcome::End};

/// A socket that sends to the first of these that can be sent to.
///
/// # Errors
/// The system's, of the last.
pub(crate) async fn open(addresses: &[SocketAddr]) -> Result<UdpSocket, Failure> {
    let mut failed = std::io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        let from: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let opened = async {
            let socket = UdpSocket::bind(from).await?;
            socket.connect(address).await?;
            Ok(socket)
        };
        match opened.await {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(Failure::Connect(failed))
}

/// Sends what the feed has until the socket fails, or it is to end.
pub(crate) async fn run(
    feed: &mut Feed,
    socket: &UdpSocket,
    counts: &Counts,
    old: Instant,
    stop: &CancellationToken,
) -> End {
    let mut messages: Vec<Bytes> = Vec::new();
    loop {
        if stop.is_cancelled() {
            return End::Stopped;
        }
        if Instant::now() >= old {
            return End::Renewed;
        }
        while feed.queue.has_more() {
            messages.clear();
            feed.queue.render_messages(&mut messages);
            for message in &messages {
                // A receiver that was not there a moment ago is told of here.
                if let Err(error) = socket.send(message).await {
                    return End::Failed(Failure::Broke(error));
                }
            }
            let lines = feed.settle(feed.queue.rendered());
            if lines > 0 {
                counts.note(|report| report.delivered += lines);
            }
        }
        tokio::select! {
            filled = feed.fill() => match filled {
                Some(Ok(())) => {}
                Some(Err(error)) => return End::Bus(Some(error)),
                None => return End::Bus(None),
            },
            () = stop.cancelled() => return End::Stopped,
            () = tokio::time::sleep_until(old) => return End::Renewed,
        }
    }
}
