//! `tributary drains`, and delivery to drains.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{collections::HashMap, process::Output};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    sync::mpsc,
};

use crate::{
    demo::start_demo,
    support::*,
    up::{Cluster, expected, numbered},
};

/// Runs `tributary drains` against a server.
async fn drains(server: &Tributary, args: &[&str]) -> Output {
    let url = format!("http://{}", server.addr);
    let args: Vec<&str> = ["drains"]
        .iter()
        .chain(args)
        .chain(&["--server", &url])
        .copied()
        .collect();
    run(&args, &[]).await
}

pub async fn succeeds(server: &Tributary, args: &[&str]) -> String {
    let done = drains(server, args).await;
    assert!(
        done.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

async fn fails(server: &Tributary, args: &[&str]) -> String {
    let done = drains(server, args).await;
    assert_eq!(done.status.code(), Some(1), "{args:?}");
    let output = String::from_utf8(done.stderr).unwrap();
    assert_eq!(output.lines().count(), 1, "one line: {output:?}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_added_receives_lines_is_tested_and_removed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("syslog+tcp://{}?framing=lf", listener.local_addr().unwrap());
    let demo = start_demo(&["--allow-address", "127.0.0.0/8"]).await;
    let id = succeeds(&demo, &["add", "shop", &to]).await.trim().to_owned();
    let (stream, _) = bounded("a connection", listener.accept()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    for _ in 0..10 {
        let line = bounded("a line", lines.next_line()).await.unwrap().unwrap();
        let fields: Vec<&str> = line.split(' ').collect();
        assert!(
            fields[0].ends_with(">1") && fields[1].ends_with('Z') && fields[2] == "shop",
            "{line}"
        );
    }
    let listed = succeeds(&demo, &["list", "shop"]).await;
    assert!(listed.starts_with(&format!("{id}\t{to}\td.")), "{listed}");
    bounded("its state", async {
        while !succeeds(&demo, &["show", "shop", &id])
            .await
            .contains("state\tconnected\n")
        {}
    })
    .await;
    let test = ["test", "shop", &id];
    let (tested, accepted) = tokio::join!(drains(&demo, &test), listener.accept());
    let (stream, _) = accepted.unwrap();
    let probe = bounded("the test's line", BufReader::new(stream).lines().next_line())
        .await
        .unwrap()
        .unwrap();
    assert!(probe.contains(&format!("test message of drain {id}")), "{probe}");
    let tested = String::from_utf8(tested.stdout).unwrap();
    for step in ["resolve\tok\t", "connect\tok\t", "send\tok\t", "sent\t<172>1 "] {
        assert!(tested.contains(step), "{tested}");
    }
    succeeds(&demo, &["remove", "shop", &id]).await;
    assert_eq!(succeeds(&demo, &["list", "shop"]).await, "");
    let ended = async { while lines.next_line().await.unwrap().is_some() {} };
    bounded("the connection's end", ended).await;
    demo.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_drains_are_rejected_with_one_line() {
    let demo = start_demo(&["--allow-address", "127.0.0.0/8"]).await;
    for (args, word) in [
        (&["add", "shop", "syslog://10.0.0.1:514"][..], "public addresses only"),
        (
            &["add", "shop", "syslog+tcp://127.0.0.1:514?colour=red"],
            "unknown option",
        ),
        (&["add", "shop", "nonsense"], "not a URL"),
        (&["show", "shop", "1"], "no such drain"),
        (&["test", "none-such", "1"], "no such drain"),
        (&["remove", "shop", "1"], "no such drain"),
    ] {
        let output = fails(&demo, args).await;
        assert!(output.contains(word), "{args:?}: {output}");
    }
    // No listener at this address.
    let id = succeeds(&demo, &["add", "shop", "syslog+tcp://127.0.0.1:1"]).await;
    let output = fails(&demo, &["test", "shop", id.trim()]).await;
    assert!(output.contains("connect failed: "), "{output}");
    // The app's log has a notice about the drain.
    let mut log = demo.get("/api/apps/shop/logs").await;
    bounded("a notice", async {
        while !log.line().await.unwrap().contains("shop[tributary]: Error L13: drain ") {}
    })
    .await;
    demo.terminate().await;
}

/// Accepts connections and sends their lines to a channel.
pub async fn receive(listener: TcpListener, lines: mpsc::Sender<String>) {
    while let Ok((stream, _)) = listener.accept().await {
        let lines = lines.clone();
        tokio::spawn(async move {
            let mut read = BufReader::new(stream).lines();
            while let Ok(Some(line)) = read.next_line().await {
                let _ = lines.send(line).await;
            }
        });
    }
}

/// The lines received of each process.
#[derive(Default)]
pub struct Received {
    seen: HashMap<String, Vec<bool>>,
    pub count: u64,
    /// Whether lines may arrive out of order.
    pub unordered: bool,
}

impl Received {
    pub fn record(&mut self, line: &str) {
        let fields: Vec<&str> = line.split(' ').collect();
        let seq = fields.get(8).and_then(|seq| seq.parse::<usize>().ok());
        // A line cut off by a kill is resent.
        let (Some(process), Some(seq), 100..) = (fields.get(3), seq, line.len()) else {
            return;
        };
        assert_ne!(*process, "tributary", "unexpected gap: {line}");
        let seen = self.seen.entry((*process).to_owned()).or_default();
        seen.resize(seen.len().max(seq + 1), false);
        assert!(
            self.unordered || seq == 0 || seen[seq - 1],
            "{process}: {seq} before its predecessor"
        );
        self.count += u64::from(!std::mem::replace(&mut seen[seq], true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_receives_every_line_through_five_kills() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("syslog+tcp://{}?framing=lf", listener.local_addr().unwrap());
    let (received, mut lines) = mpsc::channel(10_000);
    let receiving = tokio::spawn(receive(listener, received));
    // The pods start after the drain was added.
    let cluster =
        Cluster::start(&numbered().replace("name = \"writer\"", "name = \"writer\"\nstart_after = \"2s\"")).await;
    let data_dir = cluster.dir.path().join("data").display().to_string();
    let start = async || {
        let flags = ["--listen", "127.0.0.1:0", "--allow-address", "127.0.0.0/8"];
        let args = [&["up", "--data-dir", &data_dir], &flags[..]].concat();
        Tributary::start(&args, &[("KUBECONFIG", &cluster.kubeconfig)]).await
    };
    let mut all = Received::default();
    for part in 0..=5 {
        let up = start().await;
        if part == 0 {
            succeeds(&up, &["add", "load", &to]).await;
        }
        let until = if part < 5 {
            expected() / 6 * (part + 1)
        } else {
            expected()
        };
        bounded("more lines", async {
            while all.count < until {
                all.record(&lines.recv().await.unwrap());
            }
        })
        .await;
        if part < 5 {
            up.kill().await;
        } else {
            up.terminate().await;
        }
    }
    receiving.abort();
    cluster.stop().await;
}
