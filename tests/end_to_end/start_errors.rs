//! What a user reads if a service cannot start.

use tempfile::TempDir;

use crate::{
    cli::{assert_error, assert_usage_error, closed_port, kubeconfig},
    support::*,
};

#[tokio::test]
async fn all_invalid_settings_are_reported_at_once() {
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
    assert_usage_error(
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
async fn without_a_kubeconfig_the_error_names_the_variable() {
    let home = TempDir::new().unwrap();
    let home = home.path().display().to_string();
    let output = run(
        &["up", "--listen", "127.0.0.1:0", "--data-dir", &home],
        &[("HOME", &home)],
    )
    .await;
    assert_error(&output, &["KUBECONFIG", "tributary demo"]);
    let output = run(
        &["up", "--listen", "127.0.0.1:0", "--data-dir", &home],
        &[("HOME", &home), ("KUBECONFIG", "/nowhere")],
    )
    .await;
    assert_error(&output, &["KUBECONFIG", "/nowhere"]);
}

#[tokio::test]
async fn an_unreachable_api_is_reported_with_its_url() {
    let dir = TempDir::new().unwrap();
    let server = format!("http://127.0.0.1:{}", closed_port());
    let kubeconfig = kubeconfig(&dir, &server);
    let data = dir.path().join("data").display().to_string();
    let args = ["up", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let output = run(&args, &[("KUBECONFIG", &kubeconfig)]).await;
    assert_error(
        &output,
        &[&server, "cannot reach the Kubernetes API", "check KUBECONFIG"],
    );
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_the_flag() {
    let in_use = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = in_use.local_addr().unwrap().to_string();
    let output = run(&["demo", "--listen", &addr], &[]).await;
    assert_error(
        &output,
        &[&format!(
            "cannot bind {addr}: address already in use; choose another address or port with --listen"
        )],
    );
    let output = run(&["kubesim", "--listen", &addr], &[]).await;
    assert_error(&output, &[&addr]);
}

#[tokio::test]
async fn an_unusable_log_directory_is_reported() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let pods = file.join("pods").display().to_string();
    let output = run(&["kubesim", "--pod-log-dir", &pods], &[]).await;
    assert_error(&output, &[&pods, "--pod-log-dir"]);
}

#[tokio::test]
async fn a_data_directory_that_is_in_use_or_unusable_is_reported() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data").display().to_string();
    let demo = Tributary::start(&["demo", "--listen", "127.0.0.1:0", "--data-dir", &data], &[]).await;
    let output = run(&["demo", "--listen", "127.0.0.1:0", "--data-dir", &data], &[]).await;
    assert_error(&output, &[&data, "another process is using it", "--data-dir"]);
    demo.terminate().await;
    let file = dir.path().join("file").display().to_string();
    std::fs::write(&file, "").unwrap();
    let output = run(&["demo", "--listen", "127.0.0.1:0", "--data-dir", &file], &[]).await;
    assert_error(&output, &[&file, "--data-dir"]);
}

#[tokio::test]
async fn an_invalid_scenario_is_reported_with_its_position() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("scenario.toml").display().to_string();
    std::fs::write(&file, "[[pods]]\nnamespace = 'a'\nname = 'b'\nreplica = 3\n").unwrap();
    let output = run(&["kubesim", "--scenario", &file], &[]).await;
    assert_error(&output, &[&file, "replica"]);
    let output = run(&["demo", "--listen", "127.0.0.1:0", "--scenario", "/nowhere"], &[]).await;
    assert_error(&output, &["/nowhere"]);
}
