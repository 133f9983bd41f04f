//! The log endpoint: validates the request and selects the container instance.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use futures::stream;

use super::log_options::LogOptions;
use super::log_stream::LogStream;
use super::query::Query;
use super::response::{ResponseFormat, SimState, StreamBroken, response};
use super::status::Status;
use crate::access::RequestAttributes;
use crate::simulation::{KubeletState, Refusal, Simulation};
use crate::store::pod::{Container, Pod, State as ContainerState};

/// `GET /api/v1/namespaces/{namespace}/pods/{pod}/log`.
pub(super) async fn serve(
    State(sim): SimState,
    method: Method,
    Path(key): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    if method != Method::GET {
        return Status::method_not_allowed().respond(&format);
    }
    sim.state.log_requests.fetch_add(1, Ordering::Relaxed);
    let options = match LogOptions::parse(&Query::parse(query.as_deref()), &key.1) {
        Ok(options) => options,
        Err(status) => return status.respond(&format),
    };
    if *sim.state.refusal.lock() == Some(Refusal::Forbidden) {
        let attributes = RequestAttributes {
            verb: "get".to_owned(),
            resource: "pods/log".to_owned(),
            namespace: key.0,
            name: key.1,
            ..RequestAttributes::default()
        };
        return Status::forbidden("kubesim", &attributes).respond(&format);
    }
    let Some(pod) = sim.pods.get(&key) else {
        return Status::not_found("pods", &key.1).respond(&format);
    };
    // The kubelet answers, and it is ahead of what it has reported.
    let on_node = sim.pods.get_on_node(&key).filter(|on_node| on_node.uid == pod.uid);
    let Some(pod) = on_node else {
        return Status::kubelet_starting(&key.1).respond(&format);
    };
    respond(&sim, &pod, &options).unwrap_or_else(|status| status.respond(&format))
}

fn respond(sim: &Arc<Simulation>, pod: &Pod, options: &LogOptions) -> Result<Response, Status> {
    let container = select_container(pod, options.container.as_deref())?;
    if pod.node.is_empty() {
        return Ok(response(StatusCode::NO_CONTENT, "", Body::empty()));
    }
    match *sim.state.kubelet.lock() {
        KubeletState::Up => {}
        KubeletState::Starting => return Err(Status::kubelet_starting(&pod.name)),
        KubeletState::Down => {
            let url = format!(
                "https://{}:10250/containerLogs/{}/{}/{}",
                pod.node, pod.namespace, pod.name, container.name
            );
            let query = options.kubelet_query();
            let why = "dial tcp 127.0.0.1:10250: connect: connection refused";
            return Err(Status::internal(format!("Get \"{url}{query}\": {why}")));
        }
    }
    let id = select_instance(pod, container, options.previous)?;
    let runtime_down = sim.state.runtime_down.load(Ordering::Acquire);
    let Some(log) = container.log(id).filter(|_| !runtime_down) else {
        // Streamed: log responses never have a `Content-Length`.
        let body = format!("unable to retrieve container logs for {id}");
        return Ok(text_response(Body::from_stream(stream::once(async {
            Ok::<_, StreamBroken>(body)
        }))));
    };
    Ok(text_response(Body::from_stream(stream::unfold(
        LogStream::open(sim, log, options),
        |mut stream| async move { stream.next().await.map(|piece| (piece, stream)) },
    ))))
}

fn text_response(body: Body) -> Response {
    response(StatusCode::OK, "text/plain", body)
}

fn select_container<'a>(pod: &'a Pod, name: Option<&str>) -> Result<&'a Container, Status> {
    let all: Vec<_> = pod.init().chain(pod.main()).collect();
    match (name, all.as_slice()) {
        (Some(name), _) => pod
            .container(name)
            .ok_or_else(|| Status::bad_request(format!("container {name} is not valid for pod {}", pod.name))),
        (None, [only]) => Ok(only),
        (None, several) => {
            let names: Vec<_> = several.iter().map(|container| container.name.as_str()).collect();
            let names = names.join(" ");
            let message = format!(
                "a container name must be specified for pod {}, choose one of: [{names}]",
                pod.name
            );
            Err(Status::bad_request(message))
        }
    }
}

/// Selects the container instance by the kubelet's rules (`validateContainerLogStatus`). Returns
/// its ID.
fn select_instance<'a>(pod: &Pod, container: &'a Container, previous: bool) -> Result<&'a str, Status> {
    let last = container.last.as_ref().map(|end| end.id.as_str());
    let (name, pod) = (&container.name, &pod.name);
    if previous {
        let message = format!("previous terminated container \"{name}\" in pod \"{pod}\" not found");
        return last.ok_or_else(|| Status::bad_request(message));
    }
    match (&container.state, last) {
        (ContainerState::Running { .. } | ContainerState::Terminated(_), _) => {
            Ok(container.id.as_deref().unwrap_or_default())
        }
        (_, Some(last)) => Ok(last),
        (ContainerState::Waiting { reason, .. }, None) => {
            let reason = match reason.as_str() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            Err(Status::bad_request(format!(
                "container \"{name}\" in pod \"{pod}\" is waiting to start: {reason}"
            )))
        }
    }
}
