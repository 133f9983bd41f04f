//! Node and API conditions: more containers than follows, an overloaded API, dead watches, short
//! jobs.

use std::{collections::BTreeSet, time::Duration};

use bus::Bus;
use kubesim::{FaultKind, PodPlan, RestartPolicy, Scenario};

use crate::support::{Harness, MetricsProbe, StreamRead, in_time};

/// Time limit for the lines of many containers on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(90);

fn scenario(text: &str) -> Scenario {
    Scenario::from_toml(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_beyond_the_follow_limit_are_read_completely() {
    let harness = Harness::new().await;
    let names: Vec<_> = (0..150).map(|n| format!("p{n}")).collect();
    for name in &names {
        let plan = PodPlan::silent("app", name, "c").restarting(RestartPolicy::Never);
        harness.cluster.create_pod(&plan).unwrap();
    }
    for name in &names {
        in_time(harness.cluster.wait_running("app", name, "c")).await.unwrap();
    }
    let counted = MetricsProbe::new();
    let collector = harness
        .collect_with(|config| config.metrics = counted.metrics.clone())
        .await;
    for first in [0, 20, 40] {
        for name in &names {
            harness.write(name, first..first + 20);
        }
        harness
            .wait_within(TIMEOUT, "all lines of all streams", |streams| {
                streams.len() == 150 && streams.iter().all(|stream| stream.texts.len() == first as usize + 20)
            })
            .await;
    }
    let refused = "tributary_collector_reconnects_total{reason=\"no_follow\"}";
    assert!(counted.value(refused) >= 38.0, "the node serves 112 follows");
    for stream in harness.streams().await.values() {
        stream.assert_whole(0..60);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_found_despite_a_dead_watch() {
    let harness = Harness::new().await;
    harness.pod("old", RestartPolicy::Never).await;
    let collector = harness
        .collect_with(|config| config.relist_every = Duration::from_secs(1))
        .await;
    harness.write("old", 0..10);
    harness.wait_for_lines(10).await;
    // Longer than the test: the watch itself never reports the pod.
    let duration = Duration::from_secs(3600);
    harness.cluster.cause(FaultKind::MuteWatches { duration });
    harness.pod("new", RestartPolicy::Never).await;
    harness.write("new", 0..10);
    let streams = harness
        .wait_for("the new pod's lines", |streams| {
            streams.len() == 2 && streams.iter().all(|stream| stream.texts.len() == 10)
        })
        .await;
    streams.iter().for_each(|stream| stream.assert_whole(0..10));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_jobs_are_read_completely() {
    let harness = Harness::playing(scenario(
        r#"
        [[pods]]
        namespace = "app"
        name = "job"
        replicas = 100
        [[pods.containers]]
        name = "c"
        lines = 50
        rate = 0
        text = "line {seq}"
        "#,
    ))
    .await;
    let collector = harness.collect().await;
    let streams = harness
        .wait_within(TIMEOUT, "100 ended streams", |streams| {
            streams.len() == 100 && streams.iter().all(|stream| stream.ended)
        })
        .await;
    streams.iter().for_each(|stream| stream.assert_whole(0..50));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_of_an_overloaded_api_is_respected() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.gate.log_requests.lock().unwrap().clear();
    harness.cluster.cause(FaultKind::ApiBusy {
        duration: Duration::from_millis(2500),
    });
    harness.cluster.break_streams();
    harness.write("p", 10..20);
    harness.wait_for_lines(20).await.assert_whole(0..20);
    // The server requests a delay of one second each time.
    let log_requests = harness.gate.log_requests.lock().unwrap().clone();
    assert!(log_requests.len() >= 2, "rejected at least once");
    let pauses = log_requests.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(
        pauses.clone().all(|pause| pause >= Duration::from_secs(1)),
        "{:?}",
        pauses.collect::<Vec<_>>()
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_follows_have_no_gaps_or_repeats() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let counted = MetricsProbe::new();
    let collector = harness
        .collect_with(|config| {
            config.metrics = counted.metrics.clone();
            config.renew_after = Duration::from_millis(100);
        })
        .await;
    let renewed = "tributary_collector_reconnects_total{reason=\"renewed\"}";
    let mut written = 0;
    for round in 1..=5 {
        harness.write("p", written..written + 50);
        written += 50;
        counted.wait_for(renewed, f64::from(round)).await;
    }
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_watch_and_a_revoked_right_are_recovered_from() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.cluster.cause(FaultKind::ExpireWatches);
    harness.cluster.cause(FaultKind::LogsForbidden {
        duration: Duration::from_millis(700),
    });
    harness.cluster.break_streams();
    harness.write("p", 10..20);
    harness.pod("q", RestartPolicy::Never).await;
    harness.write("q", 0..10);
    harness.exit("p").await;
    harness.exit("q").await;
    for stream in harness.wait_for_ended(2).await {
        stream.assert_whole(0..if stream.process == "p" { 20 } else { 10 });
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_recreated_with_the_same_name_is_another_stream() {
    let harness = Harness::new().await;
    let collector = harness.collect().await;
    for first in [0, 100] {
        harness.pod("p", RestartPolicy::Never).await;
        harness.write("p", first..first + 30);
        harness.cluster.delete_pod("app", "p", Some(1)).unwrap();
        in_time(harness.cluster.wait_gone("app", "p")).await.unwrap();
    }
    let streams = harness.wait_for_ended(2).await;
    let mut firsts: Vec<_> = streams.iter().map(|stream| stream.texts[0].clone()).collect();
    firsts.sort();
    assert_eq!(firsts, ["line 0", "line 100"]);
    for stream in &streams {
        let first = if stream.texts[0] == "line 0" { 0 } else { 100 };
        stream.assert_whole(first..first + 30);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_log_is_read_completely() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    harness.cluster.cause(FaultKind::SlowLogs {
        duration: Duration::from_secs(3600),
        delay: Duration::from_millis(30),
    });
    let collector = harness.collect().await;
    harness.write("p", 0..5_000);
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..5_000);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_restarts_are_six_complete_and_distinct_streams() {
    let harness = Harness::playing(scenario(
        r#"
        restart_backoff = "100ms"
        [[pods]]
        namespace = "app"
        name = "p"
        [[pods.containers]]
        name = "c"
        lines = 50
        rate = 0
        text = "line {seq}"
        exit_code = 1
        restart = "Always"
        "#,
    ))
    .await;
    let collector = harness.collect().await;
    let ended = |streams: &[StreamRead]| streams.iter().filter(|stream| stream.ended).count();
    let streams = harness
        .wait_within(TIMEOUT, "six ended streams", |streams| ended(streams) >= 6)
        .await;
    streams
        .iter()
        .filter(|stream| stream.ended)
        .for_each(|stream| stream.assert_whole(0..50));
    let ids: Vec<_> = harness.streams().await.into_keys().collect();
    let containers: BTreeSet<_> = ids.iter().map(|id| id.split('/').nth(2).unwrap()).collect();
    assert_eq!(containers.len(), ids.len(), "one stream per instance");
    let written = harness.cluster.written("app", "p", "c");
    let was_started = |id: &&&str| written.iter().any(|instance| instance.container_id.ends_with(**id));
    assert_eq!(containers.iter().filter(was_started).count(), ids.len());
    collector.stop().await;
}

/// Waits until the bus has exactly these pairs of namespace and process.
async fn wait_for_processes(harness: &Harness, expected: &[(&str, &str)]) {
    let collected = async {
        loop {
            let mut found = BTreeSet::new();
            for app in harness.bus.apps().await.unwrap() {
                let streams = harness.read_app(&app).await.into_values();
                found.extend(streams.map(|stream| (app.to_string(), stream.process)));
            }
            if found
                .iter()
                .map(|(app, process)| (app.as_str(), process.as_str()))
                .eq(expected.iter().copied())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(collected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_selected_by_label_and_namespace_and_excluded_by_annotation() {
    let harness = Harness::new().await;
    let create = |namespace: &str, name: &str, tier: &str, excluded: bool| {
        let mut plan = PodPlan::silent(namespace, name, "c").restarting(RestartPolicy::Never);
        plan.labels.insert("tier".to_owned(), tier.to_owned());
        if excluded {
            plan.annotations
                .insert("tributary.dev/exclude".to_owned(), "true".to_owned());
        }
        harness.cluster.create_pod(&plan).unwrap();
    };
    for namespace in ["one", "two"] {
        create(namespace, "front", "front", false);
        create(namespace, "back", "back", false);
        create(namespace, "left-out", "front", true);
    }
    let write = async |namespaces: &[&str]| {
        for namespace in namespaces {
            for pod in ["front", "back", "left-out"] {
                in_time(harness.cluster.wait_running(namespace, pod, "c"))
                    .await
                    .unwrap();
                harness.cluster.write_line(namespace, pod, "c", "hello").unwrap();
            }
        }
    };
    write(&["one", "two"]).await;
    let collector = harness
        .collect_with(|config| {
            config.pod_selector = Some("tier=front".to_owned());
            config.namespace_selector = Some("kubernetes.io/metadata.name!=one".to_owned());
        })
        .await;
    wait_for_processes(&harness, &[("two", "front")]).await;
    // A namespace that is created later is detected.
    create("three", "front", "front", false);
    create("three", "back", "back", false);
    create("three", "left-out", "front", true);
    write(&["three"]).await;
    wait_for_processes(&harness, &[("three", "front"), ("two", "front")]).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_add_up() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let counted = MetricsProbe::new();
    let collector = harness
        .collect_with(|config| config.metrics = counted.metrics.clone())
        .await;
    let value = |name: &str| counted.value(&format!("tributary_collector_{name}"));
    harness.write("p", 0..100);
    harness.wait_for_lines(100).await;
    assert_eq!(
        (
            value("lines_total"),
            value("followed_containers"),
            value("idle_containers{over_seconds=\"60\"}")
        ),
        (100.0, 1.0, 0.0)
    );
    assert!(value("bytes_total") > 3_000.0);
    harness.cluster.break_streams();
    harness.write("p", 100..101);
    harness.wait_for_lines(101).await;
    assert_eq!(value("reconnects_total{reason=\"broken\"}"), 1.0);
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..101);
    collector.stop().await;
    assert_eq!(
        (value("lines_total"), value("followed_containers"), value("spool_bytes")),
        (101.0, 0.0, 0.0)
    );
    assert!(value("batches_total") >= 2.0);
    assert_eq!(value("batches_total"), value("publish_seconds_count"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_name_without_pods_is_reported_with_the_names_of_nodes_that_have_pods() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness
        .collect_with(|config| {
            config.node_name = Some("node-7".to_owned());
            config.report_missing_pods_after = Duration::from_millis(1);
        })
        .await;
    let problem = async {
        loop {
            match collector.progress.missing_pods() {
                Some(problem) => break problem,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let expected = format!(
        "no pod runs on the node node-7; check --node-name; nodes with pods are {}",
        harness.cluster.node_name()
    );
    assert_eq!(in_time(problem).await, expected);
    collector.stop().await;
}
