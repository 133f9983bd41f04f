//! Large batches, and many batches.

use std::{collections::BTreeMap, sync::Arc};

use bus::{Batch, Content, MAX_BATCH_BYTES, Start};
use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::{
    engine::Engine,
    reading::*,
    support::{end, lines},
};

pub async fn the_largest_batches_are_delivered_unchanged(engine: Engine) {
    let (bus, web) = (&*engine.bus, fresh("web"));
    let data = |seq: u64| -> Bytes {
        let line = format!(
            "2026-11-23T07:00:00.{seq:09}Z {}\n",
            char::from(b'a' + (seq % 26) as u8)
        );
        let mut text = line.repeat(MAX_BATCH_BYTES / line.len());
        let room = MAX_BATCH_BYTES - text.len();
        text.insert_str(text.len() - 1, &"x".repeat(room));
        text.into()
    };
    let count = |data: &Bytes| data.iter().filter(|byte| **byte == b'\n').count() as u64;
    let batch = |seq: u64| {
        let data = data(seq);
        let lines = count(&data);
        Batch {
            metadata: Arc::clone(&web),
            seq: seq * lines,
            content: Content::Lines {
                data,
                lines,
                part: None,
            },
        }
    };
    publish_all(bus, (0..20).map(batch)).await;
    let mut reader = follow(bus, Start::Oldest).await;
    let mut left: BTreeMap<u64, Batch> = (0..20).map(batch).map(|batch| (batch.seq, batch)).collect();
    while !left.is_empty() {
        let received = next_delivery(&mut reader).await.batch;
        if let Some(sent) = left.remove(&received.seq) {
            assert!(received == sent && received.data().len() == MAX_BATCH_BYTES);
        }
    }
}

pub async fn a_hundred_thousand_small_batches_are_delivered(engine: Engine) {
    const STREAMS: u64 = 200;
    const BATCHES: u64 = 500;
    let bus = Arc::clone(&engine.bus);
    bus.create(&app("shop")).await.unwrap();
    let streams: Vec<_> = (0..STREAMS).map(|n| fresh(&format!("p{n}"))).collect();
    let mut reader = Assembled::new(follow(&*bus, Start::Now).await, 5);
    let publishing = tokio::spawn(async move {
        stream::iter(streams)
            .for_each_concurrent(None, async |web| {
                publish_all(&*bus, (0..BATCHES).map(|n| lines(&web, n, n + 1))).await;
                publish_all(&*bus, [end(&web, BATCHES)]).await;
            })
            .await;
    });
    let events = reader.until_ended(STREAMS as usize).await;
    publishing.await.unwrap();
    for process in events.values() {
        assert_eq!(joined(process), BATCHES);
    }
}
