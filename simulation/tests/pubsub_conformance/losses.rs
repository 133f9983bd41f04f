//! No line is lost without an interruption, whatever requests fail.

use std::{collections::BTreeSet, time::Duration};

use bus::{BusError, Reader, ReaderItem, Start};
use simulation::pubsub::Faults;
use system::task::spawn;
use tokio::time::{sleep, timeout};

use crate::{
    engine::{Engine, delivery_faults, run},
    reading::*,
    support::lines,
};

const BATCHES: u64 = 300;

/// Seeds of each test.
const SEEDS: u64 = 30;

/// Without an item for this long, nothing more arrives.
const QUIET: Duration = Duration::from_secs(180);

async fn until_ok<T, F: Future<Output = Result<T, BusError>>>(call: impl Fn() -> F) -> T {
    loop {
        match call().await {
            Ok(value) => return value,
            // Just after its creation an app may still be unknown.
            Err(BusError::UnknownApp(_)) => {}
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
}

/// Reads until nothing arrives. Returns the sequence numbers and whether there was an interruption.
async fn read(mut reader: Reader) -> (BTreeSet<u64>, bool) {
    let (mut seqs, mut is_interrupted) = (BTreeSet::new(), false);
    while let Ok(item) = timeout(QUIET, reader.next()).await {
        match item.unwrap().unwrap() {
            ReaderItem::Delivery(delivery) => {
                seqs.insert(delivery.batch.seq);
                delivery.ack.into_iter().for_each(bus::Ack::ack);
            }
            ReaderItem::Interrupted { .. } | ReaderItem::HistoryCut { .. } => is_interrupted = true,
            ReaderItem::CaughtUp => {}
            ReaderItem::Unreadable(unreadable) => panic!("{unreadable}"),
        }
    }
    (seqs, is_interrupted)
}

fn missing(seqs: &BTreeSet<u64>) -> Vec<u64> {
    (0..BATCHES).filter(|seq| !seqs.contains(seq)).collect()
}

async fn publish(engine: &Engine) {
    let web = fresh("web");
    for seq in 0..BATCHES {
        until_ok(|| engine.bus.publish(lines(&web, seq, seq + 1))).await;
        if seq == BATCHES / 2 {
            engine.model.pause();
            sleep(Duration::from_secs(20)).await;
            engine.model.resume();
        }
    }
}

/// Runs a test for each seed, on a new runtime.
fn for_each_seed<F: Future<Output = ()>>(test: impl Fn(u64) -> F) {
    for seed in 0..SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(seed, test(seed)));
    }
}

#[test]
fn live_and_durable_readers_get_every_accepted_batch_despite_failing_requests() {
    for_each_seed(async |seed| {
        let engine = Engine::new(seed, Faults::requests());
        let shop = app("shop");
        until_ok(|| engine.bus.create(&shop)).await;
        let live = until_ok(|| engine.bus.follow(&shop, Start::Now)).await;
        let durable = until_ok(|| engine.bus.subscribe(&shop, "drain/1")).await;
        let (live, durable) = (spawn(read(live)), spawn(read(durable)));
        publish(&engine).await;
        for (kind, reading) in [("live", live), ("durable", durable)] {
            let (seqs, is_interrupted) = reading.await.unwrap();
            let missing = missing(&seqs);
            assert!(missing.is_empty() || is_interrupted, "seed {seed}, {kind}: {missing:?}");
        }
        engine.bus.close().await;
    });
}

#[test]
fn a_reader_gets_all_history_though_possibly_after_it_has_caught_up() {
    for_each_seed(async |seed| {
        let faults = Faults {
            seek_lag: Duration::from_secs(30),
            ..Faults::requests()
        };
        let engine = Engine::new(seed, faults);
        publish(&engine).await;
        let shop = app("shop");
        let (seqs, is_interrupted) = read(until_ok(|| engine.bus.follow(&shop, Start::Oldest)).await).await;
        let missing = missing(&seqs);
        assert!(missing.is_empty() || is_interrupted, "seed {seed}: {missing:?}");
        engine.bus.close().await;
    });
}

#[test]
fn a_durable_subscription_keeps_its_messages_while_its_readers_change() {
    for_each_seed(async |seed| {
        let engine = Engine::new(seed, Faults::requests());
        let shop = app("shop");
        until_ok(|| engine.bus.create(&shop)).await;
        until_ok(|| engine.bus.ensure_subscription(&shop, "drain/1")).await;
        let reading = async {
            let mut seqs = BTreeSet::new();
            while !missing(&seqs).is_empty() {
                let mut reader = until_ok(|| engine.bus.subscribe(&shop, "drain/1")).await;
                // What it has not acknowledged goes to the next reader.
                for _ in 0..20 {
                    if missing(&seqs).is_empty() {
                        break;
                    }
                    let delivery = next_delivery(&mut reader).await;
                    seqs.insert(delivery.batch.seq);
                    delivery.ack.unwrap().ack();
                }
            }
        };
        tokio::join!(publish(&engine), reading);
        engine.bus.close().await;
    });
}

#[test]
fn a_new_durable_subscription_that_seems_to_be_missing_keeps_its_messages() {
    for_each_seed(async |seed| {
        let engine = Engine::new(seed, Faults::default());
        let shop = app("shop");
        until_ok(|| engine.bus.create(&shop)).await;
        engine
            .model
            .change_faults(|faults| faults.admin_lag = Duration::from_secs(2));
        until_ok(|| engine.bus.ensure_subscription(&shop, "drain/1")).await;
        let web = fresh("web");
        for seq in 0..5 {
            until_ok(|| engine.bus.publish(lines(&web, seq, seq + 1))).await;
        }
        let (seqs, _) = read(until_ok(|| engine.bus.subscribe(&shop, "drain/1")).await).await;
        assert!(seqs.into_iter().eq(0..5), "seed {seed}");
    });
}

#[test]
fn readers_of_a_deleted_and_recreated_topic_are_interrupted_and_get_its_new_batches() {
    for_each_seed(async |seed| {
        let engine = Engine::new(seed, delivery_faults());
        let (shop, web) = (app("shop"), fresh("web"));
        engine.bus.create(&shop).await.unwrap();
        let live = spawn(read(engine.bus.follow(&shop, Start::Now).await.unwrap()));
        let durable = spawn(read(engine.bus.subscribe(&shop, "drain/1").await.unwrap()));
        publish_all(&*engine.bus, [lines(&web, 0, 1)]).await;
        for project in ["project-a", "project-b"] {
            let topic = format!("projects/{project}/topics/tributary-app-shop");
            // One of them has the topic.
            let _ = engine.model.service().delete_topic(&topic).await;
        }
        publish_all(&*engine.bus, (1..10).map(|seq| lines(&web, seq, seq + 1))).await;
        for reading in [live, durable] {
            let (seqs, is_interrupted) = reading.await.unwrap();
            assert!(
                is_interrupted && (1..10).all(|seq| seqs.contains(&seq)),
                "seed {seed}: {seqs:?}"
            );
        }
        engine.bus.close().await;
    });
}
