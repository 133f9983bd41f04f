//! Protection against requests that a browser sends for pages of other sites.
//!
//! A browser lets any page open WebSockets and send form-like POST requests to any server, with the
//! user's stored credentials. A server on a loopback address without authentication is reachable by
//! every page in a browser on the same machine. Such requests carry an `Origin` header, which is
//! checked here; other clients send none.
//!
//! With DNS rebinding, a page can point its own host name at a loopback address and so have the
//! same origin as the server. Without authentication, the `Host` header must therefore be an IP
//! address, `localhost` or an allowed origin.
//!
//! *Source*: RFC 6455, section 10.2; Fetch, section 3.2 (`Origin`).

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower_http::cors::CorsLayer;

use crate::error::ApiError;

/// Origins of pages that may send requests, besides the server's own.
#[derive(Clone, Debug, Default)]
pub struct AllowedOrigins {
    /// Such as `https://console.example.com`.
    allowed: Arc<[String]>,
    /// The `Host` header must be an address or an allowed origin.
    check_host: bool,
}

/// An invalid origin.
#[derive(Debug, thiserror::Error)]
#[error("invalid origin '{0}': give scheme and host without a path, such as https://console.example.com")]
pub struct InvalidOrigin(String);

impl AllowedOrigins {
    /// Allows origins of the form `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    ///
    /// # Errors
    /// [`InvalidOrigin`] for any other form.
    pub fn new(origins: &[String]) -> Result<Self, InvalidOrigin> {
        let is_valid = |origin: &String| {
            let uri = origin.parse::<Uri>().ok();
            uri.is_some_and(|uri| {
                let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
                is_http
                    && uri
                        .authority()
                        .is_some_and(|host| origin.ends_with(&format!("://{host}")) && !host.as_str().contains('@'))
            })
        };
        if let Some(invalid) = origins.iter().find(|origin| !is_valid(origin)) {
            return Err(InvalidOrigin(invalid.clone()));
        }
        Ok(Self {
            allowed: origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            check_host: false,
        })
    }

    /// Also requires a `Host` header that is an IP address, `localhost` or an allowed origin, which
    /// prevents DNS rebinding.
    #[must_use]
    pub fn with_host_check(mut self) -> Self {
        self.check_host = true;
        self
    }

    /// Returns the layer that adds CORS headers for the allowed origins.
    pub(crate) fn cors(&self) -> CorsLayer {
        let allowed = self
            .allowed
            .iter()
            .filter_map(|origin| HeaderValue::from_str(origin).ok());
        CorsLayer::new()
            .allow_origin(allowed.collect::<Vec<_>>())
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                HeaderName::from_static("last-event-id"),
            ])
    }

    /// Returns the error for a request that must be refused.
    fn refusal(&self, headers: &HeaderMap, uri: &Uri) -> Option<ApiError> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // HTTP/2 sends the host as a pseudo-header.
        let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
        if self.check_host && host.is_some_and(|host| !is_address(host) && !self.is_allowed_host(host)) {
            return Some(ApiError::HostNotAllowed);
        }
        let origin = headers.get(header::ORIGIN)?;
        let page = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://").map(|(_, host)| (origin, host)));
        match (page, host) {
            (Some((origin, _)), _) if self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) => None,
            (Some((_, page_host)), Some(host)) if page_host.eq_ignore_ascii_case(host) => None,
            // This includes the opaque origin `null`.
            _ => Some(ApiError::OriginNotAllowed),
        }
    }

    fn is_allowed_host(&self, host: &str) -> bool {
        let hosts = self.allowed.iter().filter_map(|origin| origin.split_once("://"));
        hosts.into_iter().any(|(_, allowed)| allowed.eq_ignore_ascii_case(host))
    }
}

/// Returns whether a host is an IP address or `localhost`, which DNS rebinding cannot use.
fn is_address(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let name = bracketed.map_or_else(|| host.split(':').next().unwrap_or_default(), |(address, _)| address);
    let local = name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    local || name.parse::<IpAddr>().is_ok()
}

/// Refuses requests for pages of other sites.
pub(crate) async fn check_origin(State(origins): State<AllowedOrigins>, request: Request, next: Next) -> Response {
    match origins.refusal(request.headers(), request.uri()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(origins: &AllowedOrigins, origin: Option<&str>, host: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::ORIGIN, origin), (header::HOST, host)] {
            headers.extend(value.map(|value| (name, value.parse().unwrap())));
        }
        origins
            .refusal(&headers, &Uri::from_static("/api/apps/shop/logs"))
            .is_some()
    }

    #[test]
    fn pages_of_the_same_or_an_allowed_origin_are_accepted() {
        let allowed = ["https://console.example.com".to_owned()];
        let origins = AllowedOrigins::new(&allowed).unwrap();
        for (origin, host, refused) in [
            (None, Some("logs.example.com"), false),
            (Some("https://logs.example.com"), Some("logs.example.com"), false),
            (Some("https://LOGS.example.com"), Some("logs.example.com"), false),
            (Some("https://console.example.com"), Some("logs.example.com"), false),
            (Some("http://console.example.com"), Some("logs.example.com"), true),
            (Some("http://127.0.0.1:8080"), Some("127.0.0.1:8080"), false),
            (Some("http://127.0.0.1:3000"), Some("127.0.0.1:8080"), true),
            (Some("https://evil.example"), Some("logs.example.com"), true),
            (Some("null"), Some("logs.example.com"), true),
            (Some("https://logs.example.com"), None, true),
        ] {
            assert_eq!(is_refused(&origins, origin, host), refused, "{origin:?} to {host:?}");
        }
        let headers = HeaderMap::from_iter([(header::ORIGIN, "https://a.example".parse().unwrap())]);
        assert!(
            origins
                .refusal(&headers, &Uri::from_static("https://a.example/healthz"))
                .is_none()
        );
        for invalid in [
            "console.example.com",
            "https://console.example.com/",
            "https://u@c.example",
            "*",
            "null",
        ] {
            assert!(AllowedOrigins::new(&[invalid.to_owned()]).is_err(), "{invalid}");
        }
    }

    #[test]
    fn the_host_check_accepts_addresses_and_allowed_origins_only() {
        let origins = AllowedOrigins::new(&["http://logs.internal:8080".to_owned()])
            .unwrap()
            .with_host_check();
        for host in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "localhost:8080",
            "a.localhost",
            "logs.internal:8080",
        ] {
            assert!(!is_refused(&origins, None, Some(host)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "logs.internal",
        ] {
            assert!(is_refused(&origins, None, Some(host)), "{host}");
            assert!(
                is_refused(&origins, Some(&format!("http://{host}")), Some(host)),
                "{host}"
            );
        }
    }
}
