//! Pages of other sites get nothing: a browser says where a page comes from that asks.
//!
//! A browser lets any page open a WebSocket anywhere, and send a form's kind of POST, with what it knows of the user's access; and a server on a loopback address that asks
//! for no key is open to every page that this machine's browser shows. Programs send no `Origin`.
//!
//! *Source*: RFC 6455, section 10.2; Fetch, section 3.2 (`Origin`).

use axum::{
    extract::Request,
    http::{HeaderMap, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::error::ApiError;

/// Refuses what a page of another site asks for.
pub(crate) async fn same_site(request: Request, next: Next) -> Response {
    if is_foreign(request.headers(), request.uri()) {
        return ApiError::OtherSite.into_response();
    }
    next.run(request).await
}

fn is_foreign(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has the host in the request's line.
    let asked = asked.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (page, asked) {
        (Some((_, page)), Some(asked)) => !page.eq_ignore_ascii_case(asked),
        // `null` is a page of no site.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_of_the_site_that_it_asks_or_it_is_foreign() {
        let uri = Uri::from_static("/api/apps/shop/logs");
        for (origin, host, foreign) in [
            (None, Some("logs.example.com"), false),
            (Some("https://logs.example.com"), Some("logs.example.com"), false),
            (Some("https://LOGS.example.com"), Some("logs.example.com"), false),
            (Some("http://127.0.0.1:8080"), Some("127.0.0.1:8080"), false),
            (Some("http://127.0.0.1:3000"), Some("127.0.0.1:8080"), true),
            (Some("https://evil.example"), Some("logs.example.com"), true),
            (Some("null"), Some("logs.example.com"), true),
            (Some("https://logs.example.com"), None, true),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::ORIGIN, origin), (header::HOST, host)] {
                headers.extend(value.map(|value| (name, value.parse().unwrap())));
            }
            assert_eq!(is_foreign(&headers, &uri), foreign, "{origin:?} asks {host:?}");
        }
        let headers = HeaderMap::from_iter([(header::ORIGIN, "https://a.example".parse().unwrap())]);
        assert!(!is_foreign(&headers, &Uri::from_static("https://a.example/healthz")));
    }
}
