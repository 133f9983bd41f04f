//! `tributary logs`: resumes through kills of the server, output formats, credentials and TLS.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::collections::HashMap;

use tempfile::TempDir;

use crate::{
    demo::start_demo,
    support::*,
    up::{Cluster, first_tail, writers},
};

const CONTAINERS: u64 = 4;
const LINES: u64 = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn repeated_kills_of_the_server_neither_lose_nor_repeat_a_line() {
    let cluster = Cluster::start(&writers(CONTAINERS, LINES, 1000)).await;
    let data_dir = cluster.dir.path().join("data");
    let proxy = TcpProxy::start().await;
    let mut up = cluster.up(&data_dir).await;
    proxy.forward_to(up.addr);
    drop(first_tail(&up).await);
    let server = format!("http://{}", proxy.addr);
    let args = ["logs", "load", "-n", "1000000", "-o", "json", "--server", &server];
    let mut logs = start_client(&args, &[]);
    let (mut next, mut total): (HashMap<String, u64>, u64) = (HashMap::new(), 0);
    while total < CONTAINERS * LINES {
        let line: serde_json::Value = serde_json::from_str(&logs.line().await).unwrap();
        let process = line["process"].as_str().unwrap().to_owned();
        let expected = next.entry(process).or_default();
        assert_eq!(line["seq"].as_u64(), Some(*expected), "{line}");
        *expected += 1;
        total += 1;
        if [1000, 5000, 9000].contains(&total) {
            up.kill().await;
            up = cluster.up(&data_dir).await;
            proxy.forward_to(up.addr);
        }
    }
    logs.interrupt().await;
    up.terminate().await;
    cluster.stop().await;
}

#[tokio::test]
async fn lines_are_filtered_and_formatted_by_the_flags() {
    let demo = start_demo(&[]).await;
    let server = format!("http://{}", demo.addr);
    let mut tail = demo.get("/api/apps/shop/logs").await;
    let mut printed: HashMap<String, u64> = HashMap::new();
    for _ in 0..40 {
        let line = tail.line().await.unwrap();
        *printed.entry(parse_line(&line).process.to_owned()).or_default() += 1;
    }
    let (process, lines) = printed.into_iter().max_by_key(|(_, lines)| *lines).unwrap();
    assert!(lines >= 3, "one of three pods prints several lines");
    let read = async |more: &[&str]| {
        let args = [&["logs", "shop", "--no-follow", "--server", &server], more].concat();
        let output = run(&args, &[]).await;
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let lines = String::from_utf8(output.stdout).unwrap();
        assert!(!lines.contains('\x1b'), "no colours into a pipe");
        lines.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let text = read(&["-n", "3", "--process", &process]).await;
    assert_eq!(text.len(), 3);
    text.iter()
        .for_each(|line| assert_eq!(parse_line(line).process, process));
    let json = read(&["-n", "3", "-o", "json"]).await;
    for line in &json {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["app"], line["seq"].is_u64()), (&"shop".into(), true));
    }
    let matching = read(&["--since", "1h", "--grep", "^[^ ]"]).await;
    assert!(matching.len() >= 40, "with --since all of them: {}", matching.len());
    assert_eq!(read(&["--grep", "never printed"]).await.len(), 0);
    let raw = read(&["-n", "2", "-o", "raw"]).await;
    assert!(raw.len() == 2 && raw.iter().all(|line| !line.contains("shop[")));
    let refused = run(&["logs", "shop", "--grep", "(", "--server", &server], &[]).await;
    let output = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && output.contains("--grep (: unclosed group"),
        "{output}"
    );
    drop(tail);
    demo.terminate().await;
}

#[tokio::test]
async fn a_closed_pipe_or_ctrl_c_ends_the_command_with_exit_code_0() {
    let demo = start_demo(&[]).await;
    let server = format!("http://{}", demo.addr);
    let mut logs = start_client(&["logs", "shop", "--server", &server], &[]);
    logs.line().await;
    // As `| head` does.
    drop(logs.stdout);
    let status = bounded("the end", logs.child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    let mut logs = start_client(&["logs", "shop", "--server", &server], &[]);
    logs.line().await;
    logs.interrupt().await;
    demo.terminate().await;
}

#[tokio::test]
async fn the_key_is_read_from_a_flag_or_from_netrc() {
    let home = TempDir::new().unwrap();
    std::fs::write(
        home.path().join(".netrc"),
        "machine 127.0.0.1 login a@b.example password netrc-key\n",
    )
    .unwrap();
    let home = home.path().display().to_string();
    for (more, sent) in [
        (&["--key", "flag-key"][..], "Bearer flag-key"),
        (&[][..], "Basic YUBiLmV4YW1wbGU6bmV0cmMta2V5"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let args = [&["logs", "shop", "--server", &server], more].concat();
        let received = async {
            let (connection, _) = listener.accept().await.unwrap();
            let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(connection));
            loop {
                let line = lines.next_line().await.unwrap().expect("the header");
                if let Some(sent) = line.strip_prefix("authorization: ") {
                    return sent.to_owned();
                }
            }
        };
        let env = [("HOME", home.as_str()), ("NETRC", "")];
        let (_output, received) = tokio::join!(run(&args, &env), bounded("a request", received));
        assert_eq!(received, sent);
    }
}

#[tokio::test]
async fn https_requires_a_certificate_of_a_trusted_authority() {
    let demo = start_demo(&[]).await;
    let dir = TempDir::new().unwrap();
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, identity.cert.pem()).unwrap();
    let roots = roots.display().to_string();
    let port = start_tls_proxy(demo.addr, &identity).await.port();
    let named = format!("https://localhost:{port}");
    let read = async |server: &str, roots: &str| {
        let args = ["logs", "shop", "-n", "1", "--server", server, "--no-follow"];
        run(&args, &[("SSL_CERT_FILE", roots)]).await
    };
    let mut tail = demo.get("/api/apps/shop/logs").await;
    tail.line().await.unwrap();
    let output = read(&named, &roots).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
    // A wrong host name, and an untrusted certificate.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let others = dir.path().join("others.pem");
    std::fs::write(&others, other.cert.pem()).unwrap();
    let unnamed = format!("https://127.0.0.1:{port}");
    for (server, roots) in [(&unnamed, &roots), (&named, &others.display().to_string())] {
        let output = read(server, roots).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && stderr.contains(server.as_str()) && stderr.contains("certificate"),
            "{stderr}"
        );
        assert!(output.stdout.is_empty());
    }
    demo.terminate().await;
}
