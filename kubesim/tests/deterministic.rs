//! A scenario runs the same way each time on a simulated machine with the same seed.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

#[path = "support/machine.rs"]
mod machine;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::SignedDuration;
use kubesim::{Cluster, Fault, FaultKind, LogFiles, LogLine, PodPlan, RestartPolicy, Scenario};
use machine::TestMachine;
use support::{fetch, in_process, request};
use system::simulation::{Machine, enter};
use tokio::time::sleep;

/// Breaks ten follows and returns in which order their clients notice it.
async fn order_of_broken_follows() -> Vec<u32> {
    let machine = Arc::new(TestMachine::new(1));
    let cluster = start(&machine, Scenario::default());
    cluster.create_pod(&PodPlan::silent("a", "p", "c")).unwrap();
    cluster.wait_running("a", "p", "c").await.unwrap();
    let (noticed, mut order) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..10 {
        let path = "/api/v1/namespaces/a/pods/p/log?follow=true";
        let (_, mut follow) = request(&cluster, path).await.unwrap();
        let noticed = noticed.clone();
        tokio::spawn(async move {
            while let Some(Ok(_)) = follow.next().await {}
            noticed.send(number).unwrap();
        });
    }
    drop(noticed);
    sleep(Duration::from_secs(1)).await;
    cluster.break_streams();
    let mut numbers = Vec::new();
    while let Some(number) = order.recv().await {
        numbers.push(number);
    }
    numbers
}

/// What a client saw, and the log files of the node.
type Observed = (String, Vec<(PathBuf, Vec<u8>)>);

/// Plays a scenario for five minutes.
fn run(seed: u64) -> Observed {
    on_paused_time(async {
        let machine = Arc::new(TestMachine::new(seed));
        let cluster = start(&machine, scenario(seed));
        // The client is on another machine, as far as the cluster can tell.
        let seen = observe(&cluster).await;
        (seen, machine.files())
    })
}

fn on_paused_time<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(b"kubesim"));
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

fn start(machine: &Arc<TestMachine>, scenario: Scenario) -> Cluster {
    let machine: Arc<dyn Machine> = machine.clone();
    enter(Some(&machine), || in_process(scenario))
}

async fn observe(cluster: &Cluster) -> String {
    let silent = PodPlan::silent("a", "p", "c").restarting(RestartPolicy::Always);
    cluster.create_pod(&silent).unwrap();
    cluster.wait_running("a", "p", "c").await.unwrap();
    let (_, mut follow) = request(cluster, "/api/v1/namespaces/a/pods/p/log?follow=true&timestamps=true")
        .await
        .unwrap();
    let (_, watch) = request(cluster, "/api/v1/pods?watch=1&timeoutSeconds=290")
        .await
        .unwrap();
    let lines = (0..20).map(|number| LogLine {
        stderr: number % 3 == 0,
        ..LogLine::from("a line")
    });
    sleep(Duration::from_secs(21)).await;
    let written = cluster.write_log("a", "p", "c", lines).unwrap();
    let mut seen = format!("{written:?}\n");
    cluster.rotate_log_file("a", "p", "c").unwrap();
    cluster.exit_container("a", "p", "c", 1).await.unwrap();
    while let Some(piece) = follow.next().await {
        seen += &String::from_utf8_lossy(&piece.unwrap());
    }
    sleep(Duration::from_secs(300)).await;
    for piece in watch.collect::<Vec<_>>().await {
        seen += &String::from_utf8_lossy(&piece.unwrap());
    }
    for (namespace, pod) in cluster.pods() {
        let log = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?timestamps=true");
        seen += &fetch(cluster, &log).await;
    }
    seen
}

fn scenario(seed: u64) -> Scenario {
    let fault = |at, kind| Fault {
        at: Duration::from_secs(at),
        kind,
    };
    Scenario {
        seed,
        faults: vec![
            fault(
                20,
                FaultKind::DelayWrites {
                    duration: Duration::from_secs(60),
                    delay: Duration::from_millis(5),
                },
            ),
            fault(
                30,
                FaultKind::StatusLag {
                    duration: Duration::from_secs(60),
                    delay: Duration::from_secs(4),
                },
            ),
            fault(
                100,
                FaultKind::StepClock {
                    by: SignedDuration::from_secs(-7),
                },
            ),
        ],
        log_files: LogFiles {
            dir: Some("/var/log/pods".into()),
            max_size: 8 << 10,
            utc_offset: Some(SignedDuration::from_hours(2)),
            ..LogFiles::default()
        },
        ..Scenario::demo()
    }
}

#[test]
fn two_runs_with_one_seed_are_the_same() {
    let (first, files) = run(7);
    assert!(first.len() > 100_000, "{} bytes", first.len());
    let rotated = files.iter().filter(|(path, _)| path.extension().unwrap() != "log");
    assert!(rotated.count() > 5, "the node rotates its files");
    let (second, second_files) = run(7);
    let differing = first.lines().zip(second.lines()).find(|(one, other)| one != other);
    assert_eq!(differing, None);
    assert!(first.len() == second.len() && files == second_files);
    assert_ne!(first, run(8).0);
}

/// Tokio's watch channel wakes its receivers in random order; the seed of its random numbers can be
/// set with `--cfg tokio_unstable` only.
#[test]
fn all_clients_of_one_log_wake_and_with_a_seed_in_the_same_order() {
    let first = on_paused_time(order_of_broken_follows());
    let mut numbers = first.clone();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..10));
    if cfg!(tokio_unstable) {
        for _ in 0..5 {
            assert_eq!(on_paused_time(order_of_broken_follows()), first);
        }
    }
}

#[test]
fn an_idle_cluster_costs_nothing() {
    let start_time = std::time::Instant::now();
    on_paused_time(async {
        let machine = Arc::new(TestMachine::new(1));
        let cluster = start(
            &machine,
            Scenario {
                pods: vec![PodPlan::silent("a", "p", "c")],
                log_files: scenario(1).log_files,
                ..Scenario::default()
            },
        );
        cluster.wait_running("a", "p", "c").await.unwrap();
        let follow = request(&cluster, "/api/v1/namespaces/a/pods/p/log?follow=true")
            .await
            .unwrap();
        let watch = request(&cluster, "/api/v1/pods?watch=1").await.unwrap();
        sleep(Duration::from_secs(24 * 3600)).await;
        drop((follow, watch));
    });
    // About 0.1 s; a poll every 10 ms would take minutes.
    let took = start_time.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}
