//! Requests recorded from a real API server get the same responses here.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use kubesim::{Cluster, FaultKind, PodPlan, RestartPolicy, Scenario};
use serde_json::Value;
use support::{Reply, cluster, get, open, recording, with_timeout};

const POD: &str = "default";

async fn with_pods() -> Cluster {
    let cluster = cluster(Scenario::default()).await;
    let silent = |name: &str| PodPlan::silent(POD, name, "c");
    for name in ["since", "done", "fchatty"] {
        cluster.create_pod(&silent(name)).unwrap();
    }
    let mut multi = PodPlan::silent(POD, "multi", "init1");
    for name in ["side", "a", "b"] {
        let mut container = multi.containers[0].clone();
        container.name = name.to_owned();
        multi.containers.push(container);
    }
    cluster.create_pod(&multi).unwrap();
    cluster
        .create_pod(&PodPlan {
            node: Some(String::new()),
            ..silent("pend")
        })
        .unwrap();
    let mut image = silent("badimg");
    image.containers[0].waiting = Some("ErrImagePull".to_owned());
    cluster.create_pod(&image).unwrap();
    for (pod, container) in [
        ("since", "c"),
        ("done", "c"),
        ("fchatty", "c"),
        ("multi", "a"),
        ("multi", "b"),
    ] {
        with_timeout(cluster.wait_running(POD, pod, container)).await.unwrap();
    }
    cluster
}

/// Sends a recorded request and asserts the recorded status, headers and body.
async fn assert_replays(cluster: &Cluster, name: &str) -> Reply {
    let recorded = recording(name);
    let own = open(cluster.addr(), &recorded.method, &recorded.target).await;
    let own = if recorded.method == "HEAD" {
        Reply {
            status: own.status,
            headers: own.headers,
            body: String::new(),
            clean: true,
        }
    } else {
        own.finish().await
    };
    assert_eq!(own.status, recorded.reply.status, "{name}: status");
    for header in [
        "content-type",
        "content-length",
        "transfer-encoding",
        "cache-control",
        "retry-after",
    ] {
        if header == "content-length" && numbers_differ(&own, &recorded.reply) {
            continue;
        }
        assert_eq!(own.header(header), recorded.reply.header(header), "{name}: {header}");
    }
    let (own_body, body) = (without_versions(&own.body), without_versions(&recorded.reply.body));
    assert_eq!(own_body.trim_end(), body.trim_end(), "{name}: body");
    own
}

fn numbers_differ(one: &Reply, other: &Reply) -> bool {
    one.body != other.body
}

/// Replaces resource versions, the only part of an error that depends on the run.
fn without_versions(body: &str) -> String {
    let mut body = body.to_owned();
    for begin in ["current: ", "too old resource version: 1 ("] {
        if let Some(at) = body.find(begin) {
            let digits = body[at + begin.len()..]
                .find(|letter: char| !letter.is_ascii_digit())
                .unwrap();
            body.replace_range(at + begin.len()..at + begin.len() + digits, "N");
        }
    }
    body
}

#[tokio::test]
async fn log_errors_match_the_recordings() {
    let cluster = with_pods().await;
    for name in [
        "err-pod-notfound",
        "err-multi-no-container",
        "err-unknown-container",
        "err-previous-none",
        "err-image-pull",
        "err-post",
        "err-method-head",
        "err-pending-unscheduled",
        "since-bad",
        "since-both",
        "sinceseconds-0",
        "sinceseconds-neg",
        "taillines-abc",
        "taillines-neg",
        "limitbytes-0",
        "stream-stdout",
    ] {
        assert_replays(&cluster, name).await;
    }
    let hour = std::time::Duration::from_secs(3600);
    cluster.cause(FaultKind::KubeletDown { duration: hour });
    assert_replays(&cluster, "kubelet-down-log").await;
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn log_parameters_select_the_recorded_lines() {
    let cluster = with_pods().await;
    let first = "2026-11-23T08:08:38.848797176Z L seq=0000000001 rstuvwxyzabcdefghijklm\n\
                 2026-11-23T08:08:38.899804697Z L seq=0000000002 rstuvwxyzabcdefghijklm\n";
    let later = recording("since-subsecond").reply.body;
    for line in first.lines().chain(later.lines().filter(|line| !line.is_empty())) {
        let (time, text) = line.split_once(' ').unwrap();
        cluster
            .write_line_at(POD, "since", "c", time.parse().unwrap(), text)
            .unwrap();
    }
    for name in [
        "since-subsecond",
        "since-future",
        "taillines-0",
        "taillines-3",
        "limitbytes-100",
        "unknown-param",
    ] {
        assert_replays(&cluster, name).await;
    }
    let log = "/api/v1/namespaces/default/pods/since/log?timestamps=true";
    for since in [
        "2026-11-23T08:08:41Z",
        "2026-11-23T08:08:41.999999999Z",
        "2026-11-23T17:08:41%2B09:00",
    ] {
        let reply = get(cluster.addr(), &format!("{log}&sinceTime={since}")).await;
        assert_eq!(reply.body.trim_end(), later.trim_end(), "sinceTime={since}");
    }
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn list_and_watch_errors_match_the_recordings() {
    let cluster = with_pods().await;
    for name in [
        "list-badfield",
        "list-rv-exact-old",
        "list-rv-future",
        "watch-rv-1",
        "watch-rv-bad",
    ] {
        assert_replays(&cluster, name).await;
    }
    let expired = recording("list-continue-expired").reply;
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJkZWZhdWx0L3AxXHUwMDAwIn0";
    let reply = get(cluster.addr(), &format!("/api/v1/pods?limit=1&continue={token}")).await;
    assert_eq!((reply.status, reply.body), (410, expired.body));
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_paged_list_contains_every_pod_once() {
    let cluster = with_pods().await;
    let recorded: Value = serde_json::from_str(&recording("list-limit1").reply.body).unwrap();
    let mut names = Vec::new();
    let mut resume = String::new();
    loop {
        let reply = get(cluster.addr(), &format!("/api/v1/pods?limit=2&continue={resume}")).await;
        let page: Value = serde_json::from_str(&reply.body).unwrap();
        let items = page["items"].as_array().unwrap();
        assert!(items.iter().all(|item| item.get("kind").is_none()));
        names.extend(
            items
                .iter()
                .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        let metadata = page["metadata"].as_object().unwrap();
        if metadata.get("continue").is_none() {
            break;
        }
        assert_eq!(keys(&page["metadata"]), keys(&recorded["metadata"]));
        resume = metadata["continue"].as_str().unwrap().to_owned();
    }
    assert_eq!(names, ["badimg", "done", "fchatty", "multi", "pend", "since"]);
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_streaming_list_ends_with_the_recorded_bookmark() {
    let cluster = with_pods().await;
    let recorded = recording("watch-sendinitial");
    let body = get(cluster.addr(), &recorded.target).await.body;
    let bookmark = |body: &str| {
        let line = body.lines().find(|line| line.contains("BOOKMARK")).unwrap();
        let mut event: Value = serde_json::from_str(line).unwrap();
        event["object"]["metadata"]["resourceVersion"] = Value::Null;
        event
    };
    assert_eq!(bookmark(&body), bookmark(&recorded.reply.body));
    assert!(
        body.lines()
            .take_while(|line| !line.contains("BOOKMARK"))
            .all(|line| line.contains("\"ADDED\""))
    );
    with_timeout(cluster.shutdown()).await;
}

/// Type, phase, state, restarts, and whether there is a last state.
type Shape = (String, String, String, u64, bool);

fn shape(event: &Value) -> Shape {
    let status = &event["object"]["status"];
    let container = &status["containerStatuses"][0];
    let mut state = container["state"]
        .as_object()
        .and_then(|state| state.keys().next().cloned())
        .unwrap_or_default();
    if let Some(reason) = container["state"]["waiting"]["reason"].as_str() {
        state = reason.to_owned();
    }
    (
        event["type"].as_str().unwrap().to_owned(),
        status["phase"].as_str().unwrap_or_default().to_owned(),
        state,
        container["restartCount"].as_u64().unwrap_or_default(),
        container["lastState"].as_object().is_some_and(|last| !last.is_empty()),
    )
}

fn deletion(event: &Value) -> (String, Value, Value, bool) {
    let metadata = &event["object"]["metadata"];
    let grace = metadata["deletionGracePeriodSeconds"]
        .as_u64()
        .map(|seconds| seconds > 0);
    let observed = event["object"]["status"]["observedGeneration"].clone();
    (
        event["type"].as_str().unwrap().to_owned(),
        metadata["generation"].clone(),
        observed,
        grace == Some(true),
    )
}

#[tokio::test]
async fn events_of_a_crashing_pod_have_the_recorded_order() {
    let recorded = recording("watch-lifecycle").reply.body;
    let recorded: Vec<Value> = recorded
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|event: &Value| event["object"]["metadata"]["name"] == "w1")
        .take_while(|event| event["object"]["metadata"]["uid"] == "883786fa-62b3-490b-997f-a7307dca584b")
        .collect();
    let cluster = cluster(Scenario::default()).await;
    let mut watch = open(
        cluster.addr(),
        "GET",
        "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dnode-1",
    )
    .await;
    cluster
        .create_pod(&PodPlan::silent(POD, "w1", "c").restarting(RestartPolicy::Always))
        .unwrap();
    let mut events: Vec<Value> = Vec::new();
    let mut lines = String::new();
    loop {
        lines += &watch.text().await;
        while let Some((line, rest)) = lines.split_once('\n') {
            events.push(serde_json::from_str(line).unwrap());
            lines = rest.to_owned();
            match events.len() {
                4 | 6 => cluster.exit_container(POD, "w1", "c", 3).await.unwrap(),
                8 => cluster.delete_pod(POD, "w1", None).unwrap(),
                _ => {}
            }
        }
        if events.last().is_some_and(|event| event["type"] == "DELETED") {
            break;
        }
    }
    let shapes = |events: &[Value]| events.iter().map(shape).collect::<Vec<_>>();
    assert_eq!(shapes(&events[..8]), shapes(&recorded[..8]));
    let ends = |events: &[Value]| events[events.len() - 5..].iter().map(deletion).collect::<Vec<_>>();
    assert_eq!(ends(&events), ends(&recorded));
    assert_eq!(keys(&events[3]["object"]["status"]), {
        let mut keys = keys(&recorded[3]["object"]["status"]);
        keys.retain(|key| key != "resources");
        keys
    });
    with_timeout(cluster.shutdown()).await;
}

fn keys(object: &Value) -> Vec<String> {
    object.as_object().unwrap().keys().cloned().collect()
}
