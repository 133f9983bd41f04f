//! Pages of other sites get nothing: a browser says where a page comes from that asks.
//!
//! A browser lets any page open a WebSocket anywhere, and send a form's kind of POST, with what it knows of the user's access; and a server on a loopback address that asks
//! for no key is open to every page that this machine's browser shows. Programs send no `Origin`. A page can also make its own name lead to a loopback address, and so be of
//! the site that it asks; so who asks for no key is asked by address, or by a name that was allowed.
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

/// Whose pages may ask.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// As a browser says it: `https://console.example.com`.
    allowed: Arc<[String]>,
    /// Whether a name that nobody allowed is refused.
    names_refused: bool,
}

/// No origin of a page.
#[derive(Debug, thiserror::Error)]
#[error("{0:?}: give scheme and host as a browser says them, such as https://console.example.com")]
pub struct InvalidOrigin(String);

impl Sites {
    /// Pages of these sites may ask, besides the server's own.
    ///
    /// # Errors
    /// [`InvalidOrigin`] where one is no `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub fn allowing(origins: &[String]) -> Result<Self, InvalidOrigin> {
        let fits = |origin: &String| {
            let read = origin.parse::<Uri>().ok();
            read.is_some_and(|uri| {
                let web = matches!(uri.scheme_str(), Some("http" | "https"));
                web && uri
                    .authority()
                    .is_some_and(|host| origin.ends_with(&format!("://{host}")) && !host.as_str().contains('@'))
            })
        };
        if let Some(wrong) = origins.iter().find(|origin| !fits(origin)) {
            return Err(InvalidOrigin(wrong.clone()));
        }
        Ok(Self {
            allowed: origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            names_refused: false,
        })
    }

    /// The same, and the server is asked by address alone, by `localhost`, or by the name of a site that was allowed.
    #[must_use]
    pub fn by_address(mut self) -> Self {
        self.names_refused = true;
        self
    }

    /// What tells a browser that these pages may.
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

    fn refusal(&self, headers: &HeaderMap, uri: &Uri) -> Option<ApiError> {
        let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // HTTP/2 has the host in the request's line.
        let asked = asked.or_else(|| uri.authority().map(|authority| authority.as_str()));
        if self.names_refused && asked.is_some_and(|asked| !is_address(asked) && !self.is_allowed_host(asked)) {
            return Some(ApiError::OtherName);
        }
        let origin = headers.get(header::ORIGIN)?;
        let page = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://").map(|(_, host)| (origin, host)));
        match (page, asked) {
            (Some((origin, _)), _) if self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) => None,
            (Some((_, page)), Some(asked)) if page.eq_ignore_ascii_case(asked) => None,
            // `null` is a page of no site.
            _ => Some(ApiError::OtherSite),
        }
    }

    fn is_allowed_host(&self, asked: &str) -> bool {
        let hosts = self.allowed.iter().filter_map(|origin| origin.split_once("://"));
        hosts.into_iter().any(|(_, host)| host.eq_ignore_ascii_case(asked))
    }
}

/// Whether a host is an address, or this machine's own name: then no page has made it lead here.
fn is_address(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let name = bracketed.map_or_else(|| host.split(':').next().unwrap_or_default(), |(address, _)| address);
    let local = name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    local || name.parse::<IpAddr>().is_ok()
}

/// Refuses what a page of another site asks for.
pub(crate) async fn same_site(State(sites): State<Sites>, request: Request, next: Next) -> Response {
    match sites.refusal(request.headers(), request.uri()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sites: &Sites, origin: Option<&str>, host: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::ORIGIN, origin), (header::HOST, host)] {
            headers.extend(value.map(|value| (name, value.parse().unwrap())));
        }
        sites
            .refusal(&headers, &Uri::from_static("/api/apps/shop/logs"))
            .is_some()
    }

    #[test]
    fn a_page_is_of_the_site_that_it_asks_or_of_one_that_was_allowed_or_it_is_refused() {
        let allowed = ["https://console.example.com".to_owned()];
        let sites = Sites::allowing(&allowed).unwrap();
        for (origin, host, foreign) in [
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
            assert_eq!(refused(&sites, origin, host), foreign, "{origin:?} asks {host:?}");
        }
        let headers = HeaderMap::from_iter([(header::ORIGIN, "https://a.example".parse().unwrap())]);
        assert!(
            sites
                .refusal(&headers, &Uri::from_static("https://a.example/healthz"))
                .is_none()
        );
        for wrong in [
            "console.example.com",
            "https://console.example.com/",
            "https://u@c.example",
            "*",
            "null",
        ] {
            assert!(Sites::allowing(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_asks_for_no_key_is_asked_by_address_or_by_an_allowed_name_alone() {
        let sites = Sites::allowing(&["http://logs.internal:8080".to_owned()])
            .unwrap()
            .by_address();
        for host in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "localhost:8080",
            "a.localhost",
            "logs.internal:8080",
        ] {
            assert!(!refused(&sites, None, Some(host)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "logs.internal",
        ] {
            assert!(refused(&sites, None, Some(host)), "{host}");
            assert!(refused(&sites, Some(&format!("http://{host}")), Some(host)), "{host}");
        }
    }
}
