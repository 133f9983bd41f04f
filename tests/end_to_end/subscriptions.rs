//! Hundreds of live tails leave no subscription behind on Pub/Sub.

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

/// Returns a scenario of apps that print this many lines at this rate and keep running.
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

/// Lists the subscriptions of tails and the heartbeats of replicas on the emulator.
async fn subscriptions(emulator: &Emulator) -> Vec<String> {
    let host = emulator.host().parse().unwrap();
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = ResponseLines::open(
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

async fn wait_for_subscriptions(emulator: &Emulator, wanted: impl Fn(&[String]) -> bool) {
    bounded("the subscriptions", async {
        while !wanted(&subscriptions(emulator).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn is_tail(name: &str) -> bool {
    name.contains("/tributary-tail.")
}

/// Opens several tails of each app and waits for their first lines.
async fn tails(streamer: &Tributary) -> Vec<ResponseLines> {
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
async fn two_hundred_tails_of_fifty_apps_leave_no_subscription_even_after_a_kill() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&apps(1, 1)).await;
    let collector = collector(&cluster, &emulator).await;
    let flags = ["--idle-subscription-timeout", "1s", "--replica-name", "streamer-0"];
    let first = streamer(&emulator, &flags).await;
    let open = tails(&first).await;
    // One per app; subscriptions for history are deleted after use.
    wait_for_subscriptions(&emulator, |names| {
        names.iter().filter(|name| is_tail(name)).count() == APPS
    })
    .await;
    drop(open);
    wait_for_subscriptions(&emulator, |names| !names.iter().any(|name| is_tail(name))).await;
    // Killed with all tails open, and started again.
    let open = tails(&first).await;
    first.kill().await;
    drop(open);
    assert!(
        subscriptions(&emulator).await.iter().any(|name| is_tail(name)),
        "a kill leaves them behind"
    );
    let second = streamer(&emulator, &flags).await;
    wait_for_subscriptions(&emulator, |names| !names.iter().any(|name| is_tail(name))).await;
    let open = tails(&second).await;
    drop(open);
    second.terminate().await;
    assert_eq!(
        subscriptions(&emulator).await,
        Vec::<String>::new(),
        "a graceful shutdown deletes everything"
    );
    collector.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

/// Opens one tail after the other; each starts anywhere and has no gap and no repeat.
async fn open_tails_in_turn(streamer: &Tributary, app: usize, until: Instant) -> usize {
    let (path, mut received) = (format!("/api/apps/app-{app}/logs?num_lines=10"), 0);
    while Instant::now() < until {
        let mut tail = streamer.get(&path).await;
        assert_eq!(tail.status(), 200);
        let mut next = None;
        let duration = Duration::from_millis(rand::random_range(200..6000));
        let leave = Instant::now() + duration;
        while let Ok(line) = tokio::time::timeout_at(leave, tail.line()).await {
            let line = line.expect("more lines");
            let number = line
                .rsplit("hello ")
                .next()
                .and_then(|number| number.parse::<u64>().ok());
            let number = number.unwrap_or_else(|| panic!("unexpected gap: {line}"));
            assert!(next.is_none_or(|next| next == number), "{next:?}, and then {line}");
            next = Some(number + 1);
            received += 1;
        }
    }
    received
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes"]
async fn tails_that_open_and_close_for_five_minutes_have_no_gap() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&apps(20_000, 20)).await;
    let collector = collector(&cluster, &emulator).await;
    let streamer = streamer(&emulator, &["--idle-subscription-timeout", "1s"]).await;
    drop(tails(&streamer).await);
    let until = Instant::now() + Duration::from_secs(300);
    let tails = (0..APPS * 2).map(|n| open_tails_in_turn(&streamer, n % APPS, until));
    let received: usize = join_all(tails).await.into_iter().sum();
    assert!(received > 100_000, "{received}");
    streamer.terminate().await;
    assert_eq!(subscriptions(&emulator).await, Vec::<String>::new());
    collector.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}
