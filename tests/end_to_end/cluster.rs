//! Collector and streamer as separate services on Pub/Sub.

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
async fn a_live_tail_and_later_history_have_every_line_once_and_in_order() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&numbered()).await;
    // The streamer starts first and waits for the app.
    let streamer = streamer(&emulator, &[]).await;
    let collector = collector(&cluster, &emulator).await;
    let mut tail = first_tail(&streamer).await;
    let mut seen = Numbered::default();
    while seen.total() < expected() {
        seen.record(&tail.line().await.expect("more lines"));
    }
    drop(tail);
    collector.terminate().await;
    let mut history = Numbered::default();
    for line in streamer
        .get_lines(&format!("/api/apps/load/logs?num_lines={}&follow=False", LINES * 2))
        .await
    {
        history.record(&line);
    }
    assert_eq!(history.total(), expected(), "every line exactly once in the history");
    streamer.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

/// Outage of the bus in the middle of the load.
const OUTAGE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_bus_for_twenty_seconds_loses_no_line() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&numbered()).await;
    let streamer = streamer(&emulator, &[]).await;
    let collector = collector(&cluster, &emulator).await;
    let mut tail = first_tail(&streamer).await;
    let mut seen = Numbered::default();
    while seen.total() < expected() / 4 {
        seen.record(&tail.line().await.expect("more lines"));
    }
    emulator.pause().await;
    tokio::time::sleep(OUTAGE).await;
    emulator.resume().await;
    while seen.total() < expected() {
        seen.record(&tail.line().await.expect("more lines"));
    }
    drop(tail);
    let mut history = Numbered::default();
    let path = format!("/api/apps/load/logs?num_lines={}&follow=False", LINES * 2);
    streamer
        .get_lines(&path)
        .await
        .iter()
        .for_each(|line| history.record(line));
    assert_eq!(history.total(), expected(), "every line exactly once in the history");
    collector.terminate().await;
    streamer.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamer_that_shuts_down_is_not_ready_while_a_client_is_still_connected() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&numbered()).await;
    let mut streamer = streamer(&emulator, &[]).await;
    let admin = streamer.admin_addr().await;
    let collector = collector(&cluster, &emulator).await;
    drop(first_tail(&streamer).await);
    assert_eq!(ResponseLines::open(admin, "/readyz").await.status(), 200);
    // The streamer waits for the answer to a WebSocket close frame, which this client does not
    // send.
    let mut reader = TcpStream::connect(streamer.addr).await.unwrap();
    let request = "GET /api/apps/load/logs?num_lines=0 HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    reader.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    bounded("an answer", reader.read_exact(&mut head)).await.unwrap();
    assert!(head.ends_with(b"101"));
    streamer.send_sigterm().await;
    bounded("not ready", async {
        while ResponseLines::open(admin, "/readyz").await.status() != 503 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // The streamer ends once the client has disconnected.
    drop(reader);
    streamer.wait_for_exit().await;
    collector.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

#[tokio::test]
async fn separate_services_reject_an_embedded_bus() {
    for service in ["collector", "streamer"] {
        let output = run(&[service, "--bus", "embedded:/tmp/x"], &[]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains("belongs to one process"),
            "{stderr}"
        );
    }
}
