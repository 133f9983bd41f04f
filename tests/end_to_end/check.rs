//! `tributary check` reports the fault of a broken deployment, and none of a working one.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{convert::Infallible, net::SocketAddr};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    cluster::{collector, streamer},
    emulator::Emulator,
    projects::{forwarded, proxy_with_full_project},
    support::*,
    up::{Cluster, writers},
};

/// The arguments of a check. Each test case differs from the working setup in one field.
#[derive(Clone)]
struct Setup<'a> {
    emulator: &'a str,
    kubeconfig: &'a str,
    bus: &'a str,
    server: &'a str,
    registry: &'a str,
    key: Option<&'a str>,
    accounts: Option<&'a str>,
}

impl Setup<'_> {
    /// Runs the check; asserts exit code 0 without a FAIL, or 1 with at least one. Returns success
    /// and output.
    async fn check(&self) -> (bool, String) {
        let mut args = vec!["check", "--timeout", "10s", "--bus", self.bus, "--server", self.server];
        args.extend(["--registry", self.registry]);
        args.extend(self.key.into_iter().flat_map(|key| ["--key", key]));
        args.extend(
            self.accounts
                .into_iter()
                .flat_map(|namespace| ["--accounts", namespace]),
        );
        let env = [("PUBSUB_EMULATOR_HOST", self.emulator), ("KUBECONFIG", self.kubeconfig)];
        let done = run(&args, &env).await;
        let output = String::from_utf8(done.stdout).unwrap();
        let summary = String::from_utf8(done.stderr).unwrap();
        assert_eq!(summary.lines().count(), 1, "{summary}");
        assert!(matches!(done.status.code(), Some(0 | 1)), "{summary}");
        assert_eq!(done.status.success(), !output.contains("FAIL"), "{output}");
        (done.status.success(), output)
    }

    /// Asserts that there is no failure. Retries: a busy test machine makes a deployment slow,
    /// which is one.
    async fn assert_no_failure(&self) -> String {
        let mut last = String::new();
        for _ in 0..TRIES {
            let (is_good, output) = self.check().await;
            if is_good {
                return output;
            }
            last = output;
        }
        panic!("{last}");
    }

    /// Asserts that a FAIL line contains all of these texts.
    async fn assert_failure(&self, texts: &[&str]) {
        let (good, output) = self.check().await;
        let reported = output
            .lines()
            .any(|line| line.starts_with("FAIL") && texts.iter().all(|text| line.contains(text)));
        assert!(!good && reported, "{texts:?} in\n{output}");
    }
}

/// Returns a port without a listener, reserved while the listener is held.
async fn closed_port() -> (std::net::TcpListener, String) {
    // A listener on another loopback address keeps the port from being assigned to another process.
    let held = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let port = held.local_addr().unwrap().port();
    (held, format!("127.0.0.1:{port}"))
}

/// Starts a proxy for an API whose Date header is 90 s behind.
async fn with_a_slow_clock(api: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let answer = service_fn(move |request: Request<Incoming>| async move {
                let mut answer = forwarded(request, &api.to_string()).await;
                let behind = std::time::SystemTime::now() - std::time::Duration::from_secs(90);
                let date = httpdate::fmt_http_date(behind).parse().unwrap();
                answer.headers_mut().insert("date", date);
                Ok::<_, Infallible>(answer)
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), answer));
        }
    });
    addr
}

/// Attempts until a working deployment has no failure.
pub const TRIES: usize = 3;

/// Containers that print.
const PODS: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_working_deployment_has_no_failure_and_each_broken_one_reports_its_own() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cluster = Cluster::start(&writers(PODS, 1_000_000, 5)).await;
    let collector = collector(&cluster, &emulator).await;
    let path = |name: &str| cluster.dir.path().join(name).display().to_string();
    let registry = format!("file:{}", path("registry.json"));
    let serving = streamer(&emulator, &["--registry", &registry]).await;
    let server = format!("http://{}", serving.addr);
    let good = Setup {
        emulator: emulator.host(),
        kubeconfig: &cluster.kubeconfig,
        bus: "pubsub:whole",
        server: &server,
        registry: &registry,
        key: None,
        accounts: None,
    };
    drop(crate::up::first_tail(&serving).await);
    let output = good.assert_no_failure().await;
    for part in [
        "bus",
        "cluster",
        "permissions",
        "pods",
        "registry",
        "streamer",
        "canary",
        "clock",
    ] {
        assert!(
            output
                .lines()
                .any(|line| line.starts_with(&format!("OK    {part:<11} "))),
            "{part} in\n{output}"
        );
    }
    let canary = output.lines().find(|line| line.contains("canary")).unwrap();
    for hop in [
        "in the log API after",
        "accepted by the bus after",
        "read from the bus after",
        "sent by the streamer after",
    ] {
        assert!(canary.contains(hop), "{canary}");
    }

    let (_held, closed) = closed_port().await;
    let (_silent, silent) = silent_port().await;
    let full = proxy_with_full_project(&emulator).await.to_string();
    let slow = with_a_slow_clock(cluster.addr()).await.to_string();
    let kubeconfig = |name: &str, addr: &str| {
        let text = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
        std::fs::write(path(name), text.replace(&cluster.addr().to_string(), addr)).unwrap();
        path(name)
    };
    let (gone, slow) = (kubeconfig("gone", &closed), kubeconfig("slow", &slow));
    let (closed_server, api) = (format!("http://{closed}"), format!("http://{}", cluster.addr()));
    std::fs::write(path("broken.json"), "{").unwrap();
    let broken = format!("file:{}", path("broken.json"));
    // The emulator is down.
    Setup {
        emulator: &closed,
        ..good.clone()
    }
    .assert_failure(&["bus", "cannot look up a topic", "check that the emulator is running"])
    .await;
    // The emulator accepts connections and never answers.
    Setup {
        emulator: &silent,
        ..good.clone()
    }
    .assert_failure(&["bus", "no answer within 10 s"])
    .await;
    // A name cannot be resolved: no account and no service is to blame.
    Setup {
        emulator: "no-such-host.invalid:8085",
        ..good.clone()
    }
    .assert_failure(&["bus", "cannot resolve no-such-host.invalid", "check the DNS"])
    .await;
    // The project id is invalid.
    Setup {
        bus: "pubsub:My Project",
        ..good.clone()
    }
    .assert_failure(&["bus", "invalid Google Cloud project id"])
    .await;
    // The collectors publish to another project.
    Setup {
        bus: "pubsub:other",
        ..good.clone()
    }
    .assert_failure(&[
        "canary",
        "no topic of app load",
        "check that a collector runs on its node with this --bus",
    ])
    .await;
    // One of two projects is full.
    Setup {
        emulator: &full,
        bus: "pubsub:whole,full",
        ..good.clone()
    }
    .assert_failure(&["pubsub:full", "cannot create or remove a topic", "quota"])
    .await;
    // The API server is down, or there is no kubeconfig.
    Setup {
        kubeconfig: &gone,
        ..good.clone()
    }
    .assert_failure(&["cluster", "cannot reach the Kubernetes API"])
    .await;
    Setup {
        kubeconfig: "/none-such",
        ..good.clone()
    }
    .assert_failure(&["cluster", "KUBECONFIG=/none-such"])
    .await;
    // A clock is off.
    Setup {
        kubeconfig: &slow,
        ..good.clone()
    }
    .assert_failure(&["clock", "the API server", "behind"])
    .await;
    // The streamer is down, or another server has its address.
    Setup {
        server: &closed_server,
        ..good.clone()
    }
    .assert_failure(&["streamer", "cannot be reached"])
    .await;
    Setup {
        server: &api,
        ..good.clone()
    }
    .assert_failure(&["streamer", "is not a streamer"])
    .await;
    // The registry's file is damaged.
    Setup {
        registry: &broken,
        ..good.clone()
    }
    .assert_failure(&["registry", "cannot read the registry file"])
    .await;

    // The streamer reads another bus.
    let other = [
        "streamer",
        "--bus",
        "pubsub:other",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let other = Tributary::start(&other, &[("PUBSUB_EMULATOR_HOST", emulator.host())]).await;
    let other_server = format!("http://{}", other.addr);
    Setup {
        server: &other_server,
        ..good.clone()
    }
    .assert_failure(&[
        "streamer",
        "app load not found",
        "check that the streamer has this --bus",
    ])
    .await;
    other.terminate().await;

    // The streamer requires keys.
    let keyed = streamer(&emulator, &["--registry", &registry, "--auth", "keys"]).await;
    let keyed_server = format!("http://{}", keyed.addr);
    let keyed_setup = Setup {
        server: &keyed_server,
        ..good.clone()
    };
    Setup {
        key: Some("wrong"),
        ..keyed_setup.clone()
    }
    .assert_failure(&["streamer", "the API key was rejected"])
    .await;
    let (is_good, output) = keyed_setup.check().await;
    assert!(is_good && output.contains("requires an API key"), "{output}");
    keyed.terminate().await;

    // No collector runs.
    collector.terminate().await;
    good.assert_failure(&[
        "canary",
        "did not reach the bus",
        "check that a collector runs on node-1",
    ])
    .await;

    serving.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

/// Returns a port that accepts connections and never answers.
async fn silent_port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

/// The accounts of deploy/ with these permissions of the collector and of Secrets.
fn accounts(collector: &str, secrets: &str) -> String {
    let user = |name: &str, rules: &str| {
        format!("[[users]]\nname = \"system:serviceaccount:tributary:{name}\"\ntoken = \"{name}\"\n{rules}\n")
    };
    let rule = |resources: &str, verbs: &str, namespace: &str| {
        format!("[[users.rules]]\ngroups = [\"\"]\nresources = [\"{resources}\"]\nverbs = [{verbs}]\n{namespace}\n")
    };
    let registry = rule("secrets", secrets, "namespace = \"tributary\"");
    let admin = "[[users]]\nname = \"admin\"\ntoken = \"admin\"\n[[users.rules]]\ngroups = [\"*\"]\nresources = [\"*\"]\nverbs = [\"*\"]\n";
    let accounts = [
        user(
            "collector",
            &format!("{}{collector}", rule("pods", "\"list\", \"watch\"", "")),
        ),
        user("streamer", &registry),
        user("sinks", &registry),
        user("stranger", ""),
    ];
    format!("authorize = true\n{admin}{}", accounts.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_reported_with_its_account() {
    let all = "\"get\", \"list\", \"watch\", \"create\", \"update\", \"delete\"";
    let reads = "[[users.rules]]\ngroups = [\"\"]\nresources = [\"pods/log\"]\nverbs = [\"get\"]\n";
    for (collector, secrets, missing) in [
        (reads, all, None),
        (
            "",
            all,
            Some(
                "system:serviceaccount:tributary:collector may not get pods/log in all namespaces: the collector cannot read logs",
            ),
        ),
        (
            reads,
            "\"get\", \"list\", \"watch\"",
            Some("system:serviceaccount:tributary:streamer may not create secrets in the namespace tributary"),
        ),
    ] {
        let pods = writers(1, 1000, 5);
        let cluster = Cluster::start(&format!(
            "{}{}",
            accounts(collector, secrets),
            pods.replace("seed = 1", "")
        ))
        .await;
        let as_user = |token: &str| {
            let text = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
            let file = cluster.dir.path().join(token).display().to_string();
            std::fs::write(&file, text.replace("user: {}", &format!("user: {{token: {token}}}"))).unwrap();
            file
        };
        let check = async |token: &str, accounts: &[&str]| {
            let args = [
                &[
                    "check",
                    "--timeout",
                    "1s",
                    "--server",
                    "http://127.0.0.1:1",
                    "--registry",
                    "kubernetes:tributary",
                ],
                accounts,
            ]
            .concat();
            let done = run(&args, &[("KUBECONFIG", &as_user(token))]).await;
            String::from_utf8(done.stdout).unwrap()
        };
        let output = check("admin", &["--accounts", "tributary"]).await;
        match missing {
            None => assert!(
                output
                    .contains("OK    permissions the service accounts of tributary have all 14 permissions they need"),
                "{output}"
            ),
            Some(missing) => assert!(
                output
                    .lines()
                    .any(|line| line.starts_with("FAIL  permissions") && line.contains(missing)),
                "{output}"
            ),
        }
        // A caller without permissions learns which ones the check itself needs.
        let output = check("stranger", &[]).await;
        for failure in [
            "permissions the caller may not list pods in all namespaces",
            "pods        cannot list pods: pods is forbidden: User \"system:serviceaccount:tributary:stranger\" cannot list",
            "registry    cannot open the registry",
        ] {
            assert!(output.contains(&format!("FAIL  {failure}")), "{failure} in\n{output}");
        }
        assert!(
            check("unknown", &[]).await.contains("FAIL  cluster"),
            "an unknown token"
        );
        cluster.stop().await;
    }
}
