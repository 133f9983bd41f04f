//! The log endpoint: which container instance, which of its lines, and how a follow ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use tokio::sync::watch::Receiver;
use tokio::time::sleep;

use super::log_options::{LogOptions, Since};
use super::query::Query;
use super::status::{Status, respond_with};
use super::watch::Broken;
use super::{Client, Shared};
use crate::access::Action;
use crate::logs::clock::format_second;
use crate::logs::container_log::Log;
use crate::logs::reader::{Reader, Start};
use crate::simulation::{FollowSlot, Interrupt, Kubelet, Refusal, Sim};
use crate::store::pod::{Container, Pod, State as ContainerState};

/// `GET /api/v1/namespaces/{namespace}/pods/{pod}/log`.
pub(super) async fn serve(
    State(sim): Shared,
    method: Method,
    Path(key): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let client = Client::of(&headers);
    if method != Method::GET {
        return Status::method_not_allowed().respond(&client);
    }
    let options = match LogOptions::parse(&Query::parse(query.as_deref()), &key.1) {
        Ok(options) => options,
        Err(status) => return status.respond(&client),
    };
    if *sim.condition.refusal.lock() == Some(Refusal::Forbidden) {
        let action = Action {
            verb: "get".to_owned(),
            resource: "pods/log".to_owned(),
            namespace: key.0,
            name: key.1,
            ..Action::default()
        };
        return Status::forbidden("kubesim", &action).respond(&client);
    }
    let Some(pod) = sim.store.pod(&key) else {
        return Status::not_found("pods", &key.1).respond(&client);
    };
    answer(&sim, &pod, &options).unwrap_or_else(|status| status.respond(&client))
}

fn answer(sim: &Arc<Sim>, pod: &Pod, options: &LogOptions) -> Result<Response, Status> {
    let container = choose(pod, options.container.as_deref())?;
    if pod.node.is_empty() {
        return Ok(respond_with(StatusCode::NO_CONTENT, "", Body::empty()));
    }
    match *sim.condition.kubelet.lock() {
        Kubelet::Up => {}
        Kubelet::Starting => return Err(Status::kubelet_starting(&pod.name)),
        Kubelet::Down => {
            let url = format!(
                "https://{}:10250/containerLogs/{}/{}/{}",
                pod.node, pod.namespace, pod.name, container.name
            );
            let query = options.kubelet_query();
            let why = "dial tcp 127.0.0.1:10250: connect: connection refused";
            return Err(Status::internal(format!("Get \"{url}{query}\": {why}")));
        }
    }
    let id = instance(pod, container, options.previous)?;
    let runtime_down = sim.condition.runtime_down.load(Ordering::Acquire);
    let Some(log) = container.log(id).filter(|_| !runtime_down) else {
        // A stream: log responses never have a Content-Length.
        let body = format!("unable to retrieve container logs for {id}");
        return Ok(text(Body::from_stream(stream::once(async { Ok::<_, Broken>(body) }))));
    };
    Ok(text(Body::from_stream(stream::unfold(
        Transfer::open(sim, log, options),
        |mut transfer| async move { transfer.next().await.map(|piece| (piece, transfer)) },
    ))))
}

fn text(body: Body) -> Response {
    respond_with(StatusCode::OK, "text/plain", body)
}

fn choose<'a>(pod: &'a Pod, name: Option<&str>) -> Result<&'a Container, Status> {
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

/// Finds the instance that is meant, by the kubelet's rules (`validateContainerLogStatus`).
fn instance<'a>(pod: &Pod, container: &'a Container, previous: bool) -> Result<&'a str, Status> {
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

/// One log response on its way.
struct Transfer {
    sim: Arc<Sim>,
    reader: Reader,
    progress: Receiver<Option<std::time::Instant>>,
    interrupt: Receiver<Interrupt>,
    follow: bool,
    /// Absent in a follow that found no free slot: it ends after what is there, with an error in its text.
    slot: Option<FollowSlot>,
    stalled: Receiver<bool>,
    strandings: Receiver<()>,
    bytes_left: Option<u64>,
    ended: bool,
}

impl Transfer {
    fn open(sim: &Arc<Sim>, log: Arc<Log>, options: &LogOptions) -> Self {
        let progress = log.progress();
        // A container that has exited already is read to its end, not waited for.
        let follow = options.follow && progress.borrow().is_none();
        let start = Start {
            since: options.since.map(second),
            tail: options.tail_lines,
        };
        Self {
            progress,
            interrupt: sim.interrupts.follows.subscribe(),
            follow,
            slot: follow.then(|| sim.condition.take_follow()).flatten(),
            stalled: sim.condition.follows_stalled.subscribe(),
            strandings: sim.interrupts.strandings.subscribe(),
            reader: Reader::open(log, &start, options.timestamps),
            sim: Arc::clone(sim),
            bytes_left: options.limit_bytes,
            ended: false,
        }
    }

    /// Returns the next piece of the body.
    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            if self.ended || self.bytes_left == Some(0) {
                return None;
            }
            if self.interrupt.has_changed().unwrap_or(true) {
                return self.interrupted();
            }
            if self.strandings.has_changed().unwrap_or(false) && self.follow {
                self.reader.strand();
            }
            if self.follow && *self.stalled.borrow_and_update() {
                tokio::select! {
                    _ = self.stalled.changed() => continue,
                    _ = self.interrupt.changed() => return self.interrupted(),
                }
            }
            let delay = *self.sim.condition.log_delay.lock();
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let exited = *self.progress.borrow_and_update();
            if let Some(data) = self.reader.read() {
                return Some(Ok(self.limit(data)));
            }
            if !self.follow {
                return None;
            }
            if self.slot.is_none() {
                self.ended = true;
                return Some(Ok(Bytes::from_static(NO_INOTIFY)));
            }
            let lag = exited.map(|exited| EXIT_TO_END.saturating_sub(exited.elapsed()));
            if lag == Some(Duration::ZERO) {
                return None;
            }
            let stop = self.sim.stop.clone();
            tokio::select! {
                _ = self.progress.changed() => {}
                _ = self.interrupt.changed() => return self.interrupted(),
                _ = self.stalled.changed() => {}
                _ = self.strandings.changed() => self.reader.strand(),
                () = sleep(lag.unwrap_or(FAR)) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    fn interrupted(&mut self) -> Option<Result<Bytes, Broken>> {
        self.ended = true;
        (*self.interrupt.borrow() == Interrupt::Break).then_some(Err(Broken))
    }

    fn limit(&mut self, mut data: Bytes) -> Bytes {
        if let Some(left) = &mut self.bytes_left {
            data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= data.len() as u64;
        }
        data
    }
}

/// The first second that is wanted, as the beginning of its lines.
fn second(since: Since) -> String {
    let second = match since {
        Since::Time(time) => time.as_second(),
        Since::Seconds(seconds) => Timestamp::now().as_second().saturating_sub(seconds),
    };
    format_second(u64::try_from(second).unwrap_or(0))
}

/// From a container's exit until its follows end: the kubelet looks once a second.
const EXIT_TO_END: Duration = Duration::from_millis(700);
/// A wait that something else ends.
const FAR: Duration = Duration::from_secs(3600);
/// What a kubelet without a free inotify instance says, as a part of the log.
const NO_INOTIFY: &[u8] = b"failed to create fsnotify watcher: too many open files";
