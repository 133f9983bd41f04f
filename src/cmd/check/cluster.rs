//! Whether the Kubernetes API answers, which containers there are, and whether each has a collector.

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
    report::{Report, count},
};
use crate::{
    deadline::answered,
    kube_client::{self as client, innermost, refusal},
};

/// Pods of a page.
const PAGE: u32 = 500;

/// A container that runs for so long has been seen by its collector.
const SEEN_AFTER: Duration = Duration::from_secs(20);

/// Of a long list, so many are named.
const NAMED: usize = 5;

/// Asks the API for its version.
pub(super) async fn look(report: &mut Report, clocks: &mut Clocks) -> Option<Client> {
    let client = match client::unasked().await {
        Ok(client) => client,
        Err(error) => {
            report.fault("cluster", format!("{error:#}"));
            return None;
        }
    };
    match asked(&client, clocks).await {
        Ok(version) => {
            report.ok("cluster", format!("the Kubernetes API answers, {version}"));
            Some(client)
        }
        Err(why) => {
            report.fault(
                "cluster",
                format!("the Kubernetes API does not answer: {why} (KUBECONFIG names another)"),
            );
            None
        }
    }
}

async fn asked(client: &Client, clocks: &mut Clocks) -> Result<String, String> {
    let request = Request::get("/version")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let asked = SystemTime::now();
    let answer = answered(client.send(request))
        .await?
        .map_err(|error| innermost(&error))?;
    clocks.heard_date("the API server", answer.headers(), (asked, SystemTime::now()));
    if !answer.status().is_success() {
        return Err(format!("it answers {} to a question for its version", answer.status()));
    }
    let body = answered(answer.into_body().collect()).await?;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let version: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let version = version["gitVersion"].as_str();
    version
        .map(str::to_owned)
        .ok_or_else(|| "what it says of its version is none".to_owned())
}

/// The containers that run and are collected. Of which no line can have come, that is told: where their app has no topic.
pub(super) async fn containers(
    report: &mut Report,
    client: &Client,
    app_from: &AppFrom,
    bus: Option<&dyn bus::Bus>,
) -> Vec<Instance> {
    let pods = match pods(client).await {
        Ok(pods) => pods,
        Err(why) => {
            report.fault(
                "pods",
                format!("they cannot be listed: {why} (deploy/base/rbac.yaml has the rules)"),
            );
            return Vec::new();
        }
    };
    let running: Vec<(Instance, bool)> = pods
        .iter()
        .flat_map(|pod| {
            let is_old = is_old(pod);
            collector::collected(pod, app_from)
                .into_iter()
                .map(move |instance| (instance, is_old))
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
            Ok(known) => tell_unread(report, &running, &known, &found),
            Err(error) => report.fault(
                "pods",
                format!("{found}, but the bus does not tell its topics: {error}"),
            ),
        },
    }
    running.into_iter().map(|(instance, _)| instance).collect()
}

/// Which apps have no topic, though their containers have run for a while.
fn tell_unread(report: &mut Report, running: &[(Instance, bool)], known: &[AppName], found: &str) {
    let mut unread: BTreeMap<&AppName, BTreeSet<&str>> = BTreeMap::new();
    for (instance, is_old) in running {
        if *is_old && known.binary_search(&instance.app).is_err() {
            unread.entry(&instance.app).or_default().insert(&instance.node);
        }
    }
    if unread.is_empty() {
        report.ok("pods", format!("{found}, none without a topic"));
        return;
    }
    let named: Vec<String> = unread
        .iter()
        .take(NAMED)
        .map(|(app, nodes)| format!("{app} (on {})", nodes.iter().copied().collect::<Vec<_>>().join(", ")))
        .collect();
    let more = unread.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    report.fault(
        "pods",
        format!(
            "{found}, but {} without a topic on this bus: {}{more} (is a collector running on that node, and is its --bus this one?)",
            count(unread.len(), "app"),
            named.join(", ")
        ),
    );
}

async fn pods(client: &Client) -> Result<Vec<Pod>, String> {
    let api: Api<Pod> = Api::all(client.clone());
    let (mut pods, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = answered(api.list(&params)).await?;
        let page = page.map_err(|error| refusal(&error))?;
        pods.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(pods),
        }
    }
}

fn is_old(pod: &Pod) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    started.is_some_and(|started| {
        let started = SystemTime::from(started.0);
        started.elapsed().is_ok_and(|age| age > SEEN_AFTER)
    })
}
