//! The way of one line: from a container that prints it, through the log API, the bus and the streamer, with its time at each.

mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use bus::{AppName, Bus, BusError, Content, Item, Start, Timestamp};
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
    api_client::{self as server, Server, encoded},
    deadline::answered,
    kube_client::refusal,
};
use watch::{Seen, Times, WAY, Wanted, Watch};

/// Containers that are asked for their last line.
const ASKED: usize = 60;

/// How many at once.
const AT_ONCE: usize = 8;

/// Containers, of as many apps at most, that are listened to: those that printed last.
const LISTENED: usize = 4;

/// What prints a line a second, where nothing else does.
const PRINTS: &str = "kubectl create deployment canary --image=busybox -- sh -c 'while date; do sleep 1; done'";

/// Longer, from the log API on, is a fault.
const SLOW: Duration = Duration::from_secs(5);

/// Where lines are looked for.
pub(super) struct Way<'a> {
    pub(super) cluster: &'a Client,
    pub(super) bus: Option<&'a dyn Bus>,
    pub(super) server: Option<&'a Server>,
    pub(super) wait: Duration,
}

impl Way<'_> {
    /// Waits for a line, follows it, and tells its times, or where it did not come.
    pub(super) async fn look(&self, report: &mut Report, clocks: &mut Clocks, containers: Vec<Instance>) {
        let chosen = self.printed_last(report, containers).await;
        let (mut places, mut wanted) = (Vec::new(), HashMap::new());
        for app in chosen.iter().map(|container| &container.app).collect::<BTreeSet<_>>() {
            let (bus, streamer) = (self.on_bus(report, app).await, self.on_streamer(report, app).await);
            let is_wanted = Wanted {
                bus: bus.is_some(),
                streamer: streamer.is_some(),
            };
            wanted.insert(app.clone(), is_wanted);
            places.extend(bus.into_iter().chain(streamer));
        }
        let mut followed = HashMap::new();
        for container in chosen {
            match self.follow(&container).await {
                Ok(lines) => {
                    places.push(lines);
                    followed.insert(key(&container.app, &container.process), container);
                }
                Err(why) => report.fault(
                    "canary",
                    format!("the log of {} cannot be read: {why}", name(&container)),
                ),
            }
        }
        if followed.is_empty() {
            return;
        }
        let wanted = followed
            .iter()
            .map(|(key, container)| (key.clone(), wanted[&container.app]));
        let mut watch = Watch::new(wanted.collect(), self.wait, Instant::now());
        let mut places = stream::select_all(places);
        while !watch.is_done() {
            match timeout_at(watch.until(), places.next()).await {
                Ok(Some(seen)) => watch.saw(seen, Instant::now(), SystemTime::now()),
                Err(_) if watch.overdue(Instant::now()) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let Some((line, wanted, times)) = watch.end() else {
            let waited = self.wait.as_secs();
            report.unchecked(
                "canary",
                format!("no container printed within {waited} s (one that does: {PRINTS})"),
            );
            return;
        };
        if let Some(container) = followed.get(&line.0) {
            tell(report, clocks, container, &line.1, wanted, &times);
        }
    }

    /// The containers that printed last, no two of one app where others are there.
    async fn printed_last(&self, report: &mut Report, containers: Vec<Instance>) -> Vec<Instance> {
        let asked = stream::iter(containers.into_iter().take(ASKED)).map(|container| async {
            let path = format!("{}&tailLines=1", path(&container));
            let text = match Request::get(path).body(Vec::new()) {
                Ok(request) => answered(self.cluster.request_text(request)).await,
                Err(error) => return Err((container, error.to_string())),
            };
            match text {
                Ok(Ok(text)) => Ok((Timestamp::split_line(text.as_bytes()).map(|(time, _)| time), container)),
                Ok(Err(error)) => Err((container, refusal(&error))),
                Err(why) => Err((container, why)),
            }
        });
        let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
        let mut by_app: BTreeMap<AppName, (Option<Timestamp>, Instance)> = BTreeMap::new();
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok((time, container)) => {
                    let newest = by_app
                        .entry(container.app.clone())
                        .or_insert_with(|| (time, container.clone()));
                    if newest.0 < time {
                        *newest = (time, container);
                    }
                }
                Err(refused) => failed = Some(refused),
            }
        }
        if let Some((container, why)) = failed.filter(|_| by_app.is_empty()) {
            report.fault(
                "canary",
                format!("the log of {} cannot be read: {why}", name(&container)),
            );
        }
        let mut all: Vec<_> = by_app.into_values().collect();
        all.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        all.into_iter().take(LISTENED).map(|(_, container)| container).collect()
    }

    /// What the container prints from now on, asked as a collector asks.
    async fn follow(&self, container: &Instance) -> Result<BoxStream<'static, Seen>, String> {
        let request = Request::get(format!("{}&follow=true&tailLines=0", path(container)));
        let request = request.body(Vec::new()).map_err(|error| error.to_string())?;
        let answer = answered(self.cluster.request_stream(request)).await?;
        let lines = answer.map_err(|error| refusal(&error))?.lines();
        let who = key(&container.app, &container.process);
        Ok(lines
            .filter_map(move |line| {
                let seen = line.ok().map(|line| Seen::Api((who.clone(), line)));
                async move { seen }
            })
            .boxed())
    }

    async fn on_bus(&self, report: &mut Report, app: &AppName) -> Option<BoxStream<'static, Seen>> {
        let reader = match self.bus?.follow(app, Start::Now).await {
            Ok(reader) => reader,
            Err(BusError::UnknownApp(_)) => {
                report.fault(
                    "canary",
                    format!("the bus has no topic of {app}, a container of which runs: is a collector running on its node, and is its --bus this one?"),
                );
                return None;
            }
            Err(error) => {
                report.fault("canary", format!("{app} cannot be read from the bus: {error}"));
                return None;
            }
        };
        let items = stream::unfold(reader, async |mut reader| Some((reader.next().await?, reader)));
        let lines = items.flat_map(|item| {
            let seen = match item {
                Ok(Item::Delivery(delivery)) => lines(&delivery),
                _ => Vec::new(),
            };
            stream::iter(seen)
        });
        Some(lines.boxed())
    }

    async fn on_streamer(&self, report: &mut Report, app: &AppName) -> Option<BoxStream<'static, Seen>> {
        let server = self.server?;
        let path = format!("/api/apps/{}/logs?num_lines=0", encoded(app.as_str()));
        let request = server
            .request(Method::GET, &path)
            .header(header::ACCEPT, "application/x-ndjson");
        let answer = match answered(server.send(request, String::new())).await.flatten() {
            Ok(answer) => answer,
            Err(why) => {
                report.fault("streamer", format!("{app} cannot be read: {why}"));
                return None;
            }
        };
        let status = answer.status();
        if status != StatusCode::OK {
            let said = server::refusal(status, answer.into_body()).await;
            match (status, server.has_key()) {
                (StatusCode::UNAUTHORIZED, false) => {
                    report.unchecked(
                        "streamer",
                        format!("{app}: a key is asked for: give one that may read it (--key, or netrc)"),
                    );
                }
                (StatusCode::UNAUTHORIZED, true) => report.fault("streamer", format!("the key is refused: {said}")),
                (StatusCode::NOT_FOUND, true) => report.fault(
                    "streamer",
                    format!("it does not know {app}, or the key is for another app: {said} (is its --bus this one?)"),
                ),
                (StatusCode::NOT_FOUND, false) => {
                    report.fault(
                        "streamer",
                        format!("it does not know {app}: {said} (is its --bus this one?)"),
                    );
                }
                _ => report.fault("streamer", format!("{app} cannot be read: {said}")),
            }
            return None;
        }
        let app = app.clone();
        let frames = answer.into_body().into_data_stream().map_err(std::io::Error::other);
        let lines = frames.into_async_read().lines().filter_map(move |line| {
            let seen = line.ok().and_then(|line| served(&app, &line));
            async move { seen }
        });
        Some(lines.boxed())
    }
}

fn tell(report: &mut Report, clocks: &mut Clocks, container: &Instance, line: &str, wanted: Wanted, times: &Times) {
    let who = name(container);
    let Some((printed, _)) = Timestamp::split_line(line.as_bytes()) else {
        report.fault("canary", format!("{who}: what the log API shows has no time"));
        return;
    };
    let printed = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(printed.0).unwrap_or_default());
    clocks.heard(
        format!("the node {}", container.node),
        printed,
        (times.api, times.api),
        SLOW,
    );
    let hops = [
        ("the log API", Some(times.api)),
        ("accepted by the bus", times.accepted),
        ("read from it", times.bus),
        ("the streamer", times.streamer),
    ];
    let told = hops.into_iter().filter_map(|(place, time)| {
        let after = time?.duration_since(printed).unwrap_or_default();
        Some(format!("{place} after {}", millis(after)))
    });
    let (way, waited) = (told.collect::<Vec<_>>().join(", "), WAY.as_secs());
    let last = [times.streamer, times.bus].into_iter().flatten().max();
    let took = last
        .and_then(|last| last.duration_since(times.api).ok())
        .unwrap_or_default();
    if wanted.bus && times.bus.is_none() {
        let ask = format!(
            "is a collector running on {}, is it ready, and is its --bus this one?",
            container.node
        );
        report.fault(
            "canary",
            format!("a line of {who} did not reach the bus within {waited} s: {way} ({ask})"),
        );
    } else if wanted.streamer && times.streamer.is_none() {
        let ask = "is its --bus this one, and is it ready?";
        report.fault(
            "canary",
            format!("a line of {who} did not reach the streamer within {waited} s: {way} ({ask})"),
        );
    } else if took > SLOW {
        report.fault("canary", format!("a line of {who} is slow: {way}"));
    } else {
        report.ok("canary", format!("a line of {who}: {way}"));
    }
}

fn lines(delivery: &bus::Delivery) -> Vec<Seen> {
    let Content::Lines { data, .. } = &delivery.batch.content else {
        return Vec::new();
    };
    let who = key(&delivery.batch.metadata.app, &delivery.batch.metadata.process);
    let accepted = SystemTime::UNIX_EPOCH + Duration::from_micros(delivery.published.0);
    let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| Seen::Bus((who.clone(), String::from_utf8_lossy(line).into_owned()), accepted))
        .collect()
}

/// A line of the streamer's, as the log API prints it.
fn served(app: &AppName, line: &str) -> Option<Seen> {
    let object: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| object[name].as_str();
    Some(Seen::Streamer((
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

/// The container's log, with times.
fn path(container: &Instance) -> String {
    let Instance {
        namespace, pod, key, ..
    } = container;
    let container = encoded(key.container_name());
    format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?timestamps=true&container={container}")
}
