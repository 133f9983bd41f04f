//! A tail as a WebSocket.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use system::clock;

use crate::{
    access::Grant,
    format::websocket,
    frame::rendered::{EncodedCursor, Rendered},
    tail::{Output, Tail},
    tail_limits::Admitted,
};

/// Close code "going away" (RFC 6455, section 7.4.1): the server stops; the client can resume.
const GOING_AWAY: u16 = 1001;

/// Close code "normal closure": everything requested was sent.
const NORMAL_CLOSURE: u16 = 1000;

/// Close code "policy violation": the permission has ended.
const POLICY_VIOLATION: u16 = 1008;

/// How long to wait for the client's close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit of a message from the client.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// Read buffer of a connection. Clients send almost nothing, and the library clears the buffer
/// before each read: its default of 128 KiB caused a third of the cost of a delivery.
pub(crate) const READ_BUFFER_BYTES: usize = 1024;

/// Sends a tail as messages until the tail, the grant or the client ends.
pub(crate) async fn serve(
    mut socket: WebSocket,
    mut tail: Tail,
    mut grant: Grant,
    _admitted: Admitted,
    heartbeat: Duration,
) {
    let mut last_sent = clock::steady();
    loop {
        let next = tokio::select! {
            // Pending output is not sent once the permission has ended.
            () = grant.ended() => return close(socket, POLICY_VIOLATION, "no access any more").await,
            output = tail.next() => Next::Output(output),
            // The library answers pings; other messages are ignored.
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            () = tokio::time::sleep_until(last_sent + heartbeat) => Next::Heartbeat,
        };
        last_sent = clock::steady();
        let sent = match next {
            Next::Heartbeat => socket.send(Message::Ping(Default::default())).await,
            Next::Output(output) if output.ended => return end(socket, output).await,
            Next::Output(output) => socket.send(Message::Text(message(&output))).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

enum Next {
    Output(Output),
    Heartbeat,
}

async fn end(mut socket: WebSocket, output: Output) {
    let code = if output.cursor.is_some() {
        GOING_AWAY
    } else {
        NORMAL_CLOSURE
    };
    if !output.pieces.is_empty() || output.cursor.is_some() {
        // An error means that the client is gone.
        let _ = socket.send(Message::Text(message(&output))).await;
    }
    close(socket, code, if code == GOING_AWAY { "closing" } else { "" }).await;
}

/// Sends a close frame and waits for the client's.
async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame {
        code,
        reason: Utf8Bytes::from_static(reason),
    };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        // Closing the connection without waiting could discard lines that are still in flight.
        let closed = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
    }
}

/// Builds the message of an output. A message of a single piece is shared by all tails.
fn message(output: &Output) -> Utf8Bytes {
    let build = |pieces: &[Rendered], cursor: Option<&EncodedCursor>| {
        let lists = pieces.iter().map(|piece| &piece.plain()[..]);
        Utf8Bytes::from(websocket::message(cursor.map(|cursor| cursor.text.as_str()), lists))
    };
    match (output.pieces.as_slice(), &output.cursor) {
        ([piece], Some(cursor)) => piece.message(cursor, || build(&output.pieces, Some(cursor))),
        (pieces, cursor) => build(pieces, cursor.as_deref()),
    }
}
