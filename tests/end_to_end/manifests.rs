//! The manifests in deploy/: every overlay renders, matches the API server's schema, and confines
//! its pods; its services, started with the flags and variables of the manifests, deliver a line.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{collections::HashMap, path::Path};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    demo::has_kubectl,
    emulator::Emulator,
    pypi::Program,
    support::*,
    up::{Cluster, first_tail, writers},
};

pub const OVERLAYS: [&str; 3] = ["gke", "emulator", "files"];

/// Renders an overlay with kubectl.
pub async fn rendered_text(overlay: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/overlays")
        .join(overlay);
    let output = bounded("kubectl", Command::new("kubectl").arg("kustomize").arg(path).output())
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the objects of an overlay.
pub async fn rendered(overlay: &str) -> Vec<Value> {
    rendered_text(overlay)
        .await
        .split("\n---\n")
        .map(|object| serde_saphyr::from_str(object).unwrap())
        .collect()
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// Returns our own workloads, without the emulator's, each with its pod template.
fn workloads(objects: &[Value]) -> impl Iterator<Item = (&str, &Value)> {
    let all = objects
        .iter()
        .filter(|object| object["spec"]["template"]["spec"]["serviceAccountName"].is_string());
    all.map(|object| {
        (
            object["metadata"]["name"].as_str().unwrap(),
            &object["spec"]["template"]["spec"],
        )
    })
}

pub fn strings(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// A container, and the objects that it may refer to.
pub struct Manifest<'a> {
    name: &'a str,
    container: &'a Value,
    objects: &'a [Value],
}

/// Returns the pod template of a service account.
pub fn pod<'a>(objects: &'a [Value], account: &str) -> &'a Value {
    let templates = objects.iter().flat_map(|object| {
        let spec = &object["spec"];
        [
            &spec["template"]["spec"],
            &spec["jobTemplate"]["spec"]["template"]["spec"],
        ]
    });
    let pod = templates.into_iter().find(|pod| pod["serviceAccountName"] == account);
    pod.unwrap()
}

/// Returns the container of a service account's pod.
pub fn container<'a>(objects: &'a [Value], account: &'a str) -> Manifest<'a> {
    Manifest {
        name: account,
        container: &pod(objects, account)["containers"][0],
        objects,
    }
}

/// Returns the flags and environment variables of a container.
pub fn started(
    Manifest {
        name,
        container,
        objects,
    }: Manifest,
) -> (Vec<String>, HashMap<String, String>) {
    let mut env = HashMap::new();
    for from in container["envFrom"].as_array().unwrap() {
        let map = of_kind(objects, "ConfigMap").find(|map| map["metadata"]["name"] == from["configMapRef"]["name"]);
        for (name, value) in map.expect("the ConfigMap of envFrom")["data"].as_object().unwrap() {
            env.insert(name.clone(), value.as_str().unwrap().to_owned());
        }
    }
    for variable in container["env"].as_array().unwrap() {
        if variable["valueFrom"]["secretKeyRef"]["optional"] == true {
            continue;
        }
        let value = variable["value"].as_str().map_or_else(
            || match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap() {
                "spec.nodeName" => "node-1".to_owned(),
                "metadata.name" => format!("{name}-0"),
                "metadata.labels['apps.kubernetes.io/pod-index']" => "0".to_owned(),
                other => panic!("{other}"),
            },
            |value| value.replace("$(POD_INDEX)", "0"),
        );
        env.insert(variable["name"].as_str().unwrap().to_owned(), value);
    }
    (strings(&container["args"]), env)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_overlay_renders_and_its_pods_are_confined() {
    if !has_kubectl().await {
        return;
    }
    for overlay in OVERLAYS {
        let objects = rendered(overlay).await;
        let mut names: Vec<&str> = workloads(&objects).map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["collector", "sinks", "streamer"], "{overlay}");
        for (name, pod) in workloads(&objects) {
            let container = &pod["containers"][0];
            let confined = &container["securityContext"];
            assert_eq!(confined["readOnlyRootFilesystem"], true, "{overlay} {name}");
            assert_eq!(confined["allowPrivilegeEscalation"], false);
            assert_eq!(strings(&confined["capabilities"]["drop"]), ["ALL"]);
            // The collector reads files of root; all others run as another user.
            let is_root = confined["runAsUser"] == 0;
            assert!(is_root == (name == "collector") && (is_root || pod["securityContext"]["runAsNonRoot"] == true));
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert_eq!(container[probe]["httpGet"]["port"], "admin", "{overlay} {name} {probe}");
            }
            assert!(container["resources"]["requests"]["cpu"].is_string());
            assert!(container["resources"]["limits"]["memory"].is_string());
            assert_eq!(container["image"], format!("tributary:{}", env!("CARGO_PKG_VERSION")));
            assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= 30);
            let account = of_kind(&objects, "ServiceAccount")
                .find(|account| account["metadata"]["name"] == pod["serviceAccountName"]);
            assert!(account.is_some(), "{overlay} {name}");
        }
        // Selectors of disruption budgets and Services match a pod template.
        for kind in ["PodDisruptionBudget", "Service"] {
            for object in of_kind(&objects, kind) {
                let selector = &object["spec"]["selector"];
                let selector = if kind == "Service" {
                    selector
                } else {
                    &selector["matchLabels"]
                };
                let chosen = objects
                    .iter()
                    .any(|other| other["spec"]["template"]["metadata"]["labels"] == *selector);
                assert!(chosen, "{overlay} {kind} {}", object["metadata"]["name"]);
            }
        }
        let replicas = of_kind(&objects, "StatefulSet").next().unwrap()["spec"]["replicas"].clone();
        let (_, env) = started(container(&objects, "sinks"));
        assert_eq!(
            env["TRIBUTARY_REPLICA"],
            format!("0/{replicas}"),
            "{overlay}: the number of replicas"
        );
    }
}

/// Validates manifests against the schemas of Kubernetes releases.
static KUBERNETES_VALIDATE: Program = Program::new(
    "kubernetes-validate==1.37.0",
    "kubernetes-validate",
    "TRIBUTARY_REQUIRE_KUBERNETES_VALIDATE",
);

/// The oldest supported release (`apps.kubernetes.io/pod-index`), and the newest known one.
const RELEASES: [&str; 2] = ["1.28", "1.37"];

#[tokio::test(flavor = "multi_thread")]
async fn every_overlay_matches_the_schemas_of_old_and_new_releases() {
    if !has_kubectl().await {
        return;
    }
    let Some(validate) = KUBERNETES_VALIDATE.installed().await else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let check = async |name: &str, text: &str, release: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let checked = Command::new(validate)
            .args(["--strict", "--quiet", "-k", release])
            .arg(file)
            .output();
        let checked = bounded("kubernetes-validate", checked).await.unwrap();
        (checked.status.success(), String::from_utf8(checked.stdout).unwrap())
    };
    for release in RELEASES {
        for overlay in OVERLAYS {
            let (valid, output) = check(overlay, &rendered_text(overlay).await, release).await;
            assert!(valid, "{overlay} for {release}: {output}");
        }
        // The validator detects a wrong field.
        let wrong = rendered_text("gke")
            .await
            .replace("terminationGracePeriodSeconds", "terminationGracePeriod");
        assert!(!check("wrong", &wrong, release).await.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_accepts_the_flags_and_variables_of_every_overlay() {
    if !has_kubectl().await {
        return;
    }
    for overlay in OVERLAYS {
        let objects = rendered(overlay).await;
        for name in ["collector", "streamer", "sinks"] {
            let (args, mut env) = started(container(&objects, name));
            // The only error is the missing kubeconfig.
            env.insert("KUBECONFIG".to_owned(), "/none-such".to_owned());
            let args: Vec<String> = args
                .iter()
                .map(|arg| {
                    arg.replace("0.0.0.0:8080", "127.0.0.1:0")
                        .replace("0.0.0.0:", "127.0.0.1:")
                })
                .collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let env: Vec<(&str, &str)> = env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let ended = run(&args, &env).await;
            let output = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(1), "{overlay} {name}: {output}");
            assert!(output.contains("KUBECONFIG"), "{overlay} {name}: {output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_the_emulator_overlay_deliver_a_line() {
    if !has_kubectl().await {
        return;
    }
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&writers(1, 1_000_000, 50)).await;
    let objects = rendered("emulator").await;
    let data = cluster.dir.path().join("data").display().to_string();
    let start = |name: &'static str| {
        let (mut args, mut env) = started(container(&objects, name));
        for arg in &mut args {
            // Free ports on loopback, and a temporary data directory.
            if arg.starts_with("0.0.0.0:") {
                "127.0.0.1:0".clone_into(arg);
            } else if arg == "/var/lib/tributary" {
                arg.clone_from(&data);
            }
        }
        assert_eq!(
            env.insert("PUBSUB_EMULATOR_HOST".to_owned(), emulator.host().to_owned())
                .as_deref(),
            Some("pubsub-emulator:8085")
        );
        env.insert("KUBECONFIG".to_owned(), cluster.kubeconfig.clone());
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let env: Vec<(&str, &str)> = env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            Tributary::start(&args, &env).await
        }
    };
    let (collector, streamer, sinks) = (start("collector").await, start("streamer").await, start("sinks").await);
    let mut tail = first_tail(&streamer).await;
    assert!(tail.line().await.unwrap().contains("]: line "));
    drop(tail);
    for service in [collector, streamer, sinks] {
        service.terminate().await;
    }
    cluster.stop().await;
    emulator.stop().await;
}
