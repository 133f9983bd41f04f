//! Metrics, alert rules and the dashboard agree with each other and with the docs.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{demo::start_demo, support::*};

/// If set, a missing promtool fails the tests instead of skipping them.
const REQUIRED: &str = "TRIBUTARY_REQUIRE_PROMTOOL";

/// Path that tests/support/install-promtool installs to.
const INSTALLED: &str = "/opt/tributary-promtool/usr/bin/promtool";

/// Returns the path of promtool; `None`, with a line on stderr, if it is not installed.
pub async fn promtool() -> Option<PathBuf> {
    for path in ["promtool", INSTALLED] {
        let tried = Command::new(path).arg("--version").output().await;
        if tried.is_ok_and(|tried| tried.status.success()) {
            return Some(path.into());
        }
    }
    assert!(
        std::env::var_os(REQUIRED).is_none(),
        "promtool is missing, and {REQUIRED} is set"
    );
    eprintln!("skipped: promtool is not installed (tests/support/install-promtool brings it)");
    None
}

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring")
}

#[tokio::test]
async fn promtool_accepts_the_rules_and_their_tests_pass() {
    let Some(promtool) = promtool().await else { return };
    for (verb, file) in [("check", "alerts.yaml"), ("test", "alerts_test.yaml")] {
        let done = Command::new(&promtool)
            .args([verb, "rules", file])
            .current_dir(monitoring())
            .output();
        let done = bounded("promtool", done).await.unwrap();
        let output = [done.stdout, done.stderr]
            .map(|text| String::from_utf8(text).unwrap())
            .concat();
        assert!(done.status.success() && output.contains("SUCCESS"), "{output}");
    }
    // Every rule has a test that it fires and a test that it does not.
    let (rules, tests) = ["alerts.yaml", "alerts_test.yaml"]
        .map(|file| std::fs::read_to_string(monitoring().join(file)).unwrap())
        .into();
    for rule in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert_eq!(tests.matches(&format!("alertname: {rule}")).count(), 2, "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metric_names_follow_the_conventions_of_prometheus() {
    let Some(promtool) = promtool().await else { return };
    let mut demo = start_demo(&["--admin-listen", "127.0.0.1:0"]).await;
    let admin = demo.admin_addr().await;
    let exposition = ResponseLines::open(admin, "/metrics").await.rest().await;
    // promtool reads the older text format, where the TYPE line has the full name of a counter.
    let counters: Vec<&str> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let older: Vec<String> = exposition
        .lines()
        .filter(|line| *line != "# EOF")
        .map(|line| {
            let counter = counters
                .iter()
                .find(|name| line.starts_with('#') && line.split(' ').nth(2) == Some(name));
            counter.map_or_else(
                || line.to_owned(),
                |name| line.replacen(name, &format!("{name}_total"), 1),
            )
        })
        .collect();
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(format!("{}\n", older.join("\n")).as_bytes())
        .await
        .unwrap();
    drop(stdin);
    let done = bounded("promtool", child.wait_with_output()).await.unwrap();
    let output = [done.stdout, done.stderr]
        .map(|text| String::from_utf8(text).unwrap())
        .concat();
    assert!(
        done.status.success() && output.is_empty() && counters.len() > 10,
        "{output}"
    );
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_rule_and_panel_uses_documented_metrics() {
    let read = |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (page, alerts) = (read("docs/reference/metrics.md"), read("deploy/monitoring/alerts.yaml"));
    let mut demo = start_demo(&["--admin-listen", "127.0.0.1:0"]).await;
    let admin = demo.admin_addr().await;
    let exposition = ResponseLines::open(admin, "/metrics").await.rest().await;
    let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<String> = types
        .map(|described| match described.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        })
        .collect();
    assert!(names.len() > 25, "{names:?}");
    for name in &names {
        assert!(
            page.contains(&format!("`{name}")),
            "{name} is not in docs/reference/metrics.md"
        );
    }
    let rules: Value = serde_saphyr::from_str(&alerts).unwrap();
    let runbook = read("docs/operators/runbook.md");
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let (alert, expr) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        assert!(
            runbook.contains(&format!("`{alert}`")),
            "{alert} is not in docs/operators/runbook.md"
        );
        assert_documented(alert, expr, &page);
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let (title, expr) = (
            panel["title"].as_str().unwrap(),
            panel["targets"][0]["expr"].as_str().unwrap(),
        );
        assert_documented(title, expr, &page);
    }
    demo.terminate().await;
}

/// Asserts that the page lists every metric of an expression; a bucket counts as its histogram.
fn assert_documented(what: &str, expr: &str, page: &str) {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics: Vec<&str> = words.filter(|word| word.starts_with("tributary_")).collect();
    // `up` is a metric of Prometheus itself.
    assert!(!metrics.is_empty() || expr.starts_with("up{"), "{what} uses no metric");
    for metric in metrics {
        let name = metric.strip_suffix("_bucket").unwrap_or(metric);
        let is_listed = ["`", "{"].iter().any(|end| page.contains(&format!("`{name}{end}")));
        assert!(is_listed, "{what} uses {metric}");
    }
}
