//! `tributary check` finds what is wrong with a deployment, and nothing where nothing is.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{convert::Infallible, net::SocketAddr};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    cluster::{collector, streamer},
    emulator::Emulator,
    projects::{forwarded, with_a_full_project},
    support::*,
    up::{Cluster, writers},
};

/// What is given to a check. Each set-up differs from a good one in one thing.
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
    /// Exit code 0 and no fault, or 1 and at least one; and what was said.
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
        let said = String::from_utf8(done.stdout).unwrap();
        let aside = String::from_utf8(done.stderr).unwrap();
        assert_eq!(aside.lines().count(), 1, "{aside}");
        assert!(matches!(done.status.code(), Some(0 | 1)), "{aside}");
        assert_eq!(done.status.success(), !said.contains("FAIL"), "{said}");
        (done.status.success(), said)
    }

    /// No fault: but a machine that is busy for a moment is a slow deployment, which is one.
    async fn finds_nothing(&self) -> String {
        let mut last = String::new();
        for _ in 0..TRIES {
            let (is_good, said) = self.check().await;
            if is_good {
                return said;
            }
            last = said;
        }
        panic!("{last}");
    }

    /// The one fault, or those that follow from it, of a broken set-up is named by a line with all of these.
    async fn finds(&self, words: &[&str]) {
        let (good, said) = self.check().await;
        let named = said
            .lines()
            .any(|line| line.starts_with("FAIL") && words.iter().all(|word| line.contains(word)));
        assert!(!good && named, "{words:?} in\n{said}");
    }
}

/// A port where nobody listens, for as long as this is held.
async fn closed_port() -> (std::net::TcpListener, String) {
    // Bound and not listened on would do, but no library offers it: a listener on another address of loopback keeps the port from being given away.
    let held = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let port = held.local_addr().unwrap().port();
    (held, format!("127.0.0.1:{port}"))
}

/// An API whose clock is a minute and a half behind, in front of this one.
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

/// How often a good deployment is looked at, until there is no fault.
pub const TRIES: usize = 3;

/// Two containers that print, and what reads them.
const PODS: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_good_deployment_has_no_fault_and_each_broken_one_has_its_own_named() {
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
    let said = good.finds_nothing().await;
    for part in [
        "bus", "cluster", "rights", "pods", "registry", "streamer", "canary", "clock",
    ] {
        assert!(
            said.lines().any(|line| line.starts_with(&format!("OK    {part:<10} "))),
            "{part} in\n{said}"
        );
    }
    let canary = said.lines().find(|line| line.contains("canary")).unwrap();
    for hop in [
        "in the log API after",
        "accepted by the bus after",
        "read from the bus after",
        "sent by the streamer after",
    ] {
        assert!(canary.contains(hop), "{canary}");
    }

    let (_held, closed) = closed_port().await;
    let (_mute, mute) = mute_port().await;
    let full = with_a_full_project(&emulator).await.to_string();
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
    .finds(&["bus", "cannot look up a topic", "check that the emulator is up"])
    .await;
    // It takes a connection, and says nothing.
    Setup {
        emulator: &mute,
        ..good.clone()
    }
    .finds(&["bus", "no answer within 10 s"])
    .await;
    // That is no project's id.
    Setup {
        bus: "pubsub:My Project",
        ..good.clone()
    }
    .finds(&["bus", "is not a Google Cloud project's id"])
    .await;
    // A project that collectors do not publish to.
    Setup {
        bus: "pubsub:other",
        ..good.clone()
    }
    .finds(&[
        "canary",
        "no topic of app load",
        "check that a collector runs on its node with this --bus",
    ])
    .await;
    // One of two has no room.
    Setup {
        emulator: &full,
        bus: "pubsub:whole,full",
        ..good.clone()
    }
    .finds(&["pubsub:full", "cannot create or remove a topic", "quota"])
    .await;
    // The API server is down, or there is no kubeconfig.
    Setup {
        kubeconfig: &gone,
        ..good.clone()
    }
    .finds(&["cluster", "cannot reach the Kubernetes API"])
    .await;
    Setup {
        kubeconfig: "/none-such",
        ..good.clone()
    }
    .finds(&["cluster", "KUBECONFIG=/none-such"])
    .await;
    // A clock is off.
    Setup {
        kubeconfig: &slow,
        ..good.clone()
    }
    .finds(&["clock", "the API server", "behind"])
    .await;
    // The streamer is down, or something else stands there.
    Setup {
        server: &closed_server,
        ..good.clone()
    }
    .finds(&["streamer", "cannot be reached"])
    .await;
    Setup {
        server: &api,
        ..good.clone()
    }
    .finds(&["streamer", "is not a streamer"])
    .await;
    // The registry's file is damaged.
    Setup {
        registry: &broken,
        ..good.clone()
    }
    .finds(&["registry", "cannot be read"])
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
    .finds(&[
        "streamer",
        "app load not found",
        "check that the streamer has this --bus",
    ])
    .await;
    other.terminate().await;

    // Keys are asked for.
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
    .finds(&["streamer", "the API key was rejected"])
    .await;
    let (is_good, said) = keyed_setup.check().await;
    assert!(is_good && said.contains("requires an API key"), "{said}");
    keyed.terminate().await;

    // No collector runs.
    collector.terminate().await;
    good.finds(&[
        "canary",
        "did not reach the bus",
        "check that a collector runs on node-1",
    ])
    .await;

    serving.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

/// A port that takes connections and never says a word.
async fn mute_port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

/// Accounts as deploy/ has them, but that some rights are missing.
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
async fn a_right_that_is_missing_is_named_with_whose_it_is_to_have() {
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
        let said = check("admin", &["--accounts", "tributary"]).await;
        match missing {
            None => assert!(
                said.contains("OK    rights     the service accounts of tributary have all 14 rights they need"),
                "{said}"
            ),
            Some(missing) => assert!(
                said.lines()
                    .any(|line| line.starts_with("FAIL  rights") && line.contains(missing)),
                "{said}"
            ),
        }
        // Who may nothing is told what the check itself lacks.
        let said = check("stranger", &[]).await;
        for fault in [
            "rights     the caller may not list pods in all namespaces",
            "pods       cannot list pods: pods is forbidden: User \"system:serviceaccount:tributary:stranger\" cannot list",
            "registry   cannot open the registry",
        ] {
            assert!(said.contains(&format!("FAIL  {fault}")), "{fault} in\n{said}");
        }
        assert!(
            check("nobody", &[]).await.contains("FAIL  cluster"),
            "a token that nobody has"
        );
        cluster.stop().await;
    }
}
