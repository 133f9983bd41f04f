//! The HTTP API: listener, routes, middleware and handlers.
//!
//! Depends on everything else in this crate; nothing else depends on it.

mod access_log;
mod account;
mod allowed_origins;
mod body;
mod connection;
mod drains;
mod extract;
mod forwarded;
mod logs;
mod routes;
mod serve;
mod sessions;
mod state;
mod tls;
mod websocket;

pub use self::{
    allowed_origins::{AllowedOrigins, InvalidOrigin},
    drains::service::{DrainService, MAX_DRAINS},
    routes::openapi,
    serve::Listener,
    tls::{Tls, TlsError},
};
pub(crate) use self::{
    connection::Connections,
    routes::router,
    serve::{ConnectionSettings, serve},
    state::AppState,
};
