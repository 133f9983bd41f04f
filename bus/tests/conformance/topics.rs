//! A topic an app: made, listed, read by many, removed.

use std::sync::Arc;

use bus::{Batch, BusError, Content, MAX_BATCH_BYTES, Start, StreamMetadata};

use crate::{engine::Engine, reading::*, support::lines};

pub async fn apps_are_listed_by_name(engine: Engine) {
    assert_eq!(engine.bus.apps().await.unwrap(), []);
    for name in ["zoo", "a", "A.b_c-1", "shop"] {
        engine.bus.create(&app(name)).await.unwrap();
    }
    let spoke = Arc::new(StreamMetadata {
        app: app("spoke"),
        ..(*fresh("web")).clone()
    });
    publish_all(&*engine.bus, [lines(&spoke, 0, 1)]).await;
    assert_eq!(
        engine.bus.apps().await.unwrap(),
        ["A.b_c-1", "a", "shop", "spoke", "zoo"].map(app)
    );
    assert_eq!(engine.bus.subscribed().await.unwrap(), []);
    drop(
        bounded("a subscription", engine.bus.subscribe(&app("shop"), "drain/1"))
            .await
            .unwrap(),
    );
    assert_eq!(engine.bus.subscribed().await.unwrap(), [app("shop")]);
    engine.bus.check().await.unwrap();
}

pub async fn an_app_nobody_made_is_unknown(engine: Engine) {
    for start in [Start::Now, Start::Oldest] {
        let followed = engine.bus.follow(&app("nobody"), start).await;
        assert!(matches!(followed.err(), Some(BusError::UnknownApp(_))));
    }
    let subscribed = engine.bus.subscribe(&app("nobody"), "drain").await;
    assert!(matches!(subscribed.err(), Some(BusError::UnknownApp(_))));
    engine.bus.remove(&app("nobody")).await.unwrap();
    engine.bus.unsubscribe(&app("nobody"), "drain").await.unwrap();
}

pub async fn an_app_removed_and_made_again_holds_only_what_is_new(engine: Engine) {
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

pub async fn a_batch_that_is_too_large_is_refused_for_good(engine: Engine) {
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
    let refused = engine.bus.publish(batch).await.unwrap_err();
    assert!(matches!(refused, BusError::TooLarge { .. }) && !refused.is_transient());
}

pub async fn several_readers_each_see_everything(engine: Engine) {
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
