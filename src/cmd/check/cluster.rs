//! Checks the Kubernetes API, lists the running containers, and finds apps without a collector.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use bus::AppName;
use collector::{AppFrom, Instance};
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams, client::Body};
use serde_json::Value;

use super::{
    clock::Clocks,
    dns,
    report::{Report, count},
};
use crate::{
    deadline::answered,
    kube_client::{self, api_error},
};

/// Pods per page of a list request.
const PAGE: u32 = 500;

/// A collector finds a container within this time.
const DISCOVERY_TIME: Duration = Duration::from_secs(20);

/// A verdict names at most this many apps.
const MAX_NAMED: usize = 5;

/// Requests the version of the API server. Returns a client if it answers.
pub(super) async fn check(report: &mut Report, clocks: &mut Clocks) -> Option<Client> {
    let client = match kube_client::without_probe().await {
        Ok(client) => client,
        Err(error) => {
            report.fail("cluster", format!("{error:#}"));
            return None;
        }
    };
    match request_version(&client, clocks).await {
        Ok(version) => {
            report.ok("cluster", format!("the Kubernetes API answers, version {version}"));
            Some(client)
        }
        Err(cause) => {
            report.fail(
                "cluster",
                format!(
                    "cannot reach the Kubernetes API: {cause}; {}",
                    dns::advice(&cause, "check KUBECONFIG and that the cluster is up")
                ),
            );
            None
        }
    }
}

async fn request_version(client: &Client, clocks: &mut Clocks) -> Result<String, String> {
    let request = Request::get("/version")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let sent = SystemTime::now();
    let response = answered(client.send(request))
        .await?
        .map_err(|error| causes::innermost(&error))?;
    clocks.record_date("the API server", response.headers(), (sent, SystemTime::now()));
    if !response.status().is_success() {
        return Err(format!("/version returned {}", response.status()));
    }
    let body = answered(response.into_body().collect()).await?;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let version: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let version = version["gitVersion"].as_str();
    version
        .map(str::to_owned)
        .ok_or_else(|| "the response to /version has no gitVersion".to_owned())
}

/// Returns the running containers that collectors read, and reports apps that have no topic.
pub(super) async fn containers(
    report: &mut Report,
    client: &Client,
    app_from: &AppFrom,
    bus: Option<&dyn bus::Bus>,
) -> Vec<Instance> {
    let pods = match list_pods(client).await {
        Ok(pods) => pods,
        Err(cause) => {
            report.fail(
                "pods",
                format!("cannot list pods: {cause}; apply the rules in deploy/base/rbac.yaml"),
            );
            return Vec::new();
        }
    };
    let running: Vec<(Instance, bool)> = pods
        .iter()
        .flat_map(|pod| {
            let is_discovered = is_discovered(pod);
            collector::running_instances(pod, app_from)
                .into_iter()
                .map(move |instance| (instance, is_discovered))
        })
        .collect();
    let apps: BTreeSet<&AppName> = running.iter().map(|(instance, _)| &instance.app).collect();
    let found = format!(
        "{} of {}",
        count(running.len(), "running container"),
        count(apps.len(), "app")
    );
    match bus {
        None => report.ok("pods", found),
        Some(bus) => match bus.apps().await {
            Ok(topics) => report_missing_topics(report, &running, &topics, &found),
            Err(error) => report.fail(
                "pods",
                format!("{found}, but cannot list the topics of the bus: {error}; check the verdict of the bus"),
            ),
        },
    }
    running.into_iter().map(|(instance, _)| instance).collect()
}

/// Reports apps that have no topic although a collector should have found their containers.
fn report_missing_topics(report: &mut Report, running: &[(Instance, bool)], topics: &[AppName], found: &str) {
    let mut missing: BTreeMap<&AppName, BTreeSet<&str>> = BTreeMap::new();
    for (instance, is_discovered) in running {
        if *is_discovered && topics.binary_search(&instance.app).is_err() {
            missing.entry(&instance.app).or_default().insert(&instance.node);
        }
    }
    if missing.is_empty() {
        report.ok("pods", format!("{found}, all apps have a topic"));
        return;
    }
    let named: Vec<String> = missing
        .iter()
        .take(MAX_NAMED)
        .map(|(app, nodes)| format!("{app} (on {})", nodes.iter().copied().collect::<Vec<_>>().join(", ")))
        .collect();
    let more = missing.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    report.fail(
        "pods",
        format!(
            "{found}, but {} without a topic on this bus: {}{more}; check that a collector runs on that node with this --bus",
            count(missing.len(), "app"),
            named.join(", ")
        ),
    );
}

async fn list_pods(client: &Client) -> Result<Vec<Pod>, String> {
    let api: Api<Pod> = Api::all(client.clone());
    let (mut pods, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = answered(api.list(&params)).await?;
        let page = page.map_err(|error| api_error(&error))?;
        pods.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(pods),
        }
    }
}

fn is_discovered(pod: &Pod) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    started.is_some_and(|started| {
        let started = SystemTime::from(started.0);
        started.elapsed().is_ok_and(|age| age > DISCOVERY_TIME)
    })
}
