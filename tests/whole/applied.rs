//! The manifests, applied: to a simulated API; and to that of a cluster of one's own, which KUBECONFIG names: it is asked whether it would take them. With
//! TRIBUTARY_TEST_APPLY=1 it does take the overlay `emulator`, with the image imported before, for as long as the test runs.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    api::{Api, kubectl},
    demo::has_kubectl,
    manifests::{OVERLAYS, rendered},
};

/// Says that the cluster may be written to.
const APPLY: &str = "TRIBUTARY_TEST_APPLY";

/// An image is pulled, an emulator starts.
const ROLLOUT: &str = "--timeout=300s";

/// The namespace of the app that is read.
const APP: &str = "tributary-test";

/// Each wait's bound: above what kubectl itself waits for.
const BOUND: Duration = Duration::from_secs(330);

/// The cluster that the caller named. `None`, and a line on stderr, where there is none.
fn kubeconfig() -> Option<String> {
    let named = std::env::var("KUBECONFIG").ok().filter(|named| !named.is_empty());
    if named.is_none() {
        eprintln!("skipped: KUBECONFIG names no cluster");
    }
    named.map(|path| std::fs::read_to_string(path).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_overlay_is_applied_and_applied_again_nothing_changes() {
    if !has_kubectl().await {
        return;
    }
    for overlay in OVERLAYS {
        let objects = rendered(overlay).await;
        let all: Vec<&Value> = objects.iter().collect();
        let api = Api::start(&objects).await;
        for (said, times) in [
            (" created", api.apply(&all).await),
            (" unchanged", api.apply(&all).await),
        ] {
            // A namespace is its name here; and of a budget kubectl always sends the selector again.
            let told = |line: &&str| line.contains(".k8s.io/") || line.contains("apps/") || line.starts_with("service");
            let lines: Vec<&str> = times.lines().filter(told).collect();
            assert!(
                lines.len() > 15 && lines.iter().all(|line| line.ends_with(said)),
                "{overlay}: {times}"
            );
        }
        for (account, may, may_not) in ACCOUNTS {
            answers(&api.kubeconfig("admin"), account, may, true).await;
            answers(&api.kubeconfig("admin"), account, may_not, false).await;
        }
        api.cluster.shutdown().await;
    }
}

/// What an API says of whether an account may do that: a verb, a resource, and a namespace or `-A`.
async fn answers(kubeconfig: &str, account: &str, actions: &[&str], answer: bool) {
    for action in actions {
        let words: Vec<&str> = action.split(' ').collect();
        let (resource, subresource) = words[1].split_once('/').unwrap_or((words[1], ""));
        let namespace = words[2].strip_prefix("-A").unwrap_or(words[2]);
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:tributary:{account}"),
                "resourceAttributes": {"verb": words[0], "resource": resource, "subresource": subresource, "namespace": namespace},
            },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let (asked, said) = kubectl(kubeconfig, &["create", "--raw", path, "-f", "-"], &review.to_string()).await;
        assert!(asked, "{said}");
        let review: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            review["status"]["allowed"] == true,
            answer,
            "{account} {action}: {said}"
        );
    }
}

#[tokio::test]
async fn its_api_server_would_take_every_overlay() {
    let Some(kubeconfig) = kubeconfig() else { return };
    for overlay in OVERLAYS {
        let mut objects = rendered(overlay).await;
        // A namespace that is not made cannot hold anything, so this asks for one that there is.
        objects.retain(|object| object["kind"] != "Namespace");
        for object in &mut objects {
            if object["metadata"]["namespace"].is_string() {
                object["metadata"]["namespace"] = "default".into();
            }
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let (taken, said) = kubectl(
            &kubeconfig,
            &["apply", "--dry-run=server", "--validate=strict", "-f", "-"],
            &list,
        )
        .await;
        assert!(taken && !said.contains("Warning"), "{overlay}: {said}");
    }
}

/// What an account may do, and some of what it may not.
const ACCOUNTS: [(&str, &[&str], &[&str]); 4] = [
    (
        "collector",
        &["list pods -A", "watch pods -A", "get pods/log -A"],
        &["delete pods -A", "get secrets tributary", "create pods -A"],
    ),
    (
        "streamer",
        &["get secrets tributary", "delete secrets tributary"],
        &["get secrets default", "list pods -A", "get pods/log -A"],
    ),
    (
        "sinks",
        &["get secrets tributary", "update secrets tributary"],
        &["delete secrets tributary", "list pods -A"],
    ),
    (
        "check",
        &["list pods -A", "get pods/log -A", "get secrets tributary"],
        &["update secrets tributary", "watch pods -A", "delete pods -A"],
    ),
];

#[tokio::test]
async fn it_runs_the_overlay_emulator_and_a_line_of_an_app_comes_through_the_service() {
    if std::env::var_os(APPLY).is_none_or(|value| value != "1") {
        eprintln!("skipped: {APPLY}=1 does not allow to write to a cluster");
        return;
    }
    let Some(kubeconfig) = kubeconfig() else { return };
    let asked = async |args: &str| kubectl(&kubeconfig, &args.split_whitespace().collect::<Vec<_>>(), "").await;
    let done = async |args: &str| {
        let (went_well, said) = asked(args).await;
        assert!(went_well, "kubectl {args}: {said}");
        said
    };
    let overlay = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/overlays/emulator");
    done(&format!("apply -k {overlay}")).await;
    for (account, may, may_not) in ACCOUNTS {
        answers(&kubeconfig, account, may, true).await;
        answers(&kubeconfig, account, may_not, false).await;
    }
    for workload in [
        "deployment/pubsub-emulator",
        "daemonset/collector",
        "deployment/streamer",
        "statefulset/sinks",
    ] {
        done(&format!("-n tributary rollout status {workload} {ROLLOUT}")).await;
    }
    // An app that says something: the one image that is surely there.
    done(&format!("create namespace {APP}")).await;
    let image = format!("tributary:{}", env!("CARGO_PKG_VERSION"));
    done(&format!(
        "-n {APP} run canary --image={image} --image-pull-policy=IfNotPresent -- kubesim"
    ))
    .await;
    let path = format!(
        "/api/v1/namespaces/tributary/services/streamer:http/proxy/api/apps/{APP}/logs?num_lines=10&follow=false"
    );
    let read = async {
        while !asked(&format!("get --raw {path}"))
            .await
            .1
            .contains(&format!("{APP}[canary]: listening on"))
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(BOUND, read).await.expect("a line of the app");
    done("-n tributary create job check-by-test --from=cronjob/check").await;
    let (good, said) = asked(&format!(
        "-n tributary wait --for=condition=complete job/check-by-test {ROLLOUT}"
    ))
    .await;
    assert!(good, "{said}: {}", asked("-n tributary logs job/check-by-test").await.1);
    done(&format!("delete namespace {APP} {ROLLOUT}")).await;
    done(&format!("delete -k {overlay} {ROLLOUT}")).await;
}
