//! A bus of several projects: an app stays in one of them, and no line is missed if its topic
//! exists in two.

use std::sync::Arc;

use bus::{Bus, PubSub, PubSubSettings, ReaderItem, Start};

use crate::{
    engine::{Turn, settings, shared_emulator},
    reading::*,
    support::{end, lines},
};

/// Two projects, with an engine on each and one on both.
struct Pair {
    _turn: Turn,
    one: Arc<PubSub>,
    other: Arc<PubSub>,
    both: Arc<PubSub>,
}

impl Pair {
    async fn new() -> Option<Self> {
        let settings = settings(&shared_emulator().await?);
        let (one, other) = (settings.projects[0].clone(), format!("{}-other", settings.projects[0]));
        let open = async |projects: Vec<String>| {
            let settings = PubSubSettings {
                projects,
                ..settings.clone()
            };
            Arc::new(PubSub::open(settings).await.unwrap())
        };
        Some(Self {
            _turn: Turn::shared().await,
            one: open(vec![one.clone()]).await,
            other: open(vec![other.clone()]).await,
            both: open(vec![one, other]).await,
        })
    }

    async fn close(self) {
        for engine in [self.one, self.other, self.both] {
            engine.close().await;
        }
    }
}

fn many() -> Vec<bus::AppName> {
    (0..12).map(|n| app(&format!("app-{n:02}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_apps_are_distributed_over_the_projects_and_readable_in_each() {
    let Some(pair) = Pair::new().await else { return };
    let batches = many().into_iter().map(|app| {
        let mut batch = lines(&fresh("web"), 0, 3);
        Arc::make_mut(&mut batch.metadata).app = app;
        batch
    });
    publish_all(&*pair.both, batches).await;
    let (one, other) = (pair.one.apps().await.unwrap(), pair.other.apps().await.unwrap());
    assert!(!one.is_empty() && !other.is_empty(), "{one:?} {other:?}");
    assert_eq!(one.len() + other.len(), many().len());
    assert_eq!(pair.both.apps().await.unwrap(), many());
    for app in many() {
        let mut reader = bounded("a reader", pair.both.follow(&app, Start::Oldest))
            .await
            .unwrap();
        assert_eq!(history(&mut reader).await, [0]);
        pair.both.remove(&app).await.unwrap();
    }
    assert_eq!(pair.both.apps().await.unwrap(), []);
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_stays_in_the_project_of_its_topic_when_a_project_is_added() {
    let Some(pair) = Pair::new().await else { return };
    for app in many() {
        pair.other.create(&app).await.unwrap();
    }
    for app in many() {
        let mut batch = lines(&fresh("web"), 0, 1);
        Arc::make_mut(&mut batch.metadata).app = app.clone();
        pair.both.create(&app).await.unwrap();
        publish_all(&*pair.both, [batch]).await;
    }
    assert_eq!(pair.one.apps().await.unwrap(), []);
    assert_eq!(pair.other.apps().await.unwrap(), many());
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_topics_in_two_projects_is_read_from_both() {
    let Some(pair) = Pair::new().await else { return };
    let (web, job) = (fresh("web"), fresh("job"));
    // Two collectors disagree, one of them after the reader was opened.
    for (first, second) in [(&pair.one, &pair.other), (&pair.other, &pair.one)] {
        publish_all(&**first, [lines(&web, 0, 5)]).await;
        let mut reader = Assembled::new(follow(&*pair.both, Start::Oldest).await, 7);
        let mut durable = bounded("a subscription", pair.both.subscribe(&app("shop"), "drain"))
            .await
            .unwrap();
        publish_all(&**second, [lines(&job, 0, 3), end(&job, 3)]).await;
        publish_all(&**first, [lines(&web, 5, 9), end(&web, 9)]).await;
        let seen = reader.until_ended(2).await;
        assert_eq!((joined(&seen["web"]), joined(&seen["job"])), (9, 3));
        // The subscription gets new batches of both projects.
        let mut received = Vec::new();
        while received.len() < 4 {
            let delivery = next_delivery(&mut durable).await;
            received.push((delivery.batch.metadata.process.clone(), delivery.batch.seq));
            delivery.ack.unwrap().ack();
        }
        received.sort();
        let all = [("job", 0), ("job", 3), ("web", 5), ("web", 9)];
        assert_eq!(received, all.map(|(process, seq)| (process.to_owned(), seq)));
        drop((reader, durable));
        // A later reader gets the history of both projects.
        let mut late = follow(&*pair.both, Start::Oldest).await;
        let mut count = 0;
        while !matches!(next(&mut late).await, ReaderItem::CaughtUp) {
            count += 1;
        }
        assert_eq!(count, 5);
        drop(late);
        pair.both.remove(&app("shop")).await.unwrap();
        assert_eq!(pair.both.apps_with_subscriptions().await.unwrap(), []);
    }
    pair.close().await;
}
