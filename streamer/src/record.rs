//! A record of each request: who came from where, what for, and what became of it. Never a key, a query or a line.

use axum::{
    extract::{ConnectInfo, MatchedPath, Request},
    middleware::Next,
    response::Response,
};

use crate::connection::Peer;

/// Passes a request on and notes how it was answered; a tail's body is still to come then.
pub(crate) async fn record(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|peer| peer.0.0);
    // The path without its query: session URLs carry their signature there.
    let known = request.extensions().get::<MatchedPath>().is_some();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let peer = peer.map(|peer| peer.ip().to_canonical());
    if known {
        tracing::debug!(target: "streamer::access_log", %method, path, status, ?peer, "answered");
    } else {
        tracing::debug!(target: "streamer::access_log", %method, status, ?peer, "answered a path that is not served");
    }
    response
}
