//! Failures of Pub/Sub: orphaned, lost and detached subscriptions; an unavailable service.

use std::{sync::Arc, time::Duration};

use bus::{Bus, BusError, PubSub, PubSubSettings, ReaderItem, Start};
use google_cloud_auth::credentials::anonymous;
use google_cloud_pubsub::client::{Subscriber, SubscriptionAdmin, TopicAdmin};

use crate::{
    emulator::Emulator,
    engine::{Turn, settings, shared_emulator},
    reading::*,
    support::lines,
};

/// The project as seen by Google's client library.
struct Project {
    _turn: Turn,
    settings: PubSubSettings,
    topics: TopicAdmin,
    subscriptions: SubscriptionAdmin,
}

impl Project {
    async fn new(settings: PubSubSettings) -> Self {
        let endpoint = format!("http://{}", settings.emulator.as_ref().unwrap());
        let credentials = anonymous::Builder::new().build();
        let topics = TopicAdmin::builder()
            .with_endpoint(&endpoint)
            .with_credentials(credentials.clone());
        let subscriptions = SubscriptionAdmin::builder()
            .with_endpoint(&endpoint)
            .with_credentials(credentials);
        Self {
            topics: topics.build().await.unwrap(),
            subscriptions: subscriptions.build().await.unwrap(),
            settings,
            _turn: Turn::shared().await,
        }
    }

    async fn subscriptions(&self) -> Vec<String> {
        let list = self.subscriptions.list_subscriptions();
        let list = list
            .set_project(format!("projects/{}", self.settings.projects[0]))
            .send();
        let listed = bounded("a list", list).await.unwrap();
        listed
            .subscriptions
            .into_iter()
            .map(|subscription| subscription.name)
            .collect()
    }

    async fn until_subscriptions(&self, wanted: impl Fn(&[String]) -> bool) {
        let mut last = self.subscriptions().await;
        let wait = async {
            while !wanted(&last) {
                tokio::task::yield_now().await;
                last = self.subscriptions().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        assert!(waited.is_ok(), "{last:?}");
    }

    async fn create_subscription(&self, id: &str) {
        let (project, create) = (&self.settings.projects[0], self.subscriptions.create_subscription());
        let create = create
            .set_name(format!("projects/{project}/subscriptions/{id}"))
            .set_topic(format!("projects/{project}/topics/tributary-app-shop"));
        bounded("a subscription", create.send()).await.unwrap();
    }

    async fn delete_topic(&self) {
        let topic = format!("projects/{}/topics/tributary-app-shop", self.settings.projects[0]);
        self.topics.delete_topic().set_topic(topic).send().await.unwrap();
    }
}

/// A project on the shared emulator, with an engine.
async fn start() -> Option<(Project, Arc<PubSub>)> {
    let settings = settings(&shared_emulator().await?);
    let engine = Arc::new(PubSub::open(settings.clone()).await.unwrap());
    Some((Project::new(settings).await, engine))
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_readers_and_a_closed_engine_leave_no_subscriptions() {
    let Some((project, engine)) = start().await else { return };
    engine.create(&app("shop")).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..5 {
        readers.push(follow(&*engine, Start::Now).await);
    }
    assert_eq!(
        project.subscriptions().await.len(),
        5 + 1,
        "five readers and one heartbeat"
    );
    readers.truncate(2);
    project.until_subscriptions(|all| all.len() == 2 + 1).await;
    engine.close().await;
    assert_eq!(project.subscriptions().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_replica_removes_its_orphaned_subscriptions_and_no_others() {
    let Some((project, other)) = start().await else { return };
    other.create(&app("shop")).await.unwrap();
    let _read = follow(&*other, Start::Now).await;
    let others = project.subscriptions().await;
    let settings = PubSubSettings {
        replica: "replica-2".to_owned(),
        ..project.settings.clone()
    };
    // A killed process leaves a reader's subscription and an old heartbeat.
    for left in ["tributary-tail.replica-2.00ff", "tributary-life.replica-2.1"] {
        project.create_subscription(left).await;
    }
    let next = Arc::new(PubSub::open(settings).await.unwrap());
    let read = follow(&*next, Start::Now).await;
    let housekeeping = tokio::spawn({
        let next = Arc::clone(&next);
        async move { next.run_housekeeping().await }
    });
    let is_orphan = |name: &String| name.ends_with("replica-2.00ff") || name.ends_with("replica-2.1");
    project.until_subscriptions(|all| !all.iter().any(is_orphan)).await;
    let all = project.subscriptions().await;
    assert!(others.iter().all(|name| all.contains(name)), "{all:?} has {others:?}");
    drop(read);
    next.close().await;
    bounded("the end of housekeeping", housekeeping).await.unwrap();
    assert_eq!(project.subscriptions().await, others);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reports_an_interruption_when_its_topic_is_deleted_and_recreated() {
    let Some((project, engine)) = start().await else { return };
    let web = fresh("web");
    engine.create(&app("shop")).await.unwrap();
    let mut reader = follow(&*engine, Start::Now).await;
    let mut durable = bounded("a subscription", engine.subscribe(&app("shop"), "drain"))
        .await
        .unwrap();
    publish_all(&*engine, [lines(&web, 0, 1)]).await;
    assert_eq!(next_delivery(&mut reader).await.batch.seq, 0);
    let delivery = next_delivery(&mut durable).await;
    delivery.ack.unwrap().ack();
    project.delete_topic().await;
    // The publisher recreates the topic.
    publish_all(&*engine, [lines(&web, 1, 2)]).await;
    for reader in [&mut reader, &mut durable] {
        assert!(matches!(next(reader).await, ReaderItem::Interrupted { .. }));
        assert_eq!(
            next_delivery(reader).await.batch.seq,
            1,
            "the first batch of the new topic"
        );
    }
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_while_the_service_is_unavailable() {
    let _turn = Turn::shared().await;
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let engine = Arc::new(PubSub::open(settings(emulator.host())).await.unwrap());
    let web = fresh("web");
    engine.create(&app("shop")).await.unwrap();
    let mut reader = Assembled::new(follow(&*engine, Start::Now).await, 4);
    publish_all(&*engine, (0..10).map(|n| lines(&web, n, n + 1))).await;
    emulator.pause().await;
    let rejected = bounded("an answer", engine.publish(lines(&web, 10, 11)))
        .await
        .unwrap_err();
    assert!(
        matches!(rejected, BusError::Unavailable(_)) && rejected.is_transient(),
        "{rejected}"
    );
    assert!(bounded("an answer", engine.check()).await.is_err());
    emulator.resume().await;
    let retry = async { while engine.publish(lines(&web, 10, 11)).await.is_err() {} };
    bounded("accepted", retry).await;
    publish_all(&*engine, [crate::support::end(&web, 11)]).await;
    assert_eq!(joined(&reader.until_ended(1).await["web"]), 11);
    engine.close().await;
    emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_service_is_unavailable_and_an_invalid_setting_is_an_error() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let unreachable = settings(&format!("127.0.0.1:{port}"));
    let engine = PubSub::open(unreachable.clone()).await.unwrap();
    let rejected = bounded("an answer", engine.follow(&app("shop"), Start::Now))
        .await
        .err()
        .unwrap();
    assert!(matches!(rejected, BusError::Unavailable(_)), "{rejected}");
    let rejected = bounded("an answer", engine.publish(lines(&fresh("web"), 0, 1)))
        .await
        .unwrap_err();
    assert!(matches!(rejected, BusError::Unavailable(_)), "{rejected}");
    let invalid = PubSubSettings {
        projects: vec!["no project".to_owned()],
        ..unreachable
    };
    assert!(matches!(PubSub::open(invalid).await.err(), Some(BusError::Settings(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_compressed_if_that_saves_bytes_and_readers_accept_both_forms() {
    let Some((project, engine)) = start().await else { return };
    let plain = PubSub::open(PubSubSettings {
        compression: false,
        ..project.settings.clone()
    });
    let plain = plain.await.unwrap();
    let web = fresh("web");
    engine.create(&app("shop")).await.unwrap();
    project.create_subscription("raw").await;
    let mut reader = Assembled::new(follow(&*engine, Start::Now).await, 4);
    publish_all(&*engine, [lines(&web, 0, 200)]).await;
    publish_all(&plain, [lines(&web, 200, 400)]).await;
    publish_all(&*engine, [lines(&web, 400, 401), crate::support::end(&web, 401)]).await;
    assert_eq!(joined(&reader.until_ended(1).await["web"]), 401);
    let host = format!("http://{}", project.settings.emulator.as_ref().unwrap());
    let subscriber = Subscriber::builder()
        .with_endpoint(host)
        .with_credentials(anonymous::Builder::new().build())
        .build();
    let name = format!("projects/{}/subscriptions/raw", project.settings.projects[0]);
    let mut messages = bounded("a client", subscriber).await.unwrap().subscribe(name).build();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let (message, handler) = bounded("a message", messages.next()).await.unwrap().unwrap();
        handler.ack();
        if message.attributes.contains_key("marker") {
            // With which the reader learns where it starts.
            continue;
        }
        let seq: u64 = message.attributes["seq"].parse().unwrap();
        seen.push((seq, message.attributes.get("encoding").cloned(), message.data.len()));
    }
    seen.sort_unstable();
    let encodings: Vec<Option<&str>> = seen.iter().map(|(_, encoding, _)| encoding.as_deref()).collect();
    assert_eq!(encodings, [Some("zstd"), None, None, None], "{seen:?}");
    assert!(seen[0].2 * 3 < seen[1].2, "{seen:?}");
    plain.close().await;
    engine.close().await;
}
