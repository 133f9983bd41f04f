//! Traces one line from the container through the log API, the bus and the streamer.

mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use bus::{AppName, Bus, BusError, Content, ReaderItem, Start, Timestamp};
use collector::Instance;
use futures::{
    AsyncBufReadExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::Client;
use tokio::time::{Instant, timeout_at};

use super::{
    clock::Clocks,
    report::{Report, millis},
};
use crate::{
    api_client::{Server, encoded, error_message},
    deadline::answered,
    kube_client::api_error,
};
use watch::{Sighting, Stages, TRACE_TIMEOUT, Times, Watch};

/// Containers whose last line is requested.
const MAX_CANDIDATES: usize = 60;

/// Concurrent requests for last lines.
const CONCURRENCY: usize = 8;

/// Containers that are followed, one per app: those that printed last.
const MAX_FOLLOWED: usize = 4;

/// A deployment that prints one line per second.
const CANARY: &str = "kubectl create deployment canary --image=busybox -- sh -c 'while date; do sleep 1; done'";

/// A line that takes longer from the log API to the last stage is too slow.
const MAX_LATENCY: Duration = Duration::from_secs(5);

/// The stages of the trace.
pub(super) struct Canary<'a> {
    pub(super) cluster: &'a Client,
    pub(super) bus: Option<&'a dyn Bus>,
    pub(super) server: Option<&'a Server>,
    pub(super) timeout: Duration,
}

impl Canary<'_> {
    /// Waits for a line, traces it, and reports its times or the stage that it did not reach.
    pub(super) async fn check(&self, report: &mut Report, clocks: &mut Clocks, containers: Vec<Instance>) {
        let chosen = self.printed_last(report, containers).await;
        let (mut sightings, mut stages_by_app) = (Vec::new(), HashMap::new());
        for app in chosen.iter().map(|container| &container.app).collect::<BTreeSet<_>>() {
            let (bus, streamer) = (self.on_bus(report, app).await, self.on_streamer(report, app).await);
            let stages = Stages {
                bus: bus.is_some(),
                streamer: streamer.is_some(),
            };
            stages_by_app.insert(app.clone(), stages);
            sightings.extend(bus.into_iter().chain(streamer));
        }
        let mut followed = HashMap::new();
        for container in chosen {
            match self.follow(&container).await {
                Ok(lines) => {
                    sightings.push(lines);
                    followed.insert(key(&container.app, &container.process), container);
                }
                Err(cause) => report.fail("canary", unreadable(&container, &cause)),
            }
        }
        if followed.is_empty() {
            return;
        }
        let stages = followed
            .iter()
            .map(|(key, container)| (key.clone(), stages_by_app[&container.app]));
        let mut watch = Watch::new(stages.collect(), self.timeout, Instant::now());
        let mut sightings = stream::select_all(sightings);
        while !watch.is_done() {
            match timeout_at(watch.deadline(), sightings.next()).await {
                Ok(Some(sighting)) => watch.record(sighting, Instant::now(), SystemTime::now()),
                Err(_) if watch.choose_late(Instant::now()) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let Some((line, stages, times)) = watch.finish() else {
            let timeout = self.timeout.as_secs();
            report.skip(
                "canary",
                format!("no container printed within {timeout} s; set a longer --timeout, or start one that prints: {CANARY}"),
            );
            return;
        };
        if let Some(container) = followed.get(&line.0) {
            report_trace(report, clocks, container, &line.1, stages, &times);
        }
    }

    /// Returns the containers that printed last, at most one of each app.
    async fn printed_last(&self, report: &mut Report, containers: Vec<Instance>) -> Vec<Instance> {
        let requests = stream::iter(containers.into_iter().take(MAX_CANDIDATES)).map(|container| async {
            let path = format!("{}&tailLines=1", log_path(&container));
            let text = match Request::get(path).body(Vec::new()) {
                Ok(request) => answered(self.cluster.request_text(request)).await,
                Err(error) => return Err((container, error.to_string())),
            };
            match text {
                Ok(Ok(text)) => Ok((Timestamp::split_line(text.as_bytes()).map(|(time, _)| time), container)),
                Ok(Err(error)) => Err((container, api_error(&error))),
                Err(timeout) => Err((container, timeout)),
            }
        });
        let responses: Vec<_> = requests.buffer_unordered(CONCURRENCY).collect().await;
        let mut by_app: BTreeMap<AppName, (Option<Timestamp>, Instance)> = BTreeMap::new();
        let mut failed = None;
        for response in responses {
            match response {
                Ok((time, container)) => {
                    let newest = by_app
                        .entry(container.app.clone())
                        .or_insert_with(|| (time, container.clone()));
                    if newest.0 < time {
                        *newest = (time, container);
                    }
                }
                Err(failure) => failed = Some(failure),
            }
        }
        match failed {
            Some((container, cause)) if by_app.is_empty() => report.fail("canary", unreadable(&container, &cause)),
            Some((container, cause)) => report.warn("canary", unreadable(&container, &cause)),
            None => {}
        }
        let mut all: Vec<_> = by_app.into_values().collect();
        all.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        all.into_iter()
            .take(MAX_FOLLOWED)
            .map(|(_, container)| container)
            .collect()
    }

    /// Follows a container's log with the request of a collector.
    async fn follow(&self, container: &Instance) -> Result<BoxStream<'static, Sighting>, String> {
        let request = Request::get(format!("{}&follow=true&tailLines=0", log_path(container)));
        let request = request.body(Vec::new()).map_err(|error| error.to_string())?;
        let response = answered(self.cluster.request_stream(request)).await?;
        let lines = response.map_err(|error| api_error(&error))?.lines();
        let key = key(&container.app, &container.process);
        Ok(lines
            .filter_map(move |line| {
                let sighting = line.ok().map(|line| Sighting::Api((key.clone(), line)));
                async move { sighting }
            })
            .boxed())
    }

    async fn on_bus(&self, report: &mut Report, app: &AppName) -> Option<BoxStream<'static, Sighting>> {
        let reader = match self.bus?.follow(app, Start::Now).await {
            Ok(reader) => reader,
            Err(BusError::UnknownApp(_)) => {
                report.fail(
                    "canary",
                    format!("the bus has no topic of app {app}, although a container of it runs; check that a collector runs on its node with this --bus"),
                );
                return None;
            }
            Err(error) => {
                report.fail(
                    "canary",
                    format!("cannot read app {app} from the bus: {error}; check the verdict of the bus"),
                );
                return None;
            }
        };
        let items = stream::unfold(reader, async |mut reader| Some((reader.next().await?, reader)));
        let lines = items.flat_map(|item| {
            let sightings = match item {
                Ok(ReaderItem::Delivery(delivery)) => delivered_lines(&delivery),
                _ => Vec::new(),
            };
            stream::iter(sightings)
        });
        Some(lines.boxed())
    }

    async fn on_streamer(&self, report: &mut Report, app: &AppName) -> Option<BoxStream<'static, Sighting>> {
        let server = self.server?;
        let path = format!("/api/apps/{}/logs?num_lines=0", encoded(app.as_str()));
        let request = server
            .request(Method::GET, &path)
            .header(header::ACCEPT, "application/x-ndjson");
        let response = match answered(server.send(request, String::new())).await.flatten() {
            Ok(response) => response,
            Err(cause) => {
                report.fail(
                    "streamer",
                    format!("cannot read app {app}: {cause}; check that the streamer is not overloaded"),
                );
                return None;
            }
        };
        let status = response.status();
        if status != StatusCode::OK {
            let message = error_message(status, response.into_body()).await;
            report_refusal(report, app, status, server.has_key(), &message);
            return None;
        }
        let app = app.clone();
        let frames = response.into_body().into_data_stream().map_err(std::io::Error::other);
        let lines = frames.into_async_read().lines().filter_map(move |line| {
            let sighting = line.ok().and_then(|line| served_line(&app, &line));
            async move { sighting }
        });
        Some(lines.boxed())
    }
}

/// Reports an error response of the streamer.
fn report_refusal(report: &mut Report, app: &AppName, status: StatusCode, has_key: bool, message: &str) {
    match (status, has_key) {
        (StatusCode::UNAUTHORIZED, false) => report.skip(
            "streamer",
            format!("app {app} requires an API key; set one with --key or in ~/.netrc"),
        ),
        (StatusCode::UNAUTHORIZED, true) => report.fail(
            "streamer",
            format!("the API key was rejected: {message}; set a valid one with --key or in ~/.netrc"),
        ),
        (StatusCode::NOT_FOUND, true) => report.fail(
            "streamer",
            format!("app {app} not found, or the API key is for another app: {message}; check that the streamer has this --bus"),
        ),
        (StatusCode::NOT_FOUND, false) => report.fail(
            "streamer",
            format!("app {app} not found: {message}; check that the streamer has this --bus"),
        ),
        _ => report.fail(
            "streamer",
            format!("cannot read app {app}: {message}; check the streamer's log"),
        ),
    }
}

fn report_trace(
    report: &mut Report,
    clocks: &mut Clocks,
    container: &Instance,
    line: &str,
    stages: Stages,
    times: &Times,
) {
    let name = name(container);
    let Some((printed, _)) = Timestamp::split_line(line.as_bytes()) else {
        report.fail(
            "canary",
            format!("the log API returned a line of {name} without a timestamp; check the API server's version"),
        );
        return;
    };
    let printed = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(printed.0).unwrap_or_default());
    clocks.record(
        format!("the node {}", container.node),
        printed,
        (times.api, times.api),
        MAX_LATENCY,
    );
    let passed = [
        ("in the log API", Some(times.api)),
        ("accepted by the bus", times.accepted),
        ("read from the bus", times.bus),
        ("sent by the streamer", times.streamer),
    ];
    let trace = passed.into_iter().filter_map(|(stage, time)| {
        let after = time?.duration_since(printed).unwrap_or_default();
        Some(format!("{stage} after {}", millis(after)))
    });
    let (trace, waited) = (trace.collect::<Vec<_>>().join(", "), TRACE_TIMEOUT.as_secs());
    let last = [times.streamer, times.bus].into_iter().flatten().max();
    let latency = last
        .and_then(|last| last.duration_since(times.api).ok())
        .unwrap_or_default();
    if stages.bus && times.bus.is_none() {
        report.fail(
            "canary",
            format!(
                "a line of {name} did not reach the bus within {waited} s: {trace}; check that a collector runs on {} with this --bus and is ready",
                container.node
            ),
        );
    } else if stages.streamer && times.streamer.is_none() {
        report.fail(
            "canary",
            format!("a line of {name} did not reach the streamer within {waited} s: {trace}; check that the streamer has this --bus and is ready"),
        );
    } else if latency > MAX_LATENCY {
        report.fail(
            "canary",
            format!(
                "a line of {name} took longer than {} s: {trace}; check the load of the slowest stage",
                MAX_LATENCY.as_secs()
            ),
        );
    } else {
        report.ok("canary", format!("a line of {name}: {trace}"));
    }
}

fn unreadable(container: &Instance, cause: &str) -> String {
    format!(
        "cannot read the log of {}: {cause}; check the permissions and the node's kubelet",
        name(container)
    )
}

fn delivered_lines(delivery: &bus::Delivery) -> Vec<Sighting> {
    let Content::Lines { data, .. } = &delivery.batch.content else {
        return Vec::new();
    };
    let key = key(&delivery.batch.metadata.app, &delivery.batch.metadata.process);
    let accepted = SystemTime::UNIX_EPOCH + Duration::from_micros(delivery.published.0);
    let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| Sighting::Bus((key.clone(), String::from_utf8_lossy(line).into_owned()), accepted))
        .collect()
}

/// Parses a line of the streamer and formats it as the log API does.
fn served_line(app: &AppName, line: &str) -> Option<Sighting> {
    let object: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| object[name].as_str();
    Some(Sighting::Streamer((
        key(app, text("process")?),
        format!("{} {}", text("time")?, text("text")?),
    )))
}

fn key(app: &AppName, process: &str) -> String {
    format!("{app} {process}")
}

fn name(container: &Instance) -> String {
    format!("{}/{} on {}", container.app, container.process, container.node)
}

/// Returns the path of the container's log, with timestamps.
fn log_path(container: &Instance) -> String {
    let Instance {
        namespace, pod, key, ..
    } = container;
    let container = encoded(key.container_name());
    format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?timestamps=true&container={container}")
}
