//! Errors of the API server: `Status` objects and their HTTP status.

use std::borrow::Cow;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::response::{ResponseFormat, json_response};
use crate::access::RequestAttributes;
use crate::store::write_error::WriteError;

/// A failure. Fields serialize in the API server's order.
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

/// One cause of an `Invalid` status.
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

    /// A required field that is missing.
    pub(crate) fn required(field: &'static str, rule: &str) -> Self {
        Self {
            reason: "FieldValueRequired",
            message: format!("Required value: {rule}"),
            field,
        }
    }

    /// A field that is not allowed.
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

    /// 400 for a body that is not an object of the kind.
    pub(crate) fn unrecognized() -> Self {
        Self::bad_request("the object provided is unrecognized")
    }

    /// The status of a rejected write: 409 or 404.
    pub(crate) fn from_write_error(error: &WriteError, kind: &'static str, name: &str) -> Self {
        match error {
            WriteError::AlreadyExists => Self::already_exists(kind, name),
            WriteError::NotFound => Self::not_found(kind, name),
            WriteError::Conflict => Self::conflict(kind, name),
        }
    }

    /// 401: no valid token.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized".to_owned())
    }

    /// 403 for an unauthorized request, whether the object exists or not.
    pub(crate) fn forbidden(user: &str, attributes: &RequestAttributes) -> Self {
        let kind = attributes.resource.split('/').next().unwrap_or_default();
        let what = match (&*attributes.name, &*attributes.group) {
            ("", "") => kind.to_owned(),
            ("", group) => format!("{kind}.{group}"),
            (name, _) => format!("{kind} {name:?}"),
        };
        let message = format!("{what} is forbidden: User {user:?} {attributes}");
        let mut status = Self::new(StatusCode::FORBIDDEN, "Forbidden", message);
        status.details = Some(Box::new(Details {
            name: attributes.name.clone(),
            kind: kind.to_owned().into(),
            ..Details::default()
        }));
        status
    }

    /// 429 with a retry after one second.
    pub(crate) fn too_many_requests() -> Self {
        let message = "the server has received too many requests and has asked us to try again later";
        let mut status = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message.to_owned());
        status.details = Some(Box::new(Details {
            retry_after_seconds: Some(1),
            ..Details::default()
        }));
        status
    }

    /// 404 for a named object.
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

    /// 409 for a name that is taken.
    pub(crate) fn already_exists(kind: &'static str, name: &str) -> Self {
        Self::conflicting("AlreadyExists", kind, name, "already exists".to_owned())
    }

    /// 409 for an object that was modified concurrently.
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

    /// 404 for an unknown path.
    pub(crate) fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        let mut status = Self::new(StatusCode::NOT_FOUND, "NotFound", message.to_owned());
        status.details = Some(Box::default());
        status
    }

    /// 404 of a kubelet that has not loaded its pods: the kind is `pods/log`, not `pods`.
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

    /// 410; with `resume`, a continue token, the list can continue inconsistently.
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

    /// 500 without a reason, as the API server forwards errors of other components.
    pub(crate) fn internal(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 504 for a version that does not exist yet.
    pub(crate) fn version_too_large(requested: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
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

    /// Serializes the status on one line, without a newline.
    pub(crate) fn compact(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Responds with the status.
    pub(crate) fn respond(&self, format: &ResponseFormat) -> Response {
        let body = if format.pretty {
            serde_json::to_string_pretty(self).unwrap_or_default()
        } else {
            self.compact() + "\n"
        };
        let mut response = json_response(
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
