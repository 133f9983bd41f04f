//! The API without a port: a service for HTTP clients in the same process.
//!
//! It behaves like a connection of its own for each request: the request runs on the machine of the
//! cluster, the response passes a buffer of the size of a socket's, and faults break it.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use axum::{BoxError, Router};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tower::{Service, ServiceExt};

use crate::simulation::Simulation;

/// The API of a cluster as an HTTP service, for example for `kube::Client::new`.
///
/// *Errors*: `ConnectionRefused` while the API is down, `ConnectionReset` if it goes down before the
/// response. A response body that is broken off ends with an error.
#[derive(Clone)]
pub struct ApiService {
    sim: Arc<Simulation>,
    router: Router,
}

impl ApiService {
    pub(crate) fn new(sim: Arc<Simulation>, router: Router) -> Self {
        Self { sim, router }
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Response<Body>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (sender, receiver) = oneshot::channel();
        if *self.sim.state.api_down.borrow() || self.sim.stop.is_cancelled() {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let exchange = serve(
            Arc::clone(&self.sim),
            self.router.clone(),
            request.map(Body::new),
            sender,
        );
        self.sim.machine.spawn_tracked(&self.sim.tasks, exchange);
        Box::pin(async { receiver.await.map_err(|_| io::ErrorKind::ConnectionReset.into()) })
    }
}

/// Serves one request until the response has been sent, the client has gone or the API is down.
async fn serve(
    sim: Arc<Simulation>,
    router: Router,
    request: Request<Body>,
    mut sender: oneshot::Sender<Response<Body>>,
) {
    let mut down = sim.state.api_down.subscribe();
    let response = tokio::select! {
        biased;
        _ = down.wait_for(|down| *down) => return,
        () = sender.closed() => return,
        Ok(response) = router.oneshot(request) => response,
    };
    let (head, body) = response.into_parts();
    // Small pieces are bounded by their number, large ones by the room.
    let (pieces, received) = mpsc::channel(BUFFER_BYTES / 64);
    if sender.send(Response::from_parts(head, receive(received))).is_err() {
        return;
    }
    let client = pieces.clone();
    tokio::select! {
        biased;
        _ = down.wait_for(|down| *down) => {}
        () = client.closed() => {}
        () = send(body, pieces) => {}
    }
}

/// A piece of a response on its way to the client.
enum Piece {
    /// Bytes, and the room that they take in the buffer.
    Data(Bytes, OwnedSemaphorePermit),
    /// The end of a complete response; without it the response is broken.
    End,
}

/// Sends a response into the buffer, which waits for room.
async fn send(body: Body, pieces: mpsc::Sender<Piece>) {
    let room = Arc::new(Semaphore::new(BUFFER_BYTES));
    let mut body = body.into_data_stream();
    while let Some(data) = body.next().await {
        let Ok(mut data) = data else { return };
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE_BYTES));
            let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            // Nothing closes the semaphore.
            let Ok(taken) = Arc::clone(&room).acquire_many_owned(bytes).await else {
                return;
            };
            if pieces.send(Piece::Data(piece, taken)).await.is_err() {
                return;
            }
        }
    }
    // An error means that the client has gone.
    let _ = pieces.send(Piece::End).await;
}

/// Returns the client's side of the buffer.
fn receive(pieces: mpsc::Receiver<Piece>) -> Body {
    Body::from_stream(stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Piece::Data(data, room)) => {
                drop(room);
                Some((Ok(data), Some(pieces)))
            }
            Some(Piece::End) => None,
            None => Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None)),
        }
    }))
}

/// Bytes that are on their way to a client that does not read: those of a socket's buffers.
const BUFFER_BYTES: usize = 64 << 10;

/// Larger pieces are split, as TCP does.
const PIECE_BYTES: usize = 16 << 10;
