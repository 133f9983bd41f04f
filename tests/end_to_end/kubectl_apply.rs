//! Applies the manifests to a simulated API, and with `--dry-run=server` to the cluster of
//! KUBECONFIG. With TRIBUTARY_TEST_APPLY=1 that cluster runs the overlay `emulator` during the
//! test; the image must be imported before.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    demo::has_kubectl,
    kubernetes_api::{Api, kubectl},
    manifests::{OVERLAYS, rendered},
};

/// Allows the tests to write to the cluster.
const APPLY: &str = "TRIBUTARY_TEST_APPLY";

/// Timeout of a rollout: an image is pulled and an emulator starts.
const ROLLOUT: &str = "--timeout=300s";

/// Namespace of the app under test.
const APP: &str = "tributary-test";

/// Bound of every wait, above kubectl's own timeout.
const BOUND: Duration = Duration::from_secs(330);

/// Returns the kubeconfig of KUBECONFIG; `None`, with a line on stderr, if it is not set.
fn kubeconfig() -> Option<String> {
    let named = std::env::var("KUBECONFIG").ok().filter(|named| !named.is_empty());
    if named.is_none() {
        eprintln!("skipped: KUBECONFIG is not set");
    }
    named.map(|path| std::fs::read_to_string(path).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_overlay_applies_and_a_second_apply_changes_nothing() {
    if !has_kubectl().await {
        return;
    }
    for overlay in OVERLAYS {
        let objects = rendered(overlay).await;
        let all: Vec<&Value> = objects.iter().collect();
        let api = Api::start(&objects).await;
        for (result, output) in [
            (" created", api.apply(&all).await),
            (" unchanged", api.apply(&all).await),
        ] {
            // kubectl reports namespaces and disruption budgets as changed on every apply.
            let counted =
                |line: &&str| line.contains(".k8s.io/") || line.contains("apps/") || line.starts_with("service");
            let lines: Vec<&str> = output.lines().filter(counted).collect();
            assert!(
                lines.len() > 15 && lines.iter().all(|line| line.ends_with(result)),
                "{overlay}: {output}"
            );
        }
        for (account, may, may_not) in ACCOUNTS {
            assert_access(&api.kubeconfig("admin"), account, may, true).await;
            assert_access(&api.kubeconfig("admin"), account, may_not, false).await;
        }
        api.cluster.shutdown().await;
    }
}

/// Asserts the answers of access reviews. An action is a verb, a resource, and a namespace or `-A`.
async fn assert_access(kubeconfig: &str, account: &str, actions: &[&str], allowed: bool) {
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
        let (created, output) = kubectl(kubeconfig, &["create", "--raw", path, "-f", "-"], &review.to_string()).await;
        assert!(created, "{output}");
        let review: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(
            review["status"]["allowed"] == true,
            allowed,
            "{account} {action}: {output}"
        );
    }
}

#[tokio::test]
async fn the_api_server_of_kubeconfig_accepts_every_overlay() {
    let Some(kubeconfig) = kubeconfig() else { return };
    for overlay in OVERLAYS {
        let mut objects = rendered(overlay).await;
        // A dry run creates no namespace, so the objects move to one that exists.
        objects.retain(|object| object["kind"] != "Namespace");
        for object in &mut objects {
            if object["metadata"]["namespace"].is_string() {
                object["metadata"]["namespace"] = "default".into();
            }
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let (accepted, output) = kubectl(
            &kubeconfig,
            &["apply", "--dry-run=server", "--validate=strict", "-f", "-"],
            &list,
        )
        .await;
        assert!(accepted && !output.contains("Warning"), "{overlay}: {output}");
    }
}

/// Actions that an account may do, and some that it may not.
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
async fn the_cluster_of_kubeconfig_runs_the_emulator_overlay_and_serves_a_line() {
    if std::env::var_os(APPLY).is_none_or(|value| value != "1") {
        eprintln!("skipped: {APPLY}=1 is not set");
        return;
    }
    let Some(kubeconfig) = kubeconfig() else { return };
    let run = async |args: &str| kubectl(&kubeconfig, &args.split_whitespace().collect::<Vec<_>>(), "").await;
    let succeed = async |args: &str| {
        let (succeeded, output) = run(args).await;
        assert!(succeeded, "kubectl {args}: {output}");
        output
    };
    let overlay = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/overlays/emulator");
    succeed(&format!("apply -k {overlay}")).await;
    for (account, may, may_not) in ACCOUNTS {
        assert_access(&kubeconfig, account, may, true).await;
        assert_access(&kubeconfig, account, may_not, false).await;
    }
    for workload in [
        "deployment/pubsub-emulator",
        "daemonset/collector",
        "deployment/streamer",
        "statefulset/sinks",
    ] {
        succeed(&format!("-n tributary rollout status {workload} {ROLLOUT}")).await;
    }
    // An app that prints, from the one image that the cluster has.
    succeed(&format!("create namespace {APP}")).await;
    let image = format!("tributary:{}", env!("CARGO_PKG_VERSION"));
    succeed(&format!(
        "-n {APP} run canary --image={image} --image-pull-policy=IfNotPresent -- kubesim"
    ))
    .await;
    let path = format!(
        "/api/v1/namespaces/tributary/services/streamer:http/proxy/api/apps/{APP}/logs?num_lines=10&follow=false"
    );
    let read = async {
        while !run(&format!("get --raw {path}"))
            .await
            .1
            .contains(&format!("{APP}[canary]: listening on"))
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(BOUND, read).await.expect("a line of the app");
    succeed("-n tributary create job check-by-test --from=cronjob/check").await;
    let (completed, output) = run(&format!(
        "-n tributary wait --for=condition=complete job/check-by-test {ROLLOUT}"
    ))
    .await;
    assert!(
        completed,
        "{output}: {}",
        run("-n tributary logs job/check-by-test").await.1
    );
    succeed(&format!("delete namespace {APP} {ROLLOUT}")).await;
    succeed(&format!("delete -k {overlay} {ROLLOUT}")).await;
}
