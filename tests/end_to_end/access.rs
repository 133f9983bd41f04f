//! API keys in the cluster's Secrets, and authorization by the cluster.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use crate::{
    support::*,
    up::{Cluster, writers},
};

const USERS: &str = r#"
    [[users]]
    name = "system:serviceaccount:load:reader"
    token = "token-of-load"
    reads = ["load"]
    [[users]]
    name = "system:serviceaccount:other:reader"
    token = "token-of-other"
    reads = ["other"]
"#;

/// Starts `up` on a cluster.
async fn up(cluster: &Cluster, flags: &[&str]) -> Tributary {
    let data_dir = cluster.dir.path().join("data").display().to_string();
    let mut args = vec!["up", "--listen", "127.0.0.1:0", "--data-dir", &data_dir];
    args.extend(flags);
    Tributary::start(&args, &[("KUBECONFIG", &cluster.kubeconfig)]).await
}

/// Runs `tributary logs` with a key; returns whether it succeeded, and its output.
async fn logs(up: &Tributary, key: &str) -> (bool, String) {
    let server = format!("http://{}", up.addr);
    let args = [
        "logs",
        "load",
        "--server",
        &server,
        "--key",
        key,
        "--no-follow",
        "-n",
        "1",
    ];
    let read = run(&args, &[]).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (read.status.success(), text(read.stdout) + &text(read.stderr))
}

async fn wait_for_line(up: &Tributary, key: &str) {
    bounded("a line", async { while !logs(up, key).await.1.contains("]: line ") {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_secrets_grants_access_to_its_app_until_it_is_revoked() {
    let cluster = Cluster::start(&writers(1, 1_000_000, 100)).await;
    let location = ["--registry", "kubernetes:tributary"];
    let env = [("KUBECONFIG", &*cluster.kubeconfig)];
    let up = up(&cluster, &["--auth", "keys", location[0], location[1]]).await;
    let keys = async |args: &[&str]| {
        let args: Vec<&str> = ["keys"].iter().chain(args).chain(&location).copied().collect();
        let done = run(&args, &env).await;
        assert!(
            done.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap()
    };
    let key = keys(&["add", "--email", "me@example.com", "--app", "load"]).await;
    wait_for_line(&up, key.trim()).await;
    let listed = keys(&["list"]).await;
    let id = listed.split('\t').next().unwrap();
    keys(&["revoke", id]).await;
    bounded("the key to be rejected", async {
        while logs(&up, key.trim()).await.0 {}
    })
    .await;
    up.terminate().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_token_grants_access_to_the_namespaces_it_may_read() {
    let cluster = Cluster::start(&(writers(1, 1_000_000, 100) + USERS)).await;
    let up = up(&cluster, &["--auth", "kubernetes"]).await;
    wait_for_line(&up, "token-of-load").await;
    for (token, word) in [
        ("token-of-other", "app not found"),
        ("unknown-token", "authentication required"),
    ] {
        let (read, output) = logs(&up, token).await;
        assert!(!read && output.contains(word), "{output}");
    }
    up.terminate().await;
    cluster.stop().await;
}
