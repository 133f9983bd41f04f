//! A simulated API server over TLS with authentication, as pods and kubectl reach it.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::process::Stdio;

use base64::{Engine, prelude::BASE64_STANDARD};
use kubesim::{Cluster, Config, Rule, Scenario, User};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{manifests::of_kind, support::*, up::writers};

/// Namespace of the services.
pub const NAMESPACE: &str = "tributary";

/// User with all permissions.
const ADMIN: &str = "admin";

/// A simulated cluster with authentication, and its TLS proxy.
pub struct Api {
    pub cluster: Cluster,
    pub port: u16,
    /// Certificate authority of the proxy, PEM.
    pub authority: String,
}

impl Api {
    /// Starts a cluster with an app `load` and the service accounts of these objects. The accounts
    /// have only the permissions that are applied later.
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
        // The token of an account is its name.
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
            port: start_tls_proxy(cluster.addr(), &identity).await.port(),
            authority: identity.cert.pem(),
            cluster,
        }
    }

    /// Returns a kubeconfig for an account.
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

    /// Runs `kubectl apply` with all permissions and returns its output.
    pub async fn apply(&self, objects: &[&Value]) -> String {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        // The simulated API serves no schemas.
        let (applied, output) = kubectl(
            &self.kubeconfig(ADMIN),
            &["apply", "--validate=false", "-f", "-"],
            &list,
        )
        .await;
        assert!(applied, "{output}");
        output
    }
}

/// Runs kubectl; returns whether it succeeded, and its output.
pub async fn kubectl(kubeconfig: &str, args: &[&str], stdin: &str) -> (bool, String) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig).unwrap();
    let mut child = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(file)
        // kubectl caches discovery by address, and ports are reused.
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
    // Fails if kubectl exits early; its output has the cause.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let done = tokio::time::timeout(BOUND * 6, child.wait_with_output()).await;
    let done = done.expect("kubectl in time").unwrap();
    let output = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
    (done.status.success(), output.concat())
}
