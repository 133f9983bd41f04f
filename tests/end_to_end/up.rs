//! `tributary up` on a simulated cluster: every line once and in order, through kills.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{collections::HashMap, net::SocketAddr, path::Path};

use tempfile::TempDir;

use crate::support::*;

const CONTAINERS: u64 = 6;
pub const LINES: u64 = 200_000;

/// A simulated cluster in its own process.
pub struct Cluster {
    kubesim: Tributary,
    pub kubeconfig: String,
    pub dir: TempDir,
}

impl Cluster {
    pub async fn start(scenario: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let kubeconfig = dir.path().join("kubeconfig").display().to_string();
        let file = dir.path().join("scenario.toml").display().to_string();
        std::fs::write(&file, scenario).unwrap();
        let kubesim = Tributary::start(&["kubesim", "--kubeconfig-out", &kubeconfig, "--scenario", &file], &[]).await;
        Self {
            kubesim,
            kubeconfig,
            dir,
        }
    }

    /// Returns the address of the API.
    pub fn addr(&self) -> SocketAddr {
        self.kubesim.addr
    }

    pub async fn up(&self, data_dir: &Path) -> Tributary {
        let data_dir = data_dir.display().to_string();
        let args = ["up", "--listen", "127.0.0.1:0", "--data-dir", &data_dir];
        Tributary::start(&args, &[("KUBECONFIG", &self.kubeconfig)]).await
    }

    pub async fn stop(self) {
        self.kubesim.terminate().await;
        drop(self.dir);
    }
}

/// Returns a scenario of the app `load`: containers that print numbered lines and keep running.
pub fn writers(containers: u64, lines: u64, rate: u64) -> String {
    format!(
        r#"
        seed = 1
        [[pods]]
        namespace = "load"
        name = "writer"
        replicas = {containers}
        [[pods.containers]]
        name = "main"
        lines = {lines}
        rate = {rate}
        size = 100
        text = "line {{seq}}"
        restart = "Never"
        "#
    )
}

/// Six containers with 20,000 lines per second in total.
pub fn numbered() -> String {
    writers(CONTAINERS, LINES / CONTAINERS, 20_000 / CONTAINERS)
}

/// Counts the lines of each process and asserts that their numbers have no gap and no repeat.
#[derive(Default)]
pub struct Numbered(HashMap<String, u64>);

impl Numbered {
    pub fn record(&mut self, line: &str) {
        let line = parse_line(line);
        assert_ne!(line.process, "tributary", "unexpected gap: {}", line.text);
        let seq: u64 = line
            .text
            .split_whitespace()
            .nth(1)
            .and_then(|seq| seq.parse().ok())
            .expect(line.text);
        let next = self.0.entry(line.process.to_owned()).or_default();
        assert_eq!(seq, *next, "{}", line.process);
        *next += 1;
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

pub fn expected() -> u64 {
    LINES / CONTAINERS * CONTAINERS
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_six_loud_containers_arrives_once_and_in_order() {
    let cluster = Cluster::start(&numbered()).await;
    let up = cluster.up(&cluster.dir.path().join("data")).await;
    let mut tail = first_tail(&up).await;
    let mut seen = Numbered::default();
    while seen.total() < expected() {
        seen.record(&tail.line().await.expect("more lines"));
    }
    assert_eq!(seen.0.len() as u64, CONTAINERS);
    drop(tail);
    up.terminate().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_kills_the_history_has_every_line_once() {
    let cluster = Cluster::start(&numbered()).await;
    let data_dir = cluster.dir.path().join("data");
    for part in [4, 2] {
        let up = cluster.up(&data_dir).await;
        let mut tail = first_tail(&up).await;
        // Part of the load; the lines before a kill are read again below.
        for _ in 0..expected() / part / 2 {
            tail.line().await.expect("more lines");
        }
        up.kill().await;
    }
    let up = cluster.up(&data_dir).await;
    let mut seen = Numbered::default();
    let mut tail = first_tail(&up).await;
    while seen.total() < expected() {
        seen.record(&tail.line().await.expect("more lines"));
    }
    drop(tail);
    let mut history = Numbered::default();
    for line in up
        .get_lines(&format!("/api/apps/load/logs?num_lines={}&follow=False", LINES * 2))
        .await
    {
        history.record(&line);
    }
    assert_eq!(history.total(), expected(), "every line exactly once in the history");
    up.terminate().await;
    cluster.stop().await;
}

/// Opens a tail from the first line on, as soon as the app exists.
pub async fn first_tail(up: &Tributary) -> ResponseLines {
    bounded("the app", async {
        loop {
            let tail = up.get("/api/apps/load/logs?num_lines=1000000").await;
            if tail.status() == 200 {
                return tail;
            }
            assert_eq!(tail.status(), 404);
            tokio::task::yield_now().await;
        }
    })
    .await
}
