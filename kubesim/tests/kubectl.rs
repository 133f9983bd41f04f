//! kubectl works against the simulated cluster.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::process::{Output, Stdio};

use kubesim::{Cluster, PodPlan, RestartPolicy, Scenario};
use support::{cluster, with_timeout};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// kubectl with its own kubeconfig and cache.
struct Kubectl {
    home: TempDir,
}

impl Kubectl {
    /// Returns `None` if kubectl is not installed, unless the environment requires it.
    async fn find(cluster: &Cluster) -> Option<Self> {
        let version = Command::new("kubectl")
            .args(["version", "--client"])
            .stdin(Stdio::null())
            .output()
            .await;
        if !version.is_ok_and(|output| output.status.success()) {
            assert!(
                std::env::var("TRIBUTARY_REQUIRE_KUBECTL").is_err(),
                "kubectl is required but does not run"
            );
            eprintln!("skipped: kubectl is not installed");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config"), cluster.kubeconfig()).unwrap();
        Some(Self { home })
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"));
        command.args(args.split(' ')).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, args: &str) -> Output {
        with_timeout(self.command(args).output()).await.unwrap()
    }

    /// Runs a command that must succeed and returns its output.
    async fn text(&self, args: &str) -> String {
        let output = self.run(args).await;
        assert!(
            output.status.success(),
            "kubectl {args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn with_pod(policy: RestartPolicy) -> (Cluster, Option<Kubectl>) {
    let cluster = cluster(Scenario::default()).await;
    cluster
        .create_pod(&PodPlan::silent("shop", "web", "c").restarting(policy))
        .unwrap();
    with_timeout(cluster.wait_running("shop", "web", "c")).await.unwrap();
    let kubectl = Kubectl::find(&cluster).await;
    (cluster, kubectl)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn kubectl_lists_pods_and_namespaces_in_columns() {
    let (cluster, kubectl) = with_pod(RestartPolicy::Never).await;
    let Some(kubectl) = kubectl else { return };
    let all = kubectl.text("get pods -A").await;
    let lines: Vec<_> = all.lines().map(words).collect();
    assert_eq!(lines[0], ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(lines[1][..5], ["shop", "web", "1/1", "Running", "0"]);
    assert!(kubectl.text("get ns").await.contains("shop"));
    let yaml = kubectl.text("get pod web -n shop -o yaml").await;
    assert!(yaml.contains("kind: Pod") && yaml.contains("nodeName: node-1") && yaml.contains("containerd://"));
    assert!(
        kubectl
            .text("get pods -A -o json --field-selector spec.nodeName=node-1")
            .await
            .contains("\"web\"")
    );
    let unknown = kubectl.run("get pod nope -n shop").await;
    let message = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(
        message.trim_end(),
        "Error from server (NotFound): pods \"nope\" not found"
    );
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn kubectl_reads_logs() {
    let (cluster, kubectl) = with_pod(RestartPolicy::Never).await;
    let Some(kubectl) = kubectl else { return };
    let lines: Vec<_> = (0..5).map(|seq| format!("line {seq}")).collect();
    let last = cluster.write_lines("shop", "web", "c", &lines).unwrap();
    assert_eq!(kubectl.text("logs web -n shop").await, lines.join("\n") + "\n");
    assert_eq!(kubectl.text("logs web -n shop --tail=2").await, "line 3\nline 4\n");
    assert_eq!(
        kubectl
            .text(&format!("logs web -n shop --since-time={last}"))
            .await
            .lines()
            .last(),
        Some("line 4")
    );
    assert_eq!(
        kubectl.text("logs web -n shop --since-time=2100-01-01T00:00:00Z").await,
        ""
    );
    assert_eq!(kubectl.text("logs web -n shop --limit-bytes=8").await, "line 0\nl");
    let unknown = kubectl.run("logs nope -n shop").await;
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("pods \"nope\" not found"));
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn kubectl_follows_with_timestamps_until_the_exit_and_reads_the_previous_instance() {
    let (cluster, kubectl) = with_pod(RestartPolicy::Always).await;
    let Some(kubectl) = kubectl else { return };
    let mut follow = kubectl.command("logs -f --timestamps web -n shop");
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(follow.stdout.take().unwrap()).lines();
    cluster.write_line("shop", "web", "c", "first").unwrap();
    let line = with_timeout(printed.next_line()).await.unwrap().unwrap();
    let (time, text) = line.split_once(' ').unwrap();
    assert_eq!((time.len(), text), (30, "first"));
    cluster.exit_container("shop", "web", "c", 1).await.unwrap();
    assert_eq!(with_timeout(printed.next_line()).await.unwrap(), None);
    assert!(with_timeout(follow.wait()).await.unwrap().success());
    with_timeout(cluster.wait_running("shop", "web", "c")).await.unwrap();
    assert_eq!(kubectl.text("logs --previous web -n shop").await, "first\n");
    assert_eq!(kubectl.text("logs web -n shop").await, "");
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn kubectl_watches_and_deletes_a_pod() {
    let (cluster, kubectl) = with_pod(RestartPolicy::Never).await;
    let Some(kubectl) = kubectl else { return };
    let mut watch = kubectl
        .command("get pods -A -w")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut seen: Vec<String> = Vec::new();
    while seen.len() < 2 {
        seen.push(with_timeout(printed.next_line()).await.unwrap().unwrap());
    }
    cluster.create_pod(&PodPlan::silent("shop", "job", "c")).unwrap();
    with_timeout(cluster.wait_running("shop", "job", "c")).await.unwrap();
    assert!(
        kubectl
            .text("delete pod job -n shop")
            .await
            .contains("pod \"job\" deleted")
    );
    with_timeout(cluster.wait_gone("shop", "job")).await.unwrap();
    for status in ["Pending", "ContainerCreating", "Running", "Terminating", "Error"] {
        while !seen
            .iter()
            .any(|line| words(line).contains(&"job") && words(line).contains(&status))
        {
            seen.push(with_timeout(printed.next_line()).await.unwrap().unwrap());
        }
    }
    with_timeout(watch.kill()).await.unwrap();
    with_timeout(cluster.shutdown()).await;
}
