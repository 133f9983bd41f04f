//! What operators look at: metrics that are explained, and rules and panels that ask for those.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{demo::start_demo, support::*};

/// Set where a missing promtool is a failure, rather than tests left out.
const REQUIRED: &str = "TRIBUTARY_REQUIRE_PROMTOOL";

/// Where tests/support/install-promtool puts it.
const INSTALLED: &str = "/opt/tributary-promtool/usr/bin/promtool";

/// Where it is. `None`, and a line on stderr, where it is not.
async fn promtool() -> Option<PathBuf> {
    for place in ["promtool", INSTALLED] {
        let tried = Command::new(place).arg("--version").output().await;
        if tried.is_ok_and(|tried| tried.status.success()) {
            return Some(place.into());
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
async fn promtool_takes_the_rules_and_each_rings_for_what_it_is_about_and_for_nothing_else() {
    let Some(promtool) = promtool().await else { return };
    for (verb, file) in [("check", "alerts.yaml"), ("test", "alerts_test.yaml")] {
        let done = Command::new(&promtool)
            .args([verb, "rules", file])
            .current_dir(monitoring())
            .output();
        let done = bounded("promtool", done).await.unwrap();
        let said = [done.stdout, done.stderr]
            .map(|said| String::from_utf8(said).unwrap())
            .concat();
        assert!(done.status.success() && said.contains("SUCCESS"), "{said}");
    }
    // A rule that nobody tries is none.
    let (rules, tests) = ["alerts.yaml", "alerts_test.yaml"]
        .map(|file| std::fs::read_to_string(monitoring().join(file)).unwrap())
        .into();
    for rule in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert_eq!(tests.matches(&format!("alertname: {rule}")).count(), 2, "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_called_as_prometheus_would_have_it() {
    let Some(promtool) = promtool().await else { return };
    let mut demo = start_demo(&["--admin-listen", "127.0.0.1:0"]).await;
    let admin = demo.other_addr().await;
    let shown = Reading::open(admin, "/metrics").await.rest().await;
    // promtool reads the older format, where a counter's name is told in full.
    let counters: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let older: Vec<String> = shown
        .lines()
        .filter(|line| *line != "# EOF")
        .map(|line| {
            let told = counters
                .iter()
                .find(|name| line.starts_with('#') && line.split(' ').nth(2) == Some(name));
            told.map_or_else(
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
    let said = [done.stdout, done.stderr]
        .map(|said| String::from_utf8(said).unwrap())
        .concat();
    assert!(
        done.status.success() && said.is_empty() && counters.len() > 10,
        "{said}"
    );
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_explained_and_every_rule_asks_for_one_that_there_is() {
    let read = |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (explained, alerts) = (read("docs/reference/metrics.md"), read("deploy/monitoring/alerts.yaml"));
    let mut demo = start_demo(&["--admin-listen", "127.0.0.1:0"]).await;
    let admin = demo.other_addr().await;
    let shown = Reading::open(admin, "/metrics").await.rest().await;
    let types = shown.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<String> = types
        .map(|described| match described.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        })
        .collect();
    assert!(names.len() > 25, "{names:?}");
    for name in &names {
        assert!(
            explained.contains(&format!("`{name}")),
            "{name} is not in docs/reference/metrics.md"
        );
    }
    let rules: Value = serde_saphyr::from_str(&alerts).unwrap();
    let runbook = read("docs/operations.md");
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let (alert, expr) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        assert!(
            runbook.contains(&format!("`{alert}`")),
            "{alert} is not in docs/operations.md"
        );
        asks_for_what_is_explained(alert, expr, &explained);
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let (title, expr) = (
            panel["title"].as_str().unwrap(),
            panel["targets"][0]["expr"].as_str().unwrap(),
        );
        asks_for_what_is_explained(title, expr, &explained);
    }
    demo.terminate().await;
}

/// Every metric of an expression stands in the page, a histogram's parts by its name.
fn asks_for_what_is_explained(what: &str, expr: &str, explained: &str) {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics: Vec<&str> = words.filter(|word| word.starts_with("tributary_")).collect();
    // Prometheus itself knows whether a service answers.
    assert!(
        !metrics.is_empty() || expr.starts_with("up{"),
        "{what} asks for nothing"
    );
    for metric in metrics {
        let name = metric.strip_suffix("_bucket").unwrap_or(metric);
        let ends = ["`", "{"]
            .iter()
            .any(|end| explained.contains(&format!("`{name}{end}")));
        assert!(ends, "{what} asks for {metric}");
    }
}
