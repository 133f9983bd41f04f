//! The API server as a cluster's own programs and kubectl reach it: over TLS, with a certificate of the cluster's own authority, and asking who they are.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::process::Stdio;

use base64::{Engine, prelude::BASE64_STANDARD};
use kubesim::{Cluster, Config, Rule, Scenario, User};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{manifests::of_kind, support::*, up::writers};

/// Where the services run.
pub const NAMESPACE: &str = "tributary";

/// Who may do everything.
const ADMIN: &str = "admin";

/// A simulated cluster whose API asks who one is, and the way to it.
pub struct Api {
    pub cluster: Cluster,
    pub port: u16,
    /// Of its certificate, PEM.
    pub authority: String,
}

impl Api {
    /// One with an app `load`, and with the service accounts of these objects; they have the rights that are applied to it, and no other.
    pub async fn start(objects: &[Value]) -> Self {
        let all = ["*".to_owned()];
        let everything = Rule {
            groups: all.to_vec(),
            resources: all.to_vec(),
            verbs: all.to_vec(),
            namespace: None,
        };
        let admin = User {
            name: ADMIN.to_owned(),
            token: ADMIN.to_owned(),
            rules: vec![everything],
            ..User::default()
        };
        // A token is the account's name.
        let accounts = of_kind(objects, "ServiceAccount").map(|account| {
            let name = account["metadata"]["name"].as_str().unwrap();
            User {
                name: format!("system:serviceaccount:{NAMESPACE}:{name}"),
                token: name.to_owned(),
                ..User::default()
            }
        });
        let scenario = Scenario {
            users: accounts.chain([admin]).collect(),
            authorize: true,
            ..Scenario::from_toml(&writers(1, 1_000_000, 50)).unwrap()
        };
        let listen = ([127, 0, 0, 1], 0).into();
        let cluster = kubesim::start(Config { listen, scenario }).await.unwrap();
        let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        Self {
            port: tls_in_front_of(cluster.addr(), &identity).await.port(),
            authority: identity.cert.pem(),
            cluster,
        }
    }

    /// How an account reaches it.
    pub fn kubeconfig(&self, account: &str) -> String {
        let (port, authority) = (self.port, BASE64_STANDARD.encode(&self.authority));
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("https://127.0.0.1:{port}"), "certificate-authority-data": authority}}],
            "users": [{"name": "it", "user": {"token": account}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": NAMESPACE}}],
        });
        kubeconfig.to_string()
    }

    /// `kubectl apply` by who may do everything.
    pub async fn apply(&self, objects: &[&Value]) -> String {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        // It keeps no schemas.
        let (applied, said) = kubectl(
            &self.kubeconfig(ADMIN),
            &["apply", "--validate=false", "-f", "-"],
            &list,
        )
        .await;
        assert!(applied, "{said}");
        said
    }
}

/// What kubectl says with this kubeconfig, and whether it went well.
pub async fn kubectl(kubeconfig: &str, args: &[&str], stdin: &str) -> (bool, String) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig).unwrap();
    let mut child = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(file)
        // What it remembers of a server, it remembers of its port.
        .arg("--cache-dir")
        .arg(dir.path())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // One that does not read it says why.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let done = tokio::time::timeout(BOUND * 6, child.wait_with_output()).await;
    let done = done.expect("kubectl in time").unwrap();
    let said = [done.stdout, done.stderr].map(|said| String::from_utf8(said).unwrap());
    (done.status.success(), said.concat())
}
