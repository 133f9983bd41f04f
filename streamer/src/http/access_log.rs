//! The access log: client, method, path and status of each request, never its keys, query or lines.

use axum::{
    extract::{ConnectInfo, MatchedPath, Request},
    middleware::Next,
    response::Response,
};

use crate::http::connection::Peer;

/// Logs a request when its response starts; the body of a log response is still to be sent then.
pub(crate) async fn log_request(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|peer| peer.0.0);
    let has_route = request.extensions().get::<MatchedPath>().is_some();
    // The query is omitted because it can contain a session token.
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let peer = peer.map(|peer| tracing::field::display(peer.ip().to_canonical()));
    if has_route {
        tracing::debug!(target: "streamer::access_log", %method, path, status, peer, "request served");
    } else {
        tracing::debug!(target: "streamer::access_log", %method, status, peer, "request for unknown path");
    }
    response
}
