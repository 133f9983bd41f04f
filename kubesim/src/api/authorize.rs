//! Authentication and authorization of requests, for scenarios with `authorize`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::query::Query;
use super::response::{ResponseFormat, SimState};
use super::status::Status;
use crate::access::{RequestAttributes, User};
use crate::simulation::Simulation;
use crate::store::rbac;

/// Rejects unauthenticated and unauthorized requests if the scenario sets `authorize`.
pub(super) async fn authorize(State(sim): SimState, request: Request, next: Next) -> Response {
    if !sim.authorize {
        return next.run(request).await;
    }
    let format = ResponseFormat::from_headers(request.headers());
    let Some(user) = identify(&sim, request.headers()) else {
        return Status::unauthorized().respond(&format);
    };
    let query = Query::parse(request.uri().query());
    match request_attributes(request.method(), request.uri().path(), query.flag("watch")) {
        Some(attributes) if !is_allowed(&sim, &user, &attributes) => {
            Status::forbidden(&user.name, &attributes).respond(&format)
        }
        _ => next.run(request).await,
    }
}

/// Returns whether the scenario or a bound role allows a request.
pub(super) fn is_allowed(sim: &Arc<Simulation>, user: &User, attributes: &RequestAttributes) -> bool {
    user.is_allowed(attributes) || rbac::is_allowed(&sim.objects, &user.name, attributes)
}

/// Returns the user of a request's token, or the impersonated user (`kubectl --as`) if that is
/// allowed.
pub(super) fn identify(sim: &Arc<Simulation>, headers: &HeaderMap) -> Option<User> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let token = text(AUTHORIZATION.as_str())?.strip_prefix("Bearer ")?;
    let user = {
        let users = sim.state.users.lock();
        users.iter().find(|user| user.token == token).cloned()?
    };
    let Some(other) = text("impersonate-user") else {
        return Some(user);
    };
    let impersonate = RequestAttributes {
        verb: "impersonate".to_owned(),
        resource: "users".to_owned(),
        ..RequestAttributes::default()
    };
    is_allowed(sim, &user, &impersonate).then(|| {
        let users = sim.state.users.lock();
        let user = users.iter().find(|user| user.name == other).cloned();
        user.unwrap_or_else(|| User {
            name: other.to_owned(),
            ..User::default()
        })
    })
}

/// Returns the attributes of a request; `None` for discovery and self-reviews, which every
/// authenticated user may send.
pub(super) fn request_attributes(method: &Method, path: &str, watches: bool) -> Option<RequestAttributes> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match &*parts {
        ["api", _version, rest @ ..] => ("", rest),
        ["apis", group, _version, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (resource, name) = match rest {
        [] | ["selfsubjectaccessreviews"] => return None,
        [resource] => ((*resource).to_owned(), ""),
        [resource, name] => ((*resource).to_owned(), *name),
        [resource, name, subresource, ..] => (format!("{resource}/{subresource}"), *name),
    };
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ if watches => "watch",
        _ if name.is_empty() => "list",
        _ => "get",
    };
    Some(RequestAttributes {
        verb: verb.to_owned(),
        group: group.to_owned(),
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(method: Method, path: &str, watches: bool) -> Option<String> {
        request_attributes(&method, path, watches).map(|attributes| attributes.to_string())
    }

    #[test]
    fn requests_have_the_attributes_of_the_api_server() {
        let described =
            |method, path, watches| describe(method, path, watches).unwrap_or_else(|| "every user".to_owned());
        for (method, path, watches, expected) in [
            (
                Method::GET,
                "/api/v1/pods",
                false,
                "cannot list resource \"pods\" in API group \"\" at the cluster scope",
            ),
            (
                Method::GET,
                "/api/v1/pods",
                true,
                "cannot watch resource \"pods\" in API group \"\" at the cluster scope",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/shop/pods/web/log",
                false,
                "cannot get resource \"pods/log\" in API group \"\" in the namespace \"shop\"",
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/tributary/secrets/keys",
                false,
                "cannot update resource \"secrets\" in API group \"\" in the namespace \"tributary\"",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/shop",
                false,
                "cannot get resource \"namespaces\" in API group \"\" at the cluster scope",
            ),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                false,
                "cannot create resource \"subjectaccessreviews\" in API group \"authorization.k8s.io\" at the cluster scope",
            ),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                false,
                "every user",
            ),
            (Method::GET, "/version", false, "every user"),
        ] {
            assert_eq!(described(method, path, watches), expected, "{path}");
        }
    }
}
