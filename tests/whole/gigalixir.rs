//! The Gigalixir client from PyPI, unmodified, as its users run it.

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

/// The last release that is a client; 2.0.0 fetches one.
static CLIENT: Program = Program::new("gigalixir==1.16.1", "gigalixir", "TRIBUTARY_REQUIRE_GIGALIXIR");

/// Where nobody listens: a test dials nobody else.
const DRAIN: &str = "syslog+tls://127.0.0.1:1";

/// Somebody with the client, and perhaps a key in netrc.
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

    /// In the environment `test` the client reports no errors to its makers; `--env prod` makes it look at the address all the same.
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

    /// Runs it, and returns what it prints.
    async fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it, and returns what it says against it.
    async fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "one line: {said:?}");
        said
    }
}

/// A demo that asks for keys, and an owner of its app `shop`.
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
async fn the_client_shows_logs_and_what_is_wrong_in_our_words() {
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
    lines.lines().for_each(|line| assert_eq!(take_apart(line).app, "shop"));
    let said = owner.fails(&["logs", "-a", "mailer", "-t"]).await;
    assert!(said.contains("app not found"), "another's app: {said}");
    let said = owner.fails(&["logs", "-a", "shop", "-n", "abc", "-t"]).await;
    assert!(said.contains("num_lines: give a number"), "{said}");
    let stranger = User::new(client, &demo, "0123456789012345678901234567890123456789");
    let said = stranger.fails(&["logs", "-a", "shop", "-t"]).await;
    assert!(said.contains("you do not have access"), "{said}");
    // Following, until the server goes: an end in good order.
    let mut following = owner
        .command(&["logs", "-a", "shop"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(following.stdout.take().unwrap()).lines();
    let line = bounded("a line", shown.next_line()).await.unwrap().unwrap();
    assert_eq!(take_apart(&line).app, "shop");
    demo.tell_to_stop().await;
    let ended = async {
        while let Some(line) = shown.next_line().await.unwrap() {
            assert_eq!(take_apart(&line).app, "shop");
        }
        following.wait().await.unwrap()
    };
    assert!(bounded("the end", ended).await.success());
    demo.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_manages_drains_and_shows_whose_key_it_has() {
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
    let said = owner.fails(&["drains:add", "-a", "shop", DRAIN]).await;
    assert!(said.contains("already has a drain with this URL"), "{said}");
    let said = owner
        .fails(&["drains:add", "-a", "shop", "https://u:hunter2@10.0.0.1/"])
        .await;
    assert!(
        said.contains("public addresses only") && !said.contains("hunter2"),
        "{said}"
    );
    let said = owner.fails(&["drains", "-a", "mailer"]).await;
    assert!(said.contains("app not found"), "{said}");
    owner.succeeds(&["drains:remove", "-a", "shop", &id]).await;
    let said = owner.fails(&["drains:remove", "-a", "shop", &id]).await;
    assert!(said.contains("no such drain"), "{said}");
    assert_eq!(listed().await, serde_json::json!([]));
    let account: serde_json::Value = serde_json::from_str(&owner.succeeds(&["account"]).await).unwrap();
    assert_eq!(account["email"], "me@example.com");
    let said = owner.fails(&["login", "-e", "me@example.com", "-p", "x", "-y"]).await;
    assert!(said.contains("password login is not supported"), "{said}");
    demo.terminate().await;
}
