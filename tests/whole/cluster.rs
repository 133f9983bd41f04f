//! Collector and streamer as services of their own, which meet on Pub/Sub.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    emulator::Emulator,
    support::*,
    up::{Cluster, LINES, Numbered, expected, first_tail, numbered},
};

pub async fn collector(cluster: &Cluster, emulator: &Emulator) -> Tributary {
    let data_dir = cluster.dir.path().join("collector").display().to_string();
    let args = [
        "collector",
        "--bus",
        "pubsub:whole",
        "--admin-listen",
        "127.0.0.1:0",
        "--data-dir",
        &data_dir,
    ];
    let env = [
        ("KUBECONFIG", &*cluster.kubeconfig),
        ("PUBSUB_EMULATOR_HOST", emulator.host()),
    ];
    Tributary::start(&args, &env).await
}

pub async fn streamer(emulator: &Emulator, flags: &[&str]) -> Tributary {
    let always = [
        "streamer",
        "--bus",
        "pubsub:whole",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    Tributary::start(&[&always, flags].concat(), &[("PUBSUB_EMULATOR_HOST", emulator.host())]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_on_pubsub_show_every_line_once_and_in_order_also_to_who_comes_late() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&numbered()).await;
    // The streamer first: it waits for an app that nobody has collected yet.
    let streamer = streamer(&emulator, &[]).await;
    let collector = collector(&cluster, &emulator).await;
    let mut tail = first_tail(&streamer).await;
    let mut seen = Numbered::default();
    while seen.total() < expected() {
        seen.take(&tail.line().await.expect("more lines"));
    }
    drop(tail);
    collector.terminate().await;
    let mut late = Numbered::default();
    for line in streamer
        .get_lines(&format!("/api/apps/load/logs?num_lines={}&follow=False", LINES * 2))
        .await
    {
        late.take(&line);
    }
    assert_eq!(late.total(), expected(), "each exactly once, also read back");
    streamer.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

/// How long the bus is away in the middle of the load.
const AWAY: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_away_for_twenty_seconds_midway_costs_nobody_a_line() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&numbered()).await;
    let streamer = streamer(&emulator, &[]).await;
    let collector = collector(&cluster, &emulator).await;
    let mut tail = first_tail(&streamer).await;
    let mut seen = Numbered::default();
    while seen.total() < expected() / 4 {
        seen.take(&tail.line().await.expect("more lines"));
    }
    emulator.pause().await;
    tokio::time::sleep(AWAY).await;
    emulator.resume().await;
    while seen.total() < expected() {
        seen.take(&tail.line().await.expect("more lines"));
    }
    drop(tail);
    let mut late = Numbered::default();
    let path = format!("/api/apps/load/logs?num_lines={}&follow=False", LINES * 2);
    streamer.get_lines(&path).await.iter().for_each(|line| late.take(line));
    assert_eq!(late.total(), expected(), "each exactly once, also read back");
    collector.terminate().await;
    streamer.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamer_that_is_told_to_stop_is_not_ready_while_a_reader_takes_its_last_lines() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&numbered()).await;
    let mut streamer = streamer(&emulator, &[]).await;
    let admin = streamer.other_addr().await;
    let collector = collector(&cluster, &emulator).await;
    drop(first_tail(&streamer).await);
    assert_eq!(Reading::open(admin, "/readyz").await.status(), 200);
    // One that is told of the end and does not answer: a WebSocket's close wants an answer, which is waited for.
    let mut reader = TcpStream::connect(streamer.addr).await.unwrap();
    let asked = "GET /api/apps/load/logs?num_lines=0 HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    reader.write_all(asked.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    bounded("an answer", reader.read_exact(&mut head)).await.unwrap();
    assert!(head.ends_with(b"101"));
    streamer.tell_to_stop().await;
    bounded("not ready", async {
        while Reading::open(admin, "/readyz").await.status() != 503 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // It goes, and so may the streamer.
    drop(reader);
    streamer.ended().await;
    collector.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

#[tokio::test]
async fn services_of_a_cluster_refuse_a_store_that_belongs_to_one_process() {
    for service in ["collector", "streamer"] {
        let output = run(&[service, "--bus", "embedded:/tmp/x"], &[]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.starts_with("error: ") && said.contains("belongs to one process"),
            "{said}"
        );
    }
}
