//! A tail as a WebSocket.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use tokio::time::Instant;

use crate::{
    access::Pass,
    format::websocket,
    limits::Admitted,
    piece::Piece,
    ring::Mark,
    tail::{Tail, Turn},
};

/// "Going away" (RFC 6455, 7.4.1): the server stops, or has no more; come again with the cursor.
const AWAY: u16 = 1001;

/// "Normal": all that was asked for has been sent.
const NORMAL: u16 = 1000;

/// "Policy violation": the key is void.
const VOID: u16 = 1008;

/// How long a client has to answer a close.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// The largest message that a client has a reason to send.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// What is read at once of what a client says, which is next to nothing. The library's own 128 KiB are cleared for each look: a third of what a delivery cost.
pub(crate) const READ_BUFFER_BYTES: usize = 1024;

/// Sends a tail's lines, a message a turn, until it ends or the client goes. Until then it counts as admitted.
pub(crate) async fn serve(
    mut socket: WebSocket,
    mut tail: Tail,
    mut pass: Pass,
    _admitted: Admitted,
    heartbeat: Duration,
) {
    let mut sent = Instant::now();
    loop {
        let next = tokio::select! {
            // The key is void: what waits is not for its holder any more.
            () = pass.ended() => return close(socket, VOID, "no access any more").await,
            turn = tail.next() => Next::Turn(turn),
            // Pings are answered below; what a client says otherwise is nothing to us.
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            () = tokio::time::sleep_until(sent + heartbeat) => Next::Beat,
        };
        sent = Instant::now();
        let went = match next {
            Next::Beat => socket.send(Message::Ping(Default::default())).await,
            Next::Turn(turn) if turn.ended => return end(socket, turn).await,
            Next::Turn(turn) => socket.send(Message::Text(message(&turn))).await,
        };
        if went.is_err() {
            return;
        }
    }
}

enum Next {
    Turn(Turn),
    Beat,
}

async fn end(mut socket: WebSocket, turn: Turn) {
    let code = if turn.mark.is_some() { AWAY } else { NORMAL };
    if !turn.pieces.is_empty() || turn.mark.is_some() {
        // A client that is gone needs no last message.
        let _ = socket.send(Message::Text(message(&turn))).await;
    }
    close(socket, code, if code == AWAY { "closing" } else { "" }).await;
}

/// Says goodbye, and waits for the answer.
async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame {
        code,
        reason: Utf8Bytes::from_static(reason),
    };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        // Its answer, or its going: whoever closes first without waiting may cut off the last lines.
        let answer = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = tokio::time::timeout(CLOSE_WAIT, answer).await;
    }
}

/// The message of a turn; one of a single piece is put together once for all who get it.
fn message(turn: &Turn) -> Utf8Bytes {
    let new = |pieces: &[Piece], mark: Option<&Mark>| {
        let lists = pieces.iter().map(|piece| &piece.plain()[..]);
        Utf8Bytes::from(websocket::message(mark.map(|mark| mark.cursor.as_str()), lists))
    };
    match (turn.pieces.as_slice(), &turn.mark) {
        ([piece], Some(mark)) => piece.message(mark, || new(&turn.pieces, Some(mark))),
        (pieces, mark) => new(pieces, mark.as_deref()),
    }
}
