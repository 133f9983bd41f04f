//! `tributary demo`.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::collections::{HashMap, HashSet};

use tempfile::TempDir;
use tokio::process::Command;

use crate::support::*;

/// The demo's scenario without the bulk import that exceeds the rate limit.
const WITHOUT_GAPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kubesim/scenarios/demo.toml");

/// Starts a demo without gaps and waits until it has printed that its apps can be read.
pub async fn start_demo(flags: &[&str]) -> Tributary {
    let args = [&["demo", "--listen", "127.0.0.1:0", "--scenario", WITHOUT_GAPS], flags].concat();
    let mut demo = Tributary::start(&args, &[]).await;
    introduction(&mut demo).await;
    demo
}

/// Reads what a demo prints at start.
async fn introduction(demo: &mut Tributary) -> String {
    let mut lines = String::new();
    loop {
        let line = bounded("the introduction", demo.stdout.next_line())
            .await
            .unwrap()
            .unwrap();
        lines.push_str(&line);
        lines.push('\n');
        if line.starts_with("Stop with Ctrl-C") {
            return lines;
        }
    }
}

/// Starts a demo with `--auth keys` and creates an owner's key for its app `shop`.
pub async fn demo_with_key() -> (TempDir, Tributary, String) {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data").display().to_string();
    let allow = ["--allow-address", "127.0.0.0/8"];
    let demo = start_demo(&[&["--auth", "keys", "--data-dir", &data][..], &allow].concat()).await;
    let add = [
        "keys",
        "add",
        "--email",
        "me@example.com",
        "--app",
        "shop",
        "--data-dir",
        &data,
    ];
    let created = run(&add, &[]).await;
    assert!(created.status.success());
    let key = String::from_utf8(created.stdout).unwrap();
    (dir, demo, key.trim().to_owned())
}

/// Waits until an app has printed this many lines.
async fn wait_for_lines(demo: &Tributary, app: &str, count: usize) {
    let mut tail = demo.get(&format!("/api/apps/{app}/logs?num_lines=1000")).await;
    for _ in 0..count {
        tail.line().await.expect("more lines");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_prints_what_runs_and_commands_that_work() {
    let mut demo = Tributary::start(&["demo", "--listen", "127.0.0.1:0"], &[]).await;
    let text = introduction(&mut demo).await;
    let server = format!("http://{}", demo.addr);
    for part in [
        &format!("API      {server}/openapi.json"),
        "admin listener",
        "drains add",
        "gap notice (L12)",
        "/metrics",
        &format!("logs shop --server {server}\n"),
        &format!("curl -N '{server}/api/apps/shop/logs'\n"),
        &format!("curl -N '{server}/api/apps/mailer/logs'\n"),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explicit_rate_replaces_the_rate_of_the_demo() {
    let args = ["demo", "--listen", "127.0.0.1:0", "--app-rate", "0"];
    let mut demo = Tributary::start(&args, &[]).await;
    let text = introduction(&mut demo).await;
    assert!(!text.contains("L12") && text.contains("crashes"), "{text}");
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_the_demo_creates_a_key_that_works() {
    let mut demo = Tributary::start(&["demo", "--listen", "127.0.0.1:0", "--auth", "keys"], &[]).await;
    let text = introduction(&mut demo).await;
    let (server, path) = (format!("http://{}", demo.addr), "/api/apps/shop/logs");
    let key = text
        .split("API key  ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap();
    assert!(
        text.contains(&format!("curl -N -u demo@example.com:{key} '{server}{path}'")),
        "{text}"
    );
    assert!(
        text.contains(&format!("logs shop --server {server} --key {key}\n")),
        "{text}"
    );
    let args = ["logs", "shop", "-n", "1", "--server", &server, "--key", key];
    let mut logs = start_client(&args, &[]);
    assert_eq!(parse_line(&logs.line().await).app, "shop");
    logs.interrupt().await;
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_lines_at_once_and_a_gap_and_a_crash_within_a_minute() {
    let mut demo = Tributary::start(&["demo", "--listen", "127.0.0.1:0"], &[]).await;
    introduction(&mut demo).await;
    let started = std::time::Instant::now();
    let mut shop = demo.get("/api/apps/shop/logs").await;
    shop.line().await.unwrap();
    // The apps have printed while they started; after that no pause is longer than a few seconds.
    let mut longest = std::time::Duration::ZERO;
    while started.elapsed() < std::time::Duration::from_secs(15) {
        let waiting = std::time::Instant::now();
        shop.line().await.unwrap();
        longest = longest.max(waiting.elapsed());
    }
    assert!(longest < std::time::Duration::from_secs(5), "{longest:?}");
    let gap = async { while !shop.line().await.unwrap().contains("shop[tributary]: Error L12") {} };
    bounded("a gap notice", gap).await;
    let mut mailer = demo.get("/api/apps/mailer/logs?num_lines=1000").await;
    let (mut crashes, mut starts) = (0, 0);
    bounded("a crash and a restart", async {
        while crashes == 0 || starts < 2 {
            let line = mailer.line().await.unwrap();
            crashes += u32::from(line.contains("Traceback"));
            starts += u32::from(line.contains("reports: starting"));
        }
    })
    .await;
    assert!(
        started.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_of_three_pods_can_be_read() {
    let demo = start_demo(&[]).await;
    for app in ["mailer", "shop"] {
        let mut tail = demo.get(&format!("/api/apps/{app}/logs")).await;
        assert_eq!(tail.status(), 200);
        let mut processes = HashSet::new();
        while processes.len() < 3 {
            let line = tail.line().await.unwrap();
            let line = parse_line(&line);
            assert_eq!(line.app, app);
            assert_ne!(line.process, "tributary", "unexpected gap: {}", line.text);
            processes.insert(line.process.to_owned());
        }
    }
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_fifty_lines_returns_fifty_and_ends() {
    let demo = start_demo(&[]).await;
    for app in ["mailer", "shop"] {
        // The pods need a moment to print their first lines.
        let path = format!("/api/apps/{app}/logs?num_lines=50&follow=False");
        let mut lines = Vec::new();
        bounded("fifty lines", async {
            while lines.len() < 50 {
                lines = demo.get_lines(&path).await;
            }
        })
        .await;
        assert_eq!(lines.len(), 50);
        let times: Vec<&str> = lines.iter().map(|line| parse_line(line).time).collect();
        assert!(times.is_sorted(), "merged by time");
    }
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_serves_the_same_lines_as_kubectl() {
    if !has_kubectl().await {
        return;
    }
    let dir = TempDir::new().unwrap();
    let kubeconfig = dir.path().join("kubeconfig").display().to_string();
    let demo = start_demo(&["--kubeconfig-out", &kubeconfig]).await;
    for app in ["mailer", "shop"] {
        wait_for_lines(&demo, app, 90).await;
        let lines = demo
            .get_lines(&format!("/api/apps/{app}/logs?num_lines=80&follow=False"))
            .await;
        let mut by_process: HashMap<String, Vec<(String, String)>> = HashMap::new();
        for line in &lines {
            let line = parse_line(line);
            let time = line.time.trim_end_matches("+00:00").to_owned();
            by_process
                .entry(line.process.to_owned())
                .or_default()
                .push((time, line.text.to_owned()));
        }
        assert_eq!(by_process.len(), 3);
        for (pod, ours) in by_process {
            let mut theirs = Vec::new();
            // One pod crashes repeatedly; kubectl can show its last two instances.
            for more in [&["--previous"][..], &[]] {
                theirs.extend(kubectl_logs(&kubeconfig, app, &pod, more).await);
            }
            // kubectl runs later, so it may have newer lines, and of the crashing pod only two
            // instances.
            let crashes = pod.starts_with("reports");
            let Some(last) = theirs.iter().position(|line| Some(line) == ours.last()) else {
                assert!(crashes, "kubectl has our last line of {pod}");
                continue;
            };
            let both = ours.len().min(last + 1);
            assert!(both == ours.len() || crashes, "kubectl has all our lines of {pod}");
            assert_eq!(
                theirs[last + 1 - both..=last],
                ours[ours.len() - both..],
                "the same lines, texts and times, in the same order: {pod}"
            );
        }
    }
    demo.terminate().await;
}

/// Returns a pod's lines from kubectl, with times in microseconds; empty if kubectl has none.
async fn kubectl_logs(kubeconfig: &str, namespace: &str, pod: &str, more: &[&str]) -> Vec<(String, String)> {
    let args = ["--kubeconfig", kubeconfig, "logs", "-n", namespace, pod, "--timestamps"];
    let output = bounded("kubectl", Command::new("kubectl").args(args).args(more).output())
        .await
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines = stdout.lines().filter_map(|line| line.split_once(' '));
    // A line without a timestamp is the kubelet's error message: the instance is gone.
    let lines = lines.filter(|(time, _)| time.len() == "2026-11-23T07:00:00.123456789Z".len());
    lines
        .map(|(time, text)| (time[..26].to_owned(), text.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_reads_log_files_and_keeps_them_in_a_given_directory() {
    let dir = TempDir::new().unwrap();
    let pods = dir.path().join("pods");
    let demo = start_demo(&["--source", "files", "--pod-log-dir", &pods.display().to_string()]).await;
    for app in ["mailer", "shop"] {
        wait_for_lines(&demo, app, 20).await;
        for line in demo.get_lines(&format!("/api/apps/{app}/logs?follow=False")).await {
            assert_ne!(parse_line(&line).process, "tributary", "unexpected gap: {line}");
        }
        let prefix = format!("{app}_");
        let mut names = std::fs::read_dir(&pods)
            .unwrap()
            .map(|pod| pod.unwrap().file_name().into_string().unwrap());
        assert!(names.any(|name| name.starts_with(&prefix)));
    }
    demo.terminate().await;
    // Without a given directory they are temporary.
    let demo = start_demo(&["--source", "files"]).await;
    wait_for_lines(&demo, "shop", 20).await;
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_a_live_tail_ends_with_a_complete_body() {
    let demo = start_demo(&[]).await;
    let mut tail = demo.get("/api/apps/shop/logs").await;
    tail.line().await.unwrap();
    let (_, ended) = tokio::join!(demo.terminate(), async {
        while tail.line().await.is_some() {}
        true
    });
    assert!(ended);
}

pub async fn has_kubectl() -> bool {
    let found = Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .await
        .is_ok_and(|output| output.status.success());
    let required = std::env::var_os("TRIBUTARY_REQUIRE_KUBECTL").is_some_and(|value| value == "1");
    assert!(
        found || !required,
        "kubectl is missing, and TRIBUTARY_REQUIRE_KUBECTL=1 is set"
    );
    if !found {
        eprintln!("skipped: kubectl is not installed");
    }
    found
}
