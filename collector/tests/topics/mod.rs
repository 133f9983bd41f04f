//! Topics of apps that are gone.

use std::time::Duration;

use bus::{AppName, Bus};
use collector::Sweep;
use kubesim::RestartPolicy;

use crate::support::{Stage, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_of_an_app_that_is_gone_is_removed_unless_a_drain_is_kept_for_it() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    stage.write("p", 0..10);
    let app = |name: &str| -> AppName { name.parse().unwrap() };
    for gone in ["gone", "drained"] {
        stage.bus.create(&app(gone)).await.unwrap();
    }
    drop(stage.bus.subscribe(&app("drained"), "drain/1").await.unwrap());
    let collector = stage
        .collect_with(|config| {
            config.sweep = Some(Sweep {
                gone_for: Duration::from_millis(1),
                interval: Duration::from_millis(5),
            });
        })
        .await;
    stage.until_lines(10).await;
    soon(async {
        while stage.bus.apps().await.unwrap().contains(&app("gone")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let left = stage.bus.apps().await.unwrap();
    assert_eq!(left, ["app", "drained"].map(app), "it is there, or drained");
    collector.stop().await;
}
