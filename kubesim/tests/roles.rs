//! Init, sidecar and ephemeral containers in the API.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use kubesim::{Cluster, Scenario};
use serde_json::Value;
use support::{cluster, get, with_timeout};

const POD: &str = "/api/v1/namespaces/a/pods/p";

/// A pod with one container per role.
const POD_WITH_ALL_ROLES: &str = r#"
    [[pods]]
    namespace = "a"
    name = "p"
    [[pods.containers]]
    name = "prepare"
    role = "init"
    lines = 1000000
    text = "preparing"
    [[pods.containers]]
    name = "proxy"
    role = "sidecar"
    profile = "silent"
    [[pods.containers]]
    name = "web"
    profile = "silent"
    [[pods.containers]]
    name = "debugger"
    role = "ephemeral"
    lines = 1
    text = "debugging"
"#;

async fn pod(cluster: &Cluster) -> Value {
    serde_json::from_str(&get(cluster.addr(), POD).await.body).unwrap()
}

/// Returns the pod once the condition holds.
async fn until(cluster: &Cluster, expected: impl Fn(&Value) -> bool) -> Value {
    let condition = async {
        loop {
            let pod = pod(cluster).await;
            if expected(&pod) {
                return pod;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    with_timeout(condition).await
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn main_containers_wait_for_init_containers_and_ephemeral_containers_start_later() {
    let cluster = cluster(Scenario::from_toml(POD_WITH_ALL_ROLES).unwrap()).await;
    with_timeout(cluster.wait_running("a", "p", "prepare")).await.unwrap();
    let waiting = pod(&cluster).await;
    assert_eq!(waiting["status"]["phase"], "Pending");
    assert_eq!(names(&waiting["spec"]["initContainers"]), ["prepare", "proxy"]);
    assert_eq!(names(&waiting["spec"]["containers"]), ["web"]);
    assert_eq!(waiting["spec"]["ephemeralContainers"], Value::Null);
    assert_eq!(
        waiting["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    let early = get(cluster.addr(), &format!("{POD}/log?container=web")).await;
    assert_eq!(early.status, 400);
    let why = r#"container \"web\" in pod \"p\" is waiting to start: PodInitializing"#;
    assert!(early.body.contains(why), "{}", early.body);
    let unnamed = get(cluster.addr(), &format!("{POD}/log")).await;
    assert!(
        unnamed.body.contains("choose one of: [prepare proxy web]"),
        "{}",
        unnamed.body
    );

    with_timeout(cluster.exit_container("a", "p", "prepare", 0))
        .await
        .unwrap();
    let running = until(&cluster, |pod| {
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"].is_object()
    })
    .await;
    assert_eq!(running["status"]["phase"], "Running");
    assert_eq!(names(&running["spec"]["ephemeralContainers"]), ["debugger"]);
    let init = &running["status"]["initContainerStatuses"];
    assert!(init[0]["state"]["terminated"].is_object() && init[1]["state"]["running"].is_object());
    for (container, text) in [("prepare", "preparing\n"), ("debugger", "debugging\n")] {
        let log = get(cluster.addr(), &format!("{POD}/log?container={container}")).await;
        assert!(log.body.starts_with(text), "{container}: {}", log.body);
    }
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_pod_and_its_sidecars_end_with_the_main_containers() {
    let scenario = POD_WITH_ALL_ROLES.replace("name = \"web\"", "name = \"web\"\nrestart = \"Never\"");
    let cluster = cluster(Scenario::from_toml(&scenario.replace("1000000", "1")).unwrap()).await;
    with_timeout(cluster.wait_running("a", "p", "web")).await.unwrap();
    let running = pod(&cluster).await;
    assert_eq!(running["spec"]["initContainers"][1]["restartPolicy"], "Always");
    with_timeout(cluster.exit_container("a", "p", "web", 0)).await.unwrap();
    let ended = until(&cluster, |pod| pod["status"]["phase"] == "Succeeded").await;
    assert!(ended["status"]["initContainerStatuses"][1]["state"]["terminated"].is_object());
    with_timeout(cluster.shutdown()).await;
}
