//! One topic per app: creation, listing, several readers, removal.

use std::sync::Arc;

use bus::{Batch, BusError, Content, MAX_BATCH_BYTES, Start, StreamMetadata};

use crate::{engine::Engine, reading::*, support::lines};

pub async fn apps_are_listed_by_name(engine: Engine) {
    assert_eq!(engine.bus.apps().await.unwrap(), []);
    for name in ["zoo", "a", "A.b_c-1", "shop"] {
        engine.bus.create(&app(name)).await.unwrap();
    }
    let with_lines = Arc::new(StreamMetadata {
        app: app("with-lines"),
        ..(*fresh("web")).clone()
    });
    publish_all(&*engine.bus, [lines(&with_lines, 0, 1)]).await;
    assert_eq!(
        engine.bus.apps().await.unwrap(),
        ["A.b_c-1", "a", "shop", "with-lines", "zoo"].map(app)
    );
    assert_eq!(engine.bus.apps_with_subscriptions().await.unwrap(), []);
    drop(
        bounded("a subscription", engine.bus.subscribe(&app("shop"), "drain/1"))
            .await
            .unwrap(),
    );
    assert_eq!(engine.bus.apps_with_subscriptions().await.unwrap(), [app("shop")]);
    engine.bus.check().await.unwrap();
}

pub async fn an_app_without_a_topic_is_unknown(engine: Engine) {
    for start in [Start::Now, Start::Oldest] {
        let followed = engine.bus.follow(&app("unknown"), start).await;
        assert!(matches!(followed.err(), Some(BusError::UnknownApp(_))));
    }
    let subscribed = engine.bus.subscribe(&app("unknown"), "drain").await;
    assert!(matches!(subscribed.err(), Some(BusError::UnknownApp(_))));
    engine.bus.remove(&app("unknown")).await.unwrap();
    engine.bus.unsubscribe(&app("unknown"), "drain").await.unwrap();
}

pub async fn a_removed_and_recreated_app_holds_only_new_batches(engine: Engine) {
    let (bus, web) = (&*engine.bus, fresh("web"));
    publish_all(bus, (0..5).map(|n| lines(&web, n, n + 1))).await;
    bus.remove(&app("shop")).await.unwrap();
    bus.remove(&app("shop")).await.unwrap();
    assert_eq!(bus.apps().await.unwrap(), []);
    assert!(matches!(
        bus.follow(&app("shop"), Start::Now).await.err(),
        Some(BusError::UnknownApp(_))
    ));
    publish_all(bus, [lines(&web, 5, 6)]).await;
    let mut reader = follow(bus, Start::Oldest).await;
    assert_eq!(history(&mut reader).await, [5]);
}

pub async fn a_batch_that_is_too_large_is_rejected_permanently(engine: Engine) {
    let content = Content::Lines {
        data: vec![b'\n'; MAX_BATCH_BYTES + 1].into(),
        lines: MAX_BATCH_BYTES as u64 + 1,
        part: None,
    };
    let batch = Batch {
        metadata: fresh("web"),
        seq: 0,
        content,
    };
    let rejected = engine.bus.publish(batch).await.unwrap_err();
    assert!(matches!(rejected, BusError::TooLarge { .. }) && !rejected.is_transient());
}

pub async fn each_of_several_readers_gets_every_line(engine: Engine) {
    let (bus, web) = (&*engine.bus, fresh("web"));
    bus.create(&app("shop")).await.unwrap();
    let mut readers = Vec::new();
    for seed in 0..4 {
        readers.push(Assembled::new(follow(bus, Start::Now).await, seed));
    }
    publish_all(bus, (0..40).map(|n| lines(&web, n * 5, n * 5 + 5))).await;
    publish_all(bus, [crate::support::end(&web, 200)]).await;
    for mut reader in readers {
        assert_eq!(joined(&reader.until_ended(1).await["web"]), 200);
    }
}
