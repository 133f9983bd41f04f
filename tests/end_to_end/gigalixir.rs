//! The unmodified Gigalixir client from PyPI.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    path::Path,
    process::{Output, Stdio},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::{demo::demo_with_key, pypi::Program, support::*};

/// The last release in Python; 2.0.0 downloads a binary.
static CLIENT: Program = Program::new("gigalixir==1.16.1", "gigalixir", "TRIBUTARY_REQUIRE_GIGALIXIR");

/// A drain without a listener.
const DRAIN: &str = "syslog+tls://127.0.0.1:1";

/// A user of the client with a key in netrc.
struct User {
    client: &'static Path,
    server: String,
    home: TempDir,
}

impl User {
    fn new(client: &'static Path, server: &Tributary, key: &str) -> Self {
        let home = TempDir::new().unwrap();
        let netrc = format!("machine 127.0.0.1 login me@example.com password {key}\n");
        std::fs::write(home.path().join(".netrc"), netrc).unwrap();
        Self {
            client,
            server: format!("http://{}", server.addr),
            home,
        }
    }

    /// Prepares the client. GIGALIXIR_ENV=test disables its error reporting; `--env prod` makes it
    /// use the configured host all the same.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.client);
        command
            .args(["--env", "prod"])
            .args(args)
            .env("HOME", self.home.path())
            .env("NETRC", self.home.path().join(".netrc"))
            .env("GIGALIXIR_ENV", "test")
            .env("GIGALIXIR_CLI__HOST", &self.server)
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Output {
        bounded("the client's end", self.command(args).output()).await.unwrap()
    }

    /// Runs the client and returns its stdout.
    async fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the client, asserts exit code 1, and returns its one line on stderr.
    async fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "one line: {stderr:?}");
        stderr
    }
}

/// Starts a demo with `--auth keys`, with an owner of its app `shop`.
async fn open(client: &'static Path) -> (TempDir, Tributary, User) {
    let (dir, demo, key) = demo_with_key().await;
    let owner = User::new(client, &demo, &key);
    bounded("the key to be known", async {
        while !owner.run(&["account"]).await.status.success() {}
    })
    .await;
    (dir, demo, owner)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_prints_logs_and_the_server_s_error_messages() {
    let Some(client) = CLIENT.installed().await else { return };
    let (_dir, demo, owner) = open(client).await;
    let mut lines = String::new();
    bounded("five lines", async {
        while lines.lines().count() < 5 {
            lines = owner.succeeds(&["logs", "-a", "shop", "-n", "5", "-t"]).await;
        }
    })
    .await;
    assert_eq!(lines.lines().count(), 5);
    lines.lines().for_each(|line| assert_eq!(parse_line(line).app, "shop"));
    let output = owner.fails(&["logs", "-a", "mailer", "-t"]).await;
    assert!(output.contains("app not found"), "an app of another owner: {output}");
    let output = owner.fails(&["logs", "-a", "shop", "-n", "abc", "-t"]).await;
    assert!(output.contains("num_lines: invalid value"), "{output}");
    let stranger = User::new(client, &demo, "0123456789012345678901234567890123456789");
    let output = stranger.fails(&["logs", "-a", "shop", "-t"]).await;
    assert!(output.contains("you do not have access"), "{output}");
    // A live tail ends without an error when the server shuts down.
    let mut following = owner
        .command(&["logs", "-a", "shop"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(following.stdout.take().unwrap()).lines();
    let line = bounded("a line", output.next_line()).await.unwrap().unwrap();
    assert_eq!(parse_line(&line).app, "shop");
    demo.send_sigterm().await;
    let ended = async {
        while let Some(line) = output.next_line().await.unwrap() {
            assert_eq!(parse_line(&line).app, "shop");
        }
        following.wait().await.unwrap()
    };
    assert!(bounded("the end", ended).await.success());
    demo.wait_for_exit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_manages_drains_and_shows_the_account() {
    let Some(client) = CLIENT.installed().await else { return };
    let (_dir, demo, owner) = open(client).await;
    let listed = async || -> serde_json::Value {
        serde_json::from_str(&owner.succeeds(&["drains", "-a", "shop"]).await).unwrap()
    };
    assert_eq!(listed().await, serde_json::json!([]));
    owner.succeeds(&["drains:add", "-a", "shop", DRAIN]).await;
    let drains = listed().await;
    assert_eq!(drains[0]["url"], DRAIN);
    assert!(drains[0]["token"].as_str().unwrap().starts_with("d."));
    let id = drains[0]["id"].as_u64().unwrap().to_string();
    let output = owner.fails(&["drains:add", "-a", "shop", DRAIN]).await;
    assert!(output.contains("already has a drain with this URL"), "{output}");
    let output = owner
        .fails(&["drains:add", "-a", "shop", "https://u:hunter2@10.0.0.1/"])
        .await;
    assert!(
        output.contains("public addresses only") && !output.contains("hunter2"),
        "{output}"
    );
    let output = owner.fails(&["drains", "-a", "mailer"]).await;
    assert!(output.contains("app not found"), "{output}");
    owner.succeeds(&["drains:remove", "-a", "shop", &id]).await;
    let output = owner.fails(&["drains:remove", "-a", "shop", &id]).await;
    assert!(output.contains("no such drain"), "{output}");
    assert_eq!(listed().await, serde_json::json!([]));
    let account: serde_json::Value = serde_json::from_str(&owner.succeeds(&["account"]).await).unwrap();
    assert_eq!(account["email"], "me@example.com");
    let output = owner.fails(&["login", "-e", "me@example.com", "-p", "x", "-y"]).await;
    assert!(output.contains("password login is not supported"), "{output}");
    demo.terminate().await;
}
