//! Readers come and go by the hundred, and leave nothing behind on Pub/Sub.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use futures::future::join_all;
use serde_json::Value;

use crate::{
    cluster::{collector, streamer},
    emulator::Emulator,
    support::*,
    up::Cluster,
};

const APPS: usize = 50;
const TAILS_OF_EACH: usize = 4;

/// Apps that say one line each and stay.
fn apps() -> String {
    let pod = |app: usize| {
        format!(
            r#"
            [[pods]]
            namespace = "app-{app}"
            name = "web"
            [[pods.containers]]
            name = "main"
            lines = 1
            rate = 1
            text = "hello {{seq}}"
            restart = "Never"
            "#
        )
    };
    let pods: String = (0..APPS).map(pod).collect();
    format!("seed = 1\n{pods}")
}

/// The subscriptions of readers, and what their replicas show of their life, as the emulator lists them.
async fn left(emulator: &Emulator) -> Vec<String> {
    let host = emulator.host().parse().unwrap();
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = Reading::open(
            host,
            &format!("/v1/projects/whole/subscriptions?pageSize=1000&pageToken={token}"),
        )
        .await;
        let page: Value = serde_json::from_str(&page.rest().await).unwrap();
        let list = page["subscriptions"].as_array().cloned().unwrap_or_default();
        names.extend(list.iter().map(|one| one["name"].as_str().unwrap().to_owned()));
        match page["nextPageToken"].as_str() {
            Some(next) if !next.is_empty() => token = next.to_owned(),
            _ => return names,
        }
    }
}

async fn until_left(emulator: &Emulator, wanted: impl Fn(&[String]) -> bool) {
    bounded("the subscriptions' end", async {
        while !wanted(&left(emulator).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn is_tail(name: &str) -> bool {
    name.contains("/tributary-tail.")
}

/// A tail of each app, several times over, each with its first line.
async fn tails(streamer: &Tributary) -> Vec<Reading> {
    let tail = async |app: usize| {
        let path = format!("/api/apps/app-{app}/logs");
        let mut tail = bounded("the app", async {
            loop {
                let tail = streamer.get(&path).await;
                if tail.status() == 200 {
                    return tail;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(tail.line().await.expect("a line").ends_with("hello 0"));
        tail
    };
    join_all((0..APPS * TAILS_OF_EACH).map(|n| tail(n % APPS))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_hundred_tails_of_fifty_apps_no_subscription_is_left_nor_after_a_kill() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&apps()).await;
    let collector = collector(&cluster, &emulator).await;
    let flags = ["--linger", "1s", "--replica-name", "streamer-0"];
    let first = streamer(&emulator, &flags).await;
    let open = tails(&first).await;
    // One an app; those that read history back go as soon as they have.
    until_left(&emulator, |names| {
        names.iter().filter(|name| is_tail(name)).count() == APPS
    })
    .await;
    drop(open);
    until_left(&emulator, |names| !names.iter().any(|name| is_tail(name))).await;
    // Killed with all of them open, and started again.
    let open = tails(&first).await;
    first.kill().await;
    drop(open);
    assert!(
        left(&emulator).await.iter().any(|name| is_tail(name)),
        "a kill leaves them behind"
    );
    let second = streamer(&emulator, &flags).await;
    until_left(&emulator, |names| !names.iter().any(|name| is_tail(name))).await;
    let open = tails(&second).await;
    drop(open);
    second.terminate().await;
    assert_eq!(
        left(&emulator).await,
        Vec::<String>::new(),
        "an orderly end leaves nothing at all"
    );
    collector.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}
