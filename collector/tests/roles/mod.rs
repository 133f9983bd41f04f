//! Init, sidecar, main and ephemeral containers: each has a complete stream with both sources.

use std::collections::BTreeMap;

use kubesim::{PodPlan, RestartPolicy, Scenario};

use crate::support::{Harness, StreamRead, in_time};

/// Each container prints ten numbered lines.
const PARTS: &str = r#"
    [[pods]]
    namespace = "app"
    name = "p"
    [[pods.containers]]
    name = "first"
    role = "init"
    lines = 10
    rate = 50
    [[pods.containers]]
    name = "beside"
    role = "sidecar"
    profile = "silent"
    [[pods.containers]]
    name = "second"
    role = "init"
    lines = 10
    rate = 0
    [[pods.containers]]
    name = "web"
    lines = 10
    rate = 4
    [[pods.containers]]
    name = "worker"
    lines = 10
    rate = 0
    [[pods.containers]]
    name = "debugger"
    role = "ephemeral"
    after = "200ms"
    lines = 10
    rate = 0
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_every_role_are_read_through_the_api() {
    every_container(Harness::playing(Scenario::from_toml(PARTS).unwrap()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_every_role_are_read_from_files() {
    every_container(Harness::with_files(Scenario::from_toml(PARTS).unwrap()).await).await;
}

async fn every_container(harness: Harness) {
    let collector = harness.collect().await;
    in_time(harness.cluster.wait_running("app", "p", "beside"))
        .await
        .unwrap();
    let texts = (0..10).map(|n| format!("line {n}"));
    harness.cluster.write_lines("app", "p", "beside", texts).unwrap();
    // The sidecar ends after the main containers.
    let streams = harness.wait_for_ended(6).await;
    let by_process: BTreeMap<_, _> = streams.iter().map(|stream| (stream.process.as_str(), stream)).collect();
    let processes: Vec<_> = by_process.keys().copied().collect();
    let expected = ["p/beside", "p/debugger", "p/first", "p/second", "p/web", "p/worker"];
    assert_eq!(processes, expected);
    by_process.values().for_each(|stream| stream.assert_whole(0..10));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_of_a_failing_init_container_is_read() {
    let harness = Harness::playing(
        Scenario::from_toml(
            r#"
            restart_backoff = "100ms"
            [[pods]]
            namespace = "app"
            name = "p"
            [[pods.containers]]
            name = "migrate"
            role = "init"
            lines = 10
            rate = 0
            exit_code = 1
            restart = "OnFailure"
            [[pods.containers]]
            name = "web"
            lines = 10
            "#,
        )
        .unwrap(),
    )
    .await;
    let collector = harness.collect().await;
    let tries = |streams: &[StreamRead]| streams.iter().filter(|stream| stream.ended).count();
    let streams = harness.wait_for("three attempts", |streams| tries(streams) >= 3).await;
    for stream in streams.iter().filter(|stream| stream.ended) {
        assert_eq!(stream.process, "p/migrate");
        stream.assert_whole(0..10);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_pod_is_read_through_its_mirror() {
    for harness in [Harness::new().await, Harness::with_files(Scenario::default()).await] {
        let mut plan = PodPlan::silent("app", "etcd-node-1", "c").restarting(RestartPolicy::Never);
        let mirror = "kubernetes.io/config.mirror".to_owned();
        plan.annotations.insert(mirror, "17af2b6d1e3f".to_owned());
        harness.cluster.create_pod(&plan).unwrap();
        in_time(harness.cluster.wait_running("app", "etcd-node-1", "c"))
            .await
            .unwrap();
        let collector = harness.collect().await;
        harness.write("etcd-node-1", 0..10);
        harness.wait_for_lines(10).await.assert_whole(0..10);
        harness.exit("etcd-node-1").await;
        harness.wait_for_ended(1).await[0].assert_whole(0..10);
        collector.stop().await;
    }
}
