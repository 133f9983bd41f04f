//! Lets in who may do what a request asks for, where the scenario says that the API asks who one is.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::query::Query;
use super::status::Status;
use super::{Client, Shared};
use crate::access::{Action, User};
use crate::simulation::Sim;

/// Lets a request in, or not.
pub(super) async fn admit(State(sim): Shared, request: Request, next: Next) -> Response {
    if !sim.authorize {
        return next.run(request).await;
    }
    let client = Client::of(request.headers());
    let Some(user) = asks(&sim, request.headers()) else {
        return Status::unauthorized().respond(&client);
    };
    let query = Query::parse(request.uri().query());
    match action(request.method(), request.uri().path(), query.flag("watch")) {
        Some(action) if !may(&sim, &user, &action) => Status::forbidden(&user.name, &action).respond(&client),
        _ => next.run(request).await,
    }
}

/// Whether somebody may do that: by the scenario, or by a role that is bound to them.
pub(super) fn may(sim: &Arc<Sim>, user: &User, action: &Action) -> bool {
    user.may(action) || sim.declared.allows(&user.name, action)
}

/// Whose token a request carries, or, where they may, as whom they ask (`kubectl --as`).
pub(super) fn asks(sim: &Arc<Sim>, headers: &HeaderMap) -> Option<User> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let token = text(AUTHORIZATION.as_str())?.strip_prefix("Bearer ")?;
    let user = {
        let users = sim.condition.users.lock();
        users.iter().find(|user| user.token == token).cloned()?
    };
    let Some(other) = text("impersonate-user") else {
        return Some(user);
    };
    let impersonate = Action {
        verb: "impersonate".to_owned(),
        resource: "users".to_owned(),
        ..Action::default()
    };
    may(sim, &user, &impersonate).then(|| {
        let users = sim.condition.users.lock();
        let known = users.iter().find(|user| user.name == other).cloned();
        known.unwrap_or_else(|| User {
            name: other.to_owned(),
            ..User::default()
        })
    })
}

/// What a request asks for; `None` for what everybody may who has a token: discovery, and to ask what one may.
pub(super) fn action(method: &Method, path: &str, watches: bool) -> Option<Action> {
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
    Some(Action {
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

    fn asked(method: Method, path: &str, watches: bool) -> Option<String> {
        action(&method, path, watches).map(|action| action.to_string())
    }

    #[test]
    fn a_request_is_what_the_api_server_takes_it_for() {
        let told = |method, path, watches| asked(method, path, watches).unwrap_or_else(|| "anybody".to_owned());
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
                "anybody",
            ),
            (Method::GET, "/version", false, "anybody"),
        ] {
            assert_eq!(told(method, path, watches), expected, "{path}");
        }
    }
}
