//! Topic garbage collection.

use std::time::Duration;

use bus::{AppName, Bus};
use collector::TopicGc;
use kubesim::RestartPolicy;

use crate::support::{Harness, in_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_topic_is_deleted_unless_it_has_a_drain() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    harness.write("p", 0..10);
    let app = |name: &str| -> AppName { name.parse().unwrap() };
    for gone in ["gone", "drained"] {
        harness.bus.create(&app(gone)).await.unwrap();
    }
    drop(harness.bus.subscribe(&app("drained"), "drain/1").await.unwrap());
    let collector = harness
        .collect_with(|config| {
            config.topic_gc = Some(TopicGc {
                unused_for: Duration::from_millis(1),
                interval: Duration::from_millis(5),
            });
        })
        .await;
    harness.wait_for_lines(10).await;
    in_time(async {
        while harness.bus.apps().await.unwrap().contains(&app("gone")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let left = harness.bus.apps().await.unwrap();
    assert_eq!(left, ["app", "drained"].map(app), "existing or drained apps only");
    collector.stop().await;
}
