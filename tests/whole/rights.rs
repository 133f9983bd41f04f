//! Each right that the manifests give is needed: without it the service that has it says, by name, what it may not do.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{net::SocketAddr, sync::Arc};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kubesim::{Cluster, Config, Rule, Scenario, User};
use registry::{Addresses, DrainUrl, KubernetesRegistry, Registry};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::Semaphore,
};

use crate::{
    demo::has_kubectl,
    emulator::Emulator,
    manifests::{container, of_kind, rendered, started, strings},
    support::*,
    up::writers,
};

/// Where the services run.
const NAMESPACE: &str = "tributary";

/// Drains are shared by the replicas of sinks.
const DRAINS: usize = 12;

/// Variants at once: each is a cluster and a service.
const AT_ONCE: usize = 4;

/// An account, and what one of its rules lets it do.
#[derive(Clone, Debug)]
struct Right {
    account: String,
    rule: usize,
    resource: String,
    verb: String,
}

/// The accounts with the rules that are bound to them.
pub fn accounts(objects: &[Value]) -> Vec<User> {
    let names = of_kind(objects, "ServiceAccount").map(|account| account["metadata"]["name"].as_str().unwrap());
    names.map(|name| user(name, rules_of(objects, name))).collect()
}

fn user(account: &str, rules: Vec<Rule>) -> User {
    User {
        name: format!("system:serviceaccount:{NAMESPACE}:{account}"),
        token: account.to_owned(),
        rules,
        ..User::default()
    }
}

fn rules_of(objects: &[Value], account: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (binding, role, namespace) in [
        ("ClusterRoleBinding", "ClusterRole", None),
        ("RoleBinding", "Role", Some(NAMESPACE)),
    ] {
        let is_for = |binding: &&Value| {
            let subjects = binding["subjects"].as_array().unwrap();
            subjects
                .iter()
                .any(|subject| subject["name"] == account && subject["namespace"] == NAMESPACE)
        };
        for binding in of_kind(objects, binding).filter(is_for) {
            assert_eq!(binding["roleRef"]["kind"], role);
            let role = of_kind(objects, role).find(|role| role["metadata"]["name"] == binding["roleRef"]["name"]);
            for rule in role.expect("the role that it names")["rules"].as_array().unwrap() {
                rules.push(Rule {
                    groups: strings(&rule["apiGroups"]),
                    resources: strings(&rule["resources"]),
                    verbs: strings(&rule["verbs"]),
                    namespace: namespace.map(str::to_owned),
                });
            }
        }
    }
    rules
}

fn rights(accounts: &[User]) -> Vec<Right> {
    let mut rights = Vec::new();
    for user in accounts {
        for (at, rule) in user.rules.iter().enumerate() {
            for (resource, verb) in rule
                .resources
                .iter()
                .flat_map(|resource| rule.verbs.iter().map(move |verb| (resource, verb)))
            {
                rights.push(Right {
                    account: user.token.clone(),
                    rule: at,
                    resource: resource.clone(),
                    verb: verb.clone(),
                });
            }
        }
    }
    rights
}

/// A cluster of its own, whose API asks who one is.
struct Stage {
    cluster: Cluster,
    dir: TempDir,
}

impl Stage {
    async fn new(accounts: &[User], missing: Option<&Right>) -> Self {
        let mut users = accounts.to_vec();
        if let Some(right) = missing {
            let user = users.iter_mut().find(|user| user.token == right.account).unwrap();
            user.rules[right.rule].verbs.retain(|verb| *verb != right.verb);
        }
        let anything = ["*".to_owned()];
        let everything = Rule {
            groups: anything.to_vec(),
            resources: anything.to_vec(),
            verbs: anything.to_vec(),
            namespace: None,
        };
        users.push(user("admin", vec![everything]));
        let scenario = Scenario {
            users,
            authorize: true,
            ..Scenario::from_toml(&writers(1, 1_000_000, 5)).unwrap()
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            cluster: kubesim::start(Config { listen, scenario }).await.unwrap(),
            dir: TempDir::new().unwrap(),
        }
    }

    fn kubeconfig(&self, account: &str) -> String {
        let text = self
            .cluster
            .kubeconfig()
            .replace("user: {}", &format!("user: {{token: {account}}}"));
        text.replace("namespace: default", &format!("namespace: {NAMESPACE}"))
    }

    /// Somebody else's look at the registry, who may everything: drains are there before the service is, so many that some are the first replica's.
    async fn with_drains(&self) {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig("admin")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = kube::Client::try_from(config.unwrap()).unwrap();
        let registry = KubernetesRegistry::open(client, None).await.unwrap();
        for port in 1..=DRAINS {
            registry.add_drain("load", &url(port), DRAINS).await.unwrap();
        }
    }

    /// Starts what an account's pod runs, uses it, and waits until it has said this. `None`: until it works.
    async fn until_it_says(&self, objects: &[Value], emulator: &Emulator, account: &str, words: Option<&str>) {
        let (mut args, mut env) = started(container(objects, account));
        for arg in &mut args {
            if arg.starts_with("0.0.0.0:") {
                "127.0.0.1:0".clone_into(arg);
            } else if arg == "/var/lib/tributary" {
                *arg = self.dir.path().display().to_string();
            }
        }
        let kubeconfig = self.dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.kubeconfig(account)).unwrap();
        env.insert("KUBECONFIG".to_owned(), kubeconfig.display().to_string());
        env.insert("PUBSUB_EMULATOR_HOST".to_owned(), emulator.host().to_owned());
        env.insert("TRIBUTARY_ALLOW_ADDRESS".to_owned(), "127.0.0.0/8".to_owned());
        if account == "check" {
            args.extend(["--wait", "1s"].map(str::to_owned));
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
                let is_it = words.is_some_and(|words| line.replace('\\', "").contains(words));
                if let (Some(addr), "streamer") = (line.strip_prefix("listening on http://"), account)
                    && all.is_empty()
                {
                    use_streamer(addr.parse().unwrap()).await;
                }
                all.push(line);
                if is_it || (words.is_none() && works(account, &all)) {
                    return true;
                }
            }
        };
        let found = tokio::time::timeout(BOUND, found).await;
        assert_eq!(found, Ok(true), "{account} {words:?}: {all:#?}");
        child.kill().await.unwrap();
    }
}

fn url(port: usize) -> DrainUrl {
    let addresses = Addresses::allowing(vec!["127.0.0.0/8".parse().unwrap()]);
    DrainUrl::parse(&format!("syslog+tcp://127.0.0.1:{port}"), &addresses).unwrap()
}

/// Adds two drains and removes them: all that the streamer does with its rights.
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

/// Whether a service said that it does what it is for.
fn works(account: &str, said: &[String]) -> bool {
    let says = |words: &str| said.iter().any(|line| line.contains(words));
    match account {
        "collector" => says("following"),
        "streamer" => says("listening on"),
        "sinks" => says("drains are known"),
        "check" => says("ok         rights     the accounts of tributary"),
        other => panic!("{other} is no service"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_of_each_account_is_needed_and_what_is_missing_is_named() {
    if !has_kubectl().await {
        return;
    }
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let objects = rendered("emulator").await;
    let accounts = accounts(&objects);
    assert_eq!(accounts.len(), 4);
    let rights = rights(&accounts);
    assert_eq!(rights.len(), 19, "{rights:#?}");
    // With all of them everybody works.
    let with_all = accounts.iter().map(|user| (user.token.clone(), None));
    let without = rights.iter().map(|right| (right.account.clone(), Some(right.clone())));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let tried = with_all.chain(without).map(|(account, missing)| {
        let (objects, accounts, emulator, turns) = (&objects, &accounts, &emulator, Arc::clone(&turns));
        async move {
            let _turn = turns.acquire().await.unwrap();
            let stage = Stage::new(accounts, missing.as_ref()).await;
            // Where the registry is begun is not what is tried: but for `create`, it is there.
            let is_begun = missing
                .as_ref()
                .is_none_or(|right| right.verb != "create" || right.resource != "secrets");
            if is_begun && ["sinks", "check"].contains(&&*account) {
                stage.with_drains().await;
            }
            let words = missing.map(|right| format!("cannot {} resource \"{}\"", right.verb, right.resource));
            stage.until_it_says(objects, emulator, &account, words.as_deref()).await;
            stage.cluster.shutdown().await;
        }
    });
    futures::future::join_all(tried).await;
    emulator.stop().await;
}
