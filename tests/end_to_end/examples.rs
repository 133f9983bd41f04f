//! The files in examples/ work as they are.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    demo::{demo_with_key, start_demo},
    monitoring::promtool,
    support::*,
};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(example(name)).unwrap()
}

fn repository_file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Runs the curl recipes and returns their output.
async fn run_recipes(server: &Tributary, key: Option<&str>) -> String {
    let mut command = Command::new("sh");
    command
        .arg(example("curl.sh"))
        .env("SERVER", format!("http://{}", server.addr))
        .env("APP", "shop")
        .kill_on_drop(true);
    if let Some(key) = key {
        command.env("KEY", key);
    }
    let output = bounded("the recipes", command.output()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{stderr}\n{stdout}");
    stdout
}

/// Waits until an app has printed this many lines.
async fn wait_for_lines(server: &Tributary, path: &str, lines: usize) {
    bounded("lines", async {
        while server.get_lines(path).await.len() < lines {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_recipes_run_against_a_demo() {
    let demo = start_demo(&["--allow-address", "127.0.0.0/8"]).await;
    wait_for_lines(&demo, "/api/apps/shop/logs?follow=false", 20).await;
    let output = run_recipes(&demo, None).await;
    let recipe = |title: &str| -> Vec<String> {
        let lines = output
            .lines()
            .skip_while(|line| !line.starts_with(&format!("# {title}")))
            .skip(1);
        lines
            .take_while(|line| !line.starts_with("# "))
            .map(str::to_owned)
            .collect()
    };
    let last = recipe("Print the last 10 lines");
    assert_eq!(last.len(), 10, "{output}");
    last.iter().for_each(|line| assert_eq!(parse_line(line).app, "shop"));
    assert!(recipe("Follow").len() >= 5, "{output}");
    let objects: Vec<Value> = recipe("Print JSON")
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        objects.iter().filter(|line| line["app"] == "shop").count(),
        3,
        "{output}"
    );
    let matching = recipe("Print only");
    assert!(
        matching
            .iter()
            .all(|line| line.contains("GET") || line.contains("POST")),
        "{output}"
    );
    assert!(recipe("Create a link")[0].contains("/api/apps/shop/logs"), "{output}");
    assert!(
        recipe("Add a drain")[0].contains("syslog+tls://logs.example.com:6514"),
        "{output}"
    );
    assert_eq!(recipe("Read the API description"), ["200 application/json"], "{output}");
    let server = format!("http://{}", demo.addr);
    let url = "syslog+tls://logs.example.com:6514";
    let added = run(&["drains", "add", "shop", url, "--server", &server], &[]).await;
    assert!(added.status.success());
    run_recipes(&demo, None).await;
    let kept = run(&["drains", "list", "shop", "--server", &server], &[]).await;
    assert!(String::from_utf8(kept.stdout).unwrap().contains(url));
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_recipes_authenticate_with_a_key() {
    let (_dir, demo, key) = demo_with_key().await;
    let server = format!("http://{}", demo.addr);
    let args = [
        "logs",
        "shop",
        "-n",
        "20",
        "--no-follow",
        "--server",
        &server,
        "--key",
        &key,
    ];
    // The server finds a new key within a second.
    bounded("the key", async {
        while run(&args, &[]).await.stdout.split(|byte| *byte == b'\n').count() <= 20 {}
    })
    .await;
    let output = run_recipes(&demo, Some(&key)).await;
    assert!(output.contains("200 application/json"), "{output}");
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_requests_a_path_of_the_api_and_handles_its_events() {
    let page = read("eventsource.html");
    let demo = start_demo(&[]).await;
    // The path of the page's script, for the app `shop`.
    assert!(page.contains("`/api/apps/${encodeURIComponent(app)}/logs?num_lines=100`"));
    let description: Value = serde_json::from_str(&demo.get("/openapi.json").await.rest().await).unwrap();
    assert!(description["paths"]["/api/apps/{app}/logs"]["get"].is_object());
    assert!(description["paths"]["/api/apps/{app}/log-sessions"]["post"].is_object());
    assert!(page.contains("/api/apps/shop/log-sessions"));
    // What an EventSource sends, and the events that it gets until the server shuts down.
    let mut stream = ResponseLines::open_as(demo.addr, "/api/apps/shop/logs?num_lines=100", "text/event-stream").await;
    assert_eq!(stream.status(), 200);
    // An event with a name, such as `cursor`, carries no line.
    let data = async {
        let mut named = false;
        loop {
            let line = stream.line().await.unwrap();
            match line.strip_prefix("data: ") {
                Some(data) if !named => return serde_json::from_str::<Value>(data).unwrap(),
                _ => named = line.starts_with("event: ") || (named && !line.is_empty()),
            }
        }
    };
    let line = bounded("a line", data).await;
    for field in ["time", "app", "process", "text"] {
        assert!(
            line[field].is_string() && page.contains(&format!("line.{field}")),
            "{field}: {line}"
        );
    }
    demo.send_sigterm().await;
    let mut events = Vec::new();
    while let Some(line) = stream.line().await {
        events.extend(line.strip_prefix("event: ").map(str::to_owned));
    }
    // The page needs no cursor: the browser keeps the ID of each event.
    events.retain(|event| event != "cursor");
    assert_eq!(events, ["closing"]);
    for event in ["message", "closing"] {
        assert!(page.contains(&format!("addEventListener(\"{event}\"")), "{event}");
    }
    demo.wait_for_exit().await;
}

#[test]
fn the_ingress_leads_to_the_service_of_the_manifests() {
    let ingress: Value = serde_saphyr::from_str(&read("ingress.yaml")).unwrap();
    let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
    let manifests = repository_file("deploy/base/streamer.yaml");
    let service = manifests
        .split("\n---\n")
        .map(|object| serde_saphyr::from_str::<Value>(object).unwrap())
        .find(|object| object["kind"] == "Service" && object["metadata"]["name"] == backend["name"])
        .expect("the Service of the backend");
    let mut ports = service["spec"]["ports"].as_array().unwrap().iter();
    assert!(ports.any(|port| port["name"] == backend["port"]["name"]), "{service}");
    assert_eq!(ingress["apiVersion"], "networking.k8s.io/v1");
    assert_eq!(ingress["kind"], "Ingress");
}

#[tokio::test]
async fn prometheus_accepts_the_scrape_configuration() {
    let config = read("prometheus.yaml");
    let parsed: Value = serde_saphyr::from_str(&config).unwrap();
    let job = &parsed["scrape_configs"][0];
    assert_eq!(job["job_name"], "tributary");
    assert_eq!(job["relabel_configs"][0]["regex"], "admin");
    let Some(promtool) = promtool().await else { return };
    let dir = TempDir::new().unwrap();
    // Debian builds promtool without discovery in Kubernetes, so that part is checked as YAML only.
    let discovery =
        "    kubernetes_sd_configs:\n      - role: pod\n        namespaces:\n          names: [tributary]\n";
    assert!(config.contains(discovery));
    let config = config.replace(discovery, "    static_configs: []\n");
    std::fs::write(dir.path().join("prometheus.yaml"), config).unwrap();
    std::fs::write(
        dir.path().join("alerts.yaml"),
        repository_file("deploy/monitoring/alerts.yaml"),
    )
    .unwrap();
    let mut command = Command::new(promtool);
    command
        .args(["check", "config", "prometheus.yaml"])
        .current_dir(dir.path());
    let output = bounded("promtool", command.output()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && text.contains("SUCCESS"), "{text}");
}
