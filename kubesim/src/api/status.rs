//! The API server's errors: a `Status` object with its HTTP status.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::Client;
use crate::access::Action;
use crate::store::write_error::Refused;

/// A failure as Kubernetes tells it. Fields print in the API server's order.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMeta,
    status: &'static str,
    pub(crate) message: Box<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Box<Details>>,
    code: u16,
}

#[derive(Debug, Clone, Default, Serialize)]
struct ListMeta {
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    resume: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: Cow<'static, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

/// One of the reasons of an `Invalid`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cause {
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'static str,
}

impl Cause {
    /// A value out of range: `sinceSeconds: Invalid value: 0: must be greater than 0`.
    pub(crate) fn invalid(field: &'static str, value: i64, rule: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {rule}"),
            field,
        }
    }

    /// A field that is missing.
    pub(crate) fn required(field: &'static str, rule: &str) -> Self {
        Self {
            reason: "FieldValueRequired",
            message: format!("Required value: {rule}"),
            field,
        }
    }

    /// A field that may not be there.
    pub(crate) fn forbidden(field: &'static str, rule: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {rule}"),
            field,
        }
    }
}

impl Status {
    fn new(code: StatusCode, reason: &'static str, message: String) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: ListMeta::default(),
            status: "Failure",
            message: message.into(),
            reason,
            details: None,
            code: code.as_u16(),
        }
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message.into())
    }

    /// 400 of a body that is no object of the kind.
    pub(crate) fn unrecognized() -> Self {
        Self::bad_request("the object provided is unrecognized")
    }

    /// What a change of a stored object was refused for.
    pub(crate) fn refused(refused: &Refused, kind: &'static str, name: &str) -> Self {
        match refused {
            Refused::Exists => Self::already_exists(kind, name),
            Refused::Missing => Self::not_found(kind, name),
            Refused::Conflict => Self::conflict(kind, name),
        }
    }

    /// 401: nobody that the API knows.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized".to_owned())
    }

    /// 403 of what somebody may not do; also where there is no such object.
    pub(crate) fn forbidden(user: &str, action: &Action) -> Self {
        let kind = action.resource.split('/').next().unwrap_or_default();
        let what = match (&*action.name, &*action.group) {
            ("", "") => kind.to_owned(),
            ("", group) => format!("{kind}.{group}"),
            (name, _) => format!("{kind} {name:?}"),
        };
        let message = format!("{what} is forbidden: User {user:?} {action}");
        let mut status = Self::new(StatusCode::FORBIDDEN, "Forbidden", message);
        status.details = Some(Box::new(Details {
            name: action.name.clone(),
            kind: kind.to_owned().into(),
            ..Details::default()
        }));
        status
    }

    /// 429, as an API server says it that has too much to do.
    pub(crate) fn too_many_requests() -> Self {
        let message = "the server has received too many requests and has asked us to try again later";
        let mut status = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message.to_owned());
        status.details = Some(Box::new(Details {
            retry_after_seconds: Some(1),
            ..Details::default()
        }));
        status
    }

    /// 404 of a named object.
    pub(crate) fn not_found(kind: &'static str, name: &str) -> Self {
        let mut status = Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{kind} \"{name}\" not found"),
        );
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            kind: kind.into(),
            ..Details::default()
        }));
        status
    }

    /// 409 of a name that is taken.
    pub(crate) fn already_exists(kind: &'static str, name: &str) -> Self {
        Self::conflicting("AlreadyExists", kind, name, "already exists".to_owned())
    }

    /// 409 of an object that has changed meanwhile.
    pub(crate) fn conflict(kind: &'static str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        let mut status = Self::conflicting("Conflict", kind, name, String::new());
        status.message = format!("Operation cannot be fulfilled on {kind} \"{name}\": {why}").into();
        status
    }

    fn conflicting(reason: &'static str, kind: &'static str, name: &str, why: String) -> Self {
        let mut status = Self::new(StatusCode::CONFLICT, reason, format!("{kind} \"{name}\" {why}"));
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            kind: kind.into(),
            ..Details::default()
        }));
        status
    }

    /// 404 of a path that the API does not have.
    pub(crate) fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        let mut status = Self::new(StatusCode::NOT_FOUND, "NotFound", message.to_owned());
        status.details = Some(Box::default());
        status
    }

    /// 404 of a kubelet that does not know its pods yet: the kind is `pods/log`, not `pods`.
    pub(crate) fn kubelet_starting(pod: &str) -> Self {
        let message = format!("the server could not find the requested resource ( pods/log {pod})");
        let mut status = Self::new(StatusCode::NOT_FOUND, "NotFound", message);
        status.details = Some(Box::new(Details {
            name: pod.to_owned(),
            kind: "pods/log".into(),
            ..Details::default()
        }));
        status
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut status = Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message.to_owned());
        status.details = Some(Box::default());
        status
    }

    /// 410; `resume` is a continue token with which the list can go on, inconsistently.
    pub(crate) fn expired(message: impl Into<String>, resume: Option<String>) -> Self {
        let mut status = Self::new(StatusCode::GONE, "Expired", message.into());
        status.metadata.resume = resume;
        status
    }

    /// 422 with its causes.
    pub(crate) fn invalid(kind: &'static str, name: &str, causes: Vec<Cause>) -> Self {
        let texts: Vec<_> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let all = match texts.as_slice() {
            [only] => only.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let message = format!("{kind} \"{name}\" is invalid: {all}");
        let mut status = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            kind: kind.into(),
            causes,
            ..Details::default()
        }));
        status
    }

    /// 500 without a reason, as the API server passes on what is not its own error.
    pub(crate) fn internal(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 504 of a version that does not exist yet.
    pub(crate) fn version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut status = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        let message = "Too large resource version".to_owned();
        let causes = vec![Cause {
            reason: "ResourceVersionTooLarge",
            message,
            field: "",
        }];
        status.details = Some(Box::new(Details {
            causes,
            retry_after_seconds: Some(1),
            ..Details::default()
        }));
        status
    }

    /// Prints it on one line, without a newline.
    pub(crate) fn compact(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Answers with it.
    pub(crate) fn respond(&self, client: &Client) -> Response {
        let body = if client.pretty {
            serde_json::to_string_pretty(self).unwrap_or_default()
        } else {
            self.compact() + "\n"
        };
        let mut response = answer(
            StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body,
        );
        if self
            .details
            .as_ref()
            .is_some_and(|details| details.retry_after_seconds.is_some())
        {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Makes a JSON response with the headers that every one has.
pub(super) fn answer(code: StatusCode, body: impl Into<Body>) -> Response {
    respond_with(code, "application/json", body.into())
}

/// Makes a response of a type.
pub(super) fn respond_with(code: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if code != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Ok(id) = HeaderValue::from_str(&crate::ids::uid()) {
        headers.insert("audit-id", id);
    }
    response
}
