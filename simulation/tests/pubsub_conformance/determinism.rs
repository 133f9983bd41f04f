//! A seed determines the whole run.

use std::time::Duration;

use bus::{ReaderItem, Start};
use simulation::pubsub::Faults;
use system::{clock::since, clock::steady, task::spawn};
use tokio::time::timeout;

use crate::{
    engine::{Engine, run},
    reading::*,
    support::lines,
};

/// What readers receive, and when, despite faults of all kinds.
async fn record(seed: u64) -> Vec<String> {
    run(seed, async {
        let engine = Engine::new(seed, Faults::default());
        engine.bus.create(&app("shop")).await.unwrap();
        engine.model.set_faults(Faults {
            admin_lag: Duration::from_secs(2),
            seek_lag: Duration::from_secs(2),
            ..Faults::requests()
        });
        let (bus, started) = (engine.bus.clone(), steady());
        let publishing = spawn(async move {
            let web = fresh("web");
            for seq in 0..200 {
                while bus.publish(lines(&web, seq, seq + 1)).await.is_err() {}
            }
        });
        let mut reader = loop {
            if let Ok(reader) = engine.bus.follow(&app("shop"), Start::Oldest).await {
                break reader;
            }
        };
        let mut all = Vec::new();
        while let Ok(item) = timeout(Duration::from_secs(120), reader.next()).await {
            let item = match item.unwrap().unwrap() {
                ReaderItem::Delivery(delivery) => format!("{} {:?}", delivery.batch.seq, delivery.published),
                other => format!("{other:?}"),
            };
            all.push(format!("{:?} {item}", since(started)));
        }
        publishing.await.unwrap();
        drop(reader);
        engine.bus.close().await;
        all
    })
    .await
}

/// On a new runtime, so that no state of it is left from the previous run.
fn recorded(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(record(seed))
}

#[test]
fn a_seed_determines_what_readers_receive_and_when() {
    for seed in 0..10 {
        let first = recorded(seed);
        assert!(first.len() > 200);
        for (at, (one, other)) in first.iter().zip(recorded(seed)).enumerate() {
            assert_eq!(*one, other, "item {at} of seed {seed}");
        }
    }
    assert_ne!(recorded(0), recorded(1));
}
