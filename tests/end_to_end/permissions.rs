//! Every permission in the manifests is needed: without it, the service reports that it is missing.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{net::SocketAddr, sync::Arc};

use kube::config::{KubeConfigOptions, Kubeconfig};
use registry::{AddressPolicy, DrainUrl, KubernetesRegistry, Registry};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::Semaphore,
};

use crate::{
    demo::has_kubectl,
    emulator::Emulator,
    kubernetes_api::Api,
    manifests::{container, of_kind, rendered, started, strings},
    support::*,
};

/// Enough drains that some belong to the first replica of sinks.
const DRAINS: usize = 12;

/// Concurrent test cases; each has a cluster and a service.
const AT_ONCE: usize = 4;

/// A permission that a role grants to an account.
#[derive(Clone, Debug)]
struct Permission {
    account: String,
    /// Kind and name.
    role: (String, String),
    rule: usize,
    resource: String,
    verb: String,
}

/// Returns the permissions of all accounts.
fn permissions(objects: &[Value]) -> Vec<Permission> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut permissions = Vec::new();
    for binding in objects.iter().filter(|object| {
        object["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("RoleBinding"))
    }) {
        let role = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
        let bound = of_kind(objects, &role.0).find(|object| object["metadata"]["name"] == *role.1);
        for (rule, given) in bound.expect("the role of the binding")["rules"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
        {
            for (resource, verb) in strings(&given["resources"]).iter().flat_map(|resource| {
                let verbs = strings(&given["verbs"]).into_iter();
                verbs.map(move |verb| (resource, verb))
            }) {
                permissions.push(Permission {
                    account: text(&binding["subjects"][0]["name"]),
                    role: role.clone(),
                    rule,
                    resource: resource.clone(),
                    verb,
                });
            }
        }
    }
    permissions
}

/// A cluster of one test case.
struct Stage {
    api: Api,
    dir: TempDir,
}

impl Stage {
    /// Starts a cluster with the roles of these objects, without the permission `missing`.
    async fn new(objects: &[Value], missing: Option<&Permission>) -> Self {
        let mut roles: Vec<Value> = objects.to_vec();
        roles.retain(|object| object["apiVersion"] == "rbac.authorization.k8s.io/v1");
        if let Some(permission) = missing {
            let is_it = |role: &&mut Value| {
                role["kind"] == *permission.role.0 && role["metadata"]["name"] == *permission.role.1
            };
            let role = roles.iter_mut().find(is_it).unwrap();
            let verbs = role["rules"][permission.rule]["verbs"].as_array_mut().unwrap();
            verbs.retain(|verb| *verb != *permission.verb);
        }
        let api = Api::start(objects).await;
        api.apply(&roles.iter().collect::<Vec<_>>()).await;
        Self {
            api,
            dir: TempDir::new().unwrap(),
        }
    }

    /// Adds drains to the registry with all permissions, before the service starts.
    async fn add_drains(&self) {
        let kubeconfig = Kubeconfig::from_yaml(&self.api.kubeconfig("admin")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = kube::Client::try_from(config.unwrap()).unwrap();
        let registry = KubernetesRegistry::open(client, None).await.unwrap();
        for port in 1..=DRAINS {
            registry.add_drain("load", &url(port), DRAINS).await.unwrap();
        }
    }

    /// Starts an account's service, uses it, and waits until it prints `text`, or until it works.
    async fn assert_prints(&self, objects: &[Value], emulator: &Emulator, account: &str, text: Option<&str>) {
        let (mut args, mut env) = started(container(objects, account));
        for arg in &mut args {
            if arg.starts_with("0.0.0.0:") {
                "127.0.0.1:0".clone_into(arg);
            } else if arg == "/var/lib/tributary" {
                *arg = self.dir.path().display().to_string();
            }
        }
        let kubeconfig = self.dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.api.kubeconfig(account)).unwrap();
        env.insert("KUBECONFIG".to_owned(), kubeconfig.display().to_string());
        env.insert("PUBSUB_EMULATOR_HOST".to_owned(), emulator.host().to_owned());
        env.insert("TRIBUTARY_ALLOW_ADDRESS".to_owned(), "127.0.0.0/8".to_owned());
        if account == "check" {
            args.extend(["--timeout", "1s"].map(str::to_owned));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let env: Vec<(&str, &str)> = env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut child = command(&args, &env).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut all = Vec::new();
        let found = async {
            loop {
                let line = tokio::select! {
                    Ok(Some(line)) = stderr.next_line() => line,
                    Ok(Some(line)) = stdout.next_line() => line,
                    else => return false,
                };
                let found = text.is_some_and(|text| line.replace('\\', "").contains(text));
                if let (Some(addr), "streamer") = (line.strip_prefix("listening on http://"), account)
                    && all.is_empty()
                {
                    use_streamer(addr.parse().unwrap()).await;
                }
                all.push(line);
                if found || (text.is_none() && works(account, &all)) {
                    return true;
                }
            }
        };
        let found = tokio::time::timeout(BOUND, found).await;
        assert_eq!(found, Ok(true), "{account} {text:?}: {all:#?}");
        child.kill().await.unwrap();
    }
}

fn url(port: usize) -> DrainUrl {
    let addresses = AddressPolicy::with_allowed(vec!["127.0.0.0/8".parse().unwrap()]);
    DrainUrl::parse(&format!("syslog+tcp://127.0.0.1:{port}"), &addresses).unwrap()
}

/// Adds and removes two drains, which uses all permissions of the streamer.
async fn use_streamer(addr: SocketAddr) {
    let server = format!("http://{addr}");
    let drains = async |args: &[&str]| {
        let done = run(&[&["drains"], args, &["--server", &server]].concat(), &[]).await;
        String::from_utf8(done.stdout).unwrap()
    };
    for port in ["1", "2"] {
        drains(&["add", "load", &format!("syslog+tcp://127.0.0.1:{port}")]).await;
    }
    for line in drains(&["list", "load"]).await.lines() {
        drains(&["remove", "load", line.split_whitespace().next().unwrap()]).await;
    }
}

/// Returns whether the output shows that a service works.
fn works(account: &str, output: &[String]) -> bool {
    let prints = |text: &str| output.iter().any(|line| line.contains(text));
    match account {
        "collector" => prints("following"),
        "streamer" => prints("listening on"),
        "sinks" => prints("drains loaded"),
        "check" => prints("OK    permissions the service accounts of tributary have all"),
        other => panic!("{other} is not a service"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_right_of_every_account_is_needed_and_reported_when_missing() {
    if !has_kubectl().await {
        return;
    }
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let objects = rendered("emulator").await;
    let permissions = permissions(&objects);
    assert_eq!(permissions.len(), 19, "{permissions:#?}");
    // With all permissions every service works.
    let complete = ["collector", "streamer", "sinks", "check"]
        .map(|account| (account.to_owned(), None))
        .into_iter();
    let without = permissions
        .iter()
        .map(|permission| (permission.account.clone(), Some(permission.clone())));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let tried = complete.chain(without).map(|(account, missing)| {
        let (objects, emulator, turns) = (&objects, &emulator, Arc::clone(&turns));
        async move {
            let _turn = turns.acquire().await.unwrap();
            let stage = Stage::new(objects, missing.as_ref()).await;
            // The registry exists already, unless the test case is about `create`.
            let exists = missing
                .as_ref()
                .is_none_or(|permission| permission.verb != "create" || permission.resource != "secrets");
            if exists && ["sinks", "check"].contains(&&*account) {
                stage.add_drains().await;
            }
            let text =
                missing.map(|permission| format!("cannot {} resource \"{}\"", permission.verb, permission.resource));
            stage.assert_prints(objects, emulator, &account, text.as_deref()).await;
            stage.api.cluster.shutdown().await;
        }
    });
    futures::future::join_all(tried).await;
    emulator.stop().await;
}
