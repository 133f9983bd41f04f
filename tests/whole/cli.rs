//! What is wrong is said in one line that says what to do.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::process::Output;

use tempfile::TempDir;

use crate::{demo::start_demo, support::*};

/// Nothing answers there: the port of a listener that is gone.
fn dead_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A kubeconfig for a server without TLS or authentication.
fn kubeconfig(dir: &TempDir, server: &str) -> String {
    let path = dir.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{{name: x, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: x, user: {{}}}}]\ncontexts: [{{name: x, context: {{cluster: x, user: x}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn refused(output: &Output, says: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    let told: Vec<&str> = stderr.lines().collect();
    assert!(
        told.len() == 1 && told[0].starts_with("tributary: "),
        "one line: {stderr}"
    );
    for word in says {
        assert!(told[0].contains(word), "{word:?} in {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test]
async fn a_command_line_that_cannot_be_meant_is_explained() {
    for (args, says) in [
        (&["demo", "--lisen", "127.0.0.1:0"][..], &["--lisen", "--listen"][..]),
        (&["demo", "--listen", "here"], &["--listen", "here"]),
        (&["up", "--retention", "soon"], &["--retention", "soon"]),
        (&["up", "--app-from", "pod"], &["--app-from", "label:KEY"]),
        (&["up", "--source", "disk"], &["--source", "api", "files"]),
        (&["lgs", "shop"], &["lgs", "logs"]),
        (&["logs"], &["<APP>"]),
        (&[], &["tributary --help"]),
    ] {
        let output = run(args, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        refused(&output, says);
    }
    let help = run(&["--help"], &[]).await;
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("demo"));
}

#[tokio::test]
async fn an_api_that_never_answers_can_be_left_with_one_signal() {
    let dir = TempDir::new().unwrap();
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let kubeconfig = kubeconfig(&dir, &format!("http://{}", mute.local_addr().unwrap()));
    let data = dir.path().join("data").display().to_string();
    let up = start(
        &["up", "--listen", "127.0.0.1:0", "--data-dir", &data],
        &[("KUBECONFIG", &kubeconfig)],
    );
    // It asks, and so has taken its signals in hand.
    let mute = tokio::task::spawn_blocking(move || mute.accept().unwrap());
    let _connection = bounded("a connection", mute).await.unwrap();
    up.end().await;
}

#[tokio::test]
async fn all_settings_that_cannot_be_meant_are_named_at_once() {
    let output = run(
        &[
            "demo",
            "--listen",
            "0.0.0.0:0",
            "--retention",
            "1s",
            "--retention-bytes",
            "5",
        ],
        &[],
    )
    .await;
    refused(
        &output,
        &[
            "--listen 0.0.0.0:0",
            "--retention 1s",
            "--retention-bytes 5 B",
            "loopback",
        ],
    );
}

#[tokio::test]
async fn without_a_kubeconfig_the_user_is_told_what_to_set() {
    let home = TempDir::new().unwrap();
    let home = home.path().display().to_string();
    let output = run(
        &["up", "--listen", "127.0.0.1:0", "--data-dir", &home],
        &[("HOME", &home)],
    )
    .await;
    refused(&output, &["KUBECONFIG", "tributary demo"]);
    let output = run(
        &["up", "--listen", "127.0.0.1:0", "--data-dir", &home],
        &[("HOME", &home), ("KUBECONFIG", "/nowhere")],
    )
    .await;
    refused(&output, &["KUBECONFIG", "/nowhere"]);
}

#[tokio::test]
async fn an_api_that_does_not_answer_is_named() {
    let dir = TempDir::new().unwrap();
    let server = format!("http://127.0.0.1:{}", dead_port());
    let kubeconfig = kubeconfig(&dir, &server);
    let data = dir.path().join("data").display().to_string();
    let args = ["up", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let output = run(&args, &[("KUBECONFIG", &kubeconfig)]).await;
    refused(&output, &[&server, "check KUBECONFIG"]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = run(&["demo", "--listen", &addr], &[]).await;
    refused(&output, &[&addr, "--listen"]);
    let output = run(&["kubesim", "--listen", &addr], &[]).await;
    refused(&output, &[&addr]);
}

#[tokio::test]
async fn a_log_directory_that_cannot_be_made_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let pods = file.join("pods").display().to_string();
    let output = run(&["kubesim", "--pod-log-dir", &pods], &[]).await;
    refused(&output, &[&pods, "--pod-log-dir"]);
}

#[tokio::test]
async fn a_data_directory_in_use_or_not_usable_is_named() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data").display().to_string();
    let demo = Tributary::start(&["demo", "--listen", "127.0.0.1:0", "--data-dir", &data], &[]).await;
    let output = run(&["demo", "--listen", "127.0.0.1:0", "--data-dir", &data], &[]).await;
    refused(&output, &[&data, "in use by another process", "--data-dir"]);
    demo.terminate().await;
    let file = dir.path().join("file").display().to_string();
    std::fs::write(&file, "").unwrap();
    let output = run(&["demo", "--listen", "127.0.0.1:0", "--data-dir", &file], &[]).await;
    refused(&output, &[&file, "--data-dir"]);
}

#[tokio::test]
async fn a_scenario_that_cannot_be_played_is_explained() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("scenario.toml").display().to_string();
    std::fs::write(&file, "[[pods]]\nnamespace = 'a'\nname = 'b'\nreplica = 3\n").unwrap();
    let output = run(&["kubesim", "--scenario", &file], &[]).await;
    refused(&output, &[&file, "replica"]);
    let output = run(&["demo", "--listen", "127.0.0.1:0", "--scenario", "/nowhere"], &[]).await;
    refused(&output, &["/nowhere"]);
}

#[tokio::test]
async fn logs_prints_what_was_asked_for_and_says_what_it_cannot_have() {
    let demo = start_demo(&[]).await;
    let server = format!("http://{}", demo.addr);
    let mut tail = demo.get("/api/apps/shop/logs").await;
    for _ in 0..20 {
        tail.line().await.unwrap();
    }
    let output = run(&["logs", "shop", "-n", "5", "--no-follow", "--server", &server], &[]).await;
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 5);
    stdout.lines().for_each(|line| assert_eq!(take_apart(line).app, "shop"));
    refused(
        &run(&["logs", "nope", "--server", &server], &[]).await,
        &["nope", "app not found"],
    );
    refused(
        &run(&["logs", "shop", "--server", "127.0.0.1"], &[]).await,
        &["--server 127.0.0.1"],
    );
    refused(
        &run(&["logs", "shop", "--server", "ftp://127.0.0.1"], &[]).await,
        &["--server ftp://127.0.0.1"],
    );
    let nobody = format!("http://127.0.0.1:{}", dead_port());
    refused(
        &run(&["logs", "shop", "--server", &nobody], &[]).await,
        &[&nobody, "--server"],
    );
    demo.terminate().await;
}

#[tokio::test]
async fn a_terminal_that_is_gone_stops_no_service() {
    let demo = Tributary::start(&["demo", "--listen", "127.0.0.1:0"], &[("RUST_LOG", "info")]).await;
    let addr = demo.addr;
    // It has more to say: its other listener, what it follows, and what to try.
    let demo = demo.deafen();
    let server = format!("http://{addr}");
    let read = async {
        // An app is not known before its first pod has been seen.
        while !run(&["logs", "shop", "-n", "1", "--no-follow", "--server", &server], &[])
            .await
            .status
            .success()
        {}
    };
    bounded("an app to read", read).await;
    demo.end().await;
}
