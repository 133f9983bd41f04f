//! Readers come and go by the hundred, and leave nothing behind on Pub/Sub.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    cluster::{collector, streamer},
    emulator::Emulator,
    support::*,
    up::Cluster,
};

const APPS: usize = 50;
const TAILS_OF_EACH: usize = 4;

/// Apps that say so many lines each, at such a rate, and stay.
fn apps(lines: u64, rate: u64) -> String {
    let pod = |app: usize| {
        format!(
            r#"
            [[pods]]
            namespace = "app-{app}"
            name = "web"
            [[pods.containers]]
            name = "main"
            lines = {lines}
            rate = {rate}
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
        assert!(tail.line().await.expect("a line").contains("hello "));
        tail
    };
    join_all((0..APPS * TAILS_OF_EACH).map(|n| tail(n % APPS))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_hundred_tails_of_fifty_apps_no_subscription_is_left_nor_after_a_kill() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&apps(1, 1)).await;
    let collector = collector(&cluster, &emulator).await;
    let flags = ["--idle-subscription-timeout", "1s", "--replica-name", "streamer-0"];
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

/// One tail after the other of one app, each for a while: what it shows begins anywhere and has no hole and no repeat.
async fn comes_and_goes(streamer: &Tributary, app: usize, until: Instant) -> usize {
    let (path, mut shown) = (format!("/api/apps/app-{app}/logs?num_lines=10"), 0);
    while Instant::now() < until {
        let mut tail = streamer.get(&path).await;
        assert_eq!(tail.status(), 200);
        let mut next = None;
        let stay = Duration::from_millis(rand::random_range(200..6000));
        let leave = Instant::now() + stay;
        while let Ok(line) = tokio::time::timeout_at(leave, tail.line()).await {
            let line = line.expect("more lines");
            let number = line
                .rsplit("hello ")
                .next()
                .and_then(|number| number.parse::<u64>().ok());
            let number = number.unwrap_or_else(|| panic!("nothing is missing: {line}"));
            assert!(next.is_none_or(|next| next == number), "{next:?}, and then {line}");
            next = Some(number + 1);
            shown += 1;
        }
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes"]
async fn for_five_minutes_tails_of_fifty_apps_come_and_go_and_none_misses_a_line() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&apps(20_000, 20)).await;
    let collector = collector(&cluster, &emulator).await;
    let streamer = streamer(&emulator, &["--idle-subscription-timeout", "1s"]).await;
    drop(tails(&streamer).await);
    let until = Instant::now() + Duration::from_secs(300);
    let tails = (0..APPS * 2).map(|n| comes_and_goes(&streamer, n % APPS, until));
    let shown: usize = join_all(tails).await.into_iter().sum();
    assert!(shown > 100_000, "{shown}");
    streamer.terminate().await;
    assert_eq!(left(&emulator).await, Vec::<String>::new());
    collector.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}
