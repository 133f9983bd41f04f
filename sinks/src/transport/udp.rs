//! Syslog over UDP, one message per datagram. Loss in the network is undetectable; messages that
//! this host cannot send are sent again.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use system::clock;
use tokio::{net::UdpSocket, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{error::DeliveryError, outcome::Outcome};
use crate::{reader::DrainReader, stats::DrainStats};

/// Opens a socket to the first address that has a route.
///
/// # Errors
/// [`DeliveryError::Connect`] for the last address.
pub(crate) async fn open(addresses: &[SocketAddr]) -> Result<UdpSocket, DeliveryError> {
    let mut last_error = std::io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let opened = async {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(address).await?;
            Ok(socket)
        };
        match opened.await {
            Ok(socket) => return Ok(socket),
            Err(error) => last_error = error,
        }
    }
    Err(DeliveryError::Connect(last_error))
}

/// Sends lines until the socket fails, expires, or shutdown is requested.
pub(crate) async fn run(
    reader: &mut DrainReader,
    socket: &UdpSocket,
    stats: &DrainStats,
    expires: Instant,
    stop: &CancellationToken,
) -> Outcome {
    let mut messages: Vec<Bytes> = Vec::new();
    loop {
        if stop.is_cancelled() {
            return Outcome::Stopped;
        }
        if clock::steady() >= expires {
            return Outcome::Expired;
        }
        while reader.queue.has_more() {
            messages.clear();
            reader.queue.render_messages(&mut messages);
            for message in &messages {
                // Also reports an ICMP error in response to an earlier datagram.
                if let Err(error) = socket.send(message).await {
                    return Outcome::Failed(DeliveryError::Io(error));
                }
            }
            let lines = reader.confirm(reader.queue.rendered());
            stats.add_delivered(lines);
        }
        tokio::select! {
            filled = reader.fill() => match filled {
                Some(Ok(())) => {}
                Some(Err(error)) => return Outcome::Bus(Some(error)),
                None => return Outcome::Bus(None),
            },
            () = stop.cancelled() => return Outcome::Stopped,
            () = tokio::time::sleep_until(expires) => return Outcome::Expired,
        }
    }
}
