//! The limit of open files: reached by clients, it hurts neither other clients nor the operator.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::process::Stdio;

use tempfile::tempdir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use crate::support::{ResponseLines, Tributary, bounded};

/// Both limits of open files.
const LIMIT: usize = 400;

/// Runs `tributary demo` with these soft and hard limits of open files.
async fn start(soft: usize, hard: usize) -> (tempfile::TempDir, Tributary) {
    let dir = tempdir().unwrap();
    let mut command = Command::new("sh");
    let script = format!("ulimit -S -n {soft}; ulimit -H -n {hard}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_tributary")]);
    command.args([
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    command
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let demo = Tributary::of(command).await;
    bounded("the app", async { while tail(&demo).await.0 != "HTTP/1.1 200" {} }).await;
    (dir, demo)
}

/// Opens a tail. Returns the start of its response, and the connection.
async fn tail(demo: &Tributary) -> (String, TcpStream) {
    let mut connection = TcpStream::connect(demo.addr).await.unwrap();
    let request = format!(
        "GET /api/apps/shop/logs?num_lines=0 HTTP/1.1\r\nhost: {}\r\n\r\n",
        demo.addr
    );
    let mut head = [0; 12];
    // A connection that is closed at once counts as refused.
    let answered = async {
        connection.write_all(request.as_bytes()).await?;
        connection.read_exact(&mut head).await
    };
    match bounded("an answer", answered).await {
        Ok(_) => (String::from_utf8_lossy(&head).into_owned(), connection),
        Err(_) => ("closed".to_owned(), connection),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_beyond_the_limit_of_open_files_are_refused_and_the_operator_is_served() {
    let (_dir, mut demo) = start(LIMIT, LIMIT).await;
    let admin = demo.admin_addr().await;
    let mut open = Vec::new();
    for _ in 0..LIMIT {
        open.push(tail(&demo).await);
    }
    let served = open.iter().filter(|(status, _)| status == "HTTP/1.1 200").count();
    let refused = open.iter().filter(|(status, _)| status == "HTTP/1.1 429").count();
    assert!(served > LIMIT / 4, "{served} served");
    assert!(refused > 0 && served < LIMIT, "{refused} refused");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ResponseLines::open(admin, path).await.status(), 200, "{path}");
    }
    drop(open);
    bounded("room for a tail", async {
        while tail(&demo).await.0 != "HTTP/1.1 200" {}
    })
    .await;
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let (_dir, demo) = start(64, LIMIT).await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(tail(&demo).await);
    }
    assert!(open.iter().all(|(status, _)| status == "HTTP/1.1 200"));
    demo.terminate().await;
}
