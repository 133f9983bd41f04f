//! A scenario runs the same way each time on a simulated machine with the same seed.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use futures::StreamExt;
use kubesim::{Fault, FaultKind, LogLine, PodPlan, RestartPolicy, Scenario};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::{fetch, in_process, request};
use system::simulation::{Disk, Machine, Network, enter};
use tokio::time::{Instant, sleep};

/// A machine without disk and network.
struct TestMachine {
    start: Instant,
    random: Mutex<StdRng>,
}

impl Machine for TestMachine {
    fn wall(&self) -> Duration {
        Duration::from_secs(1_790_000_000) + self.start.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.random.lock().fill_bytes(bytes);
    }

    fn io_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn begin_poll(&self, _: u64, _: &Waker) -> bool {
        true
    }

    fn end_task(&self, _: u64) {}

    fn disk(&self) -> &dyn Disk {
        panic!("the machine has no disk")
    }

    fn network(&self) -> &dyn Network {
        panic!("the machine has no network")
    }
}

/// Plays a scenario for five minutes and returns what a client saw.
fn run(seed: u64) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let machine: Arc<dyn Machine> = Arc::new(TestMachine {
            start: Instant::now(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        });
        let cluster = enter(Some(&machine), || in_process(scenario(seed)));
        // The client is on another machine, as far as the cluster can tell.
        observe(&cluster).await
    })
}

async fn observe(cluster: &kubesim::Cluster) -> String {
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
                    by: jiff::SignedDuration::from_secs(-7),
                },
            ),
        ],
        ..Scenario::demo()
    }
}

#[test]
fn two_runs_with_one_seed_are_the_same() {
    let first = run(7);
    assert!(first.len() > 100_000, "{} bytes", first.len());
    let second = run(7);
    let differing = first.lines().zip(second.lines()).find(|(one, other)| one != other);
    assert_eq!(differing, None);
    assert_eq!(first.len(), second.len());
    assert_ne!(first, run(8));
}
