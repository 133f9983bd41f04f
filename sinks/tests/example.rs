//! The example receiver in `examples/drain-receiver` receives every line of a drain.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::process::Stdio;

use support::*;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_example_receiver_prints_every_line() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/drain-receiver/receiver.py");
    let started = Command::new("python3")
        .args([script, "0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut receiver = match started {
        Ok(receiver) => receiver,
        Err(error) => {
            assert!(
                std::env::var_os("TRIBUTARY_REQUIRE_PYTHON").is_none(),
                "python3 is required but cannot be started: {error}"
            );
            return eprintln!("skipped: python3 is not installed");
        }
    };
    let mut output = BufReader::new(receiver.stdout.take().unwrap()).lines();
    let mut line = async || bounded("output", output.next_line()).await.unwrap().unwrap();
    let listening = line().await;
    let port = listening
        .strip_prefix("listening on port ")
        .expect("the port")
        .to_owned();

    let setup = Setup::open().await;
    let drain = setup.drain(&format!("http://127.0.0.1:{port}/")).await;
    setup
        .drain(&format!("http://127.0.0.1:{port}/zipped?tributary.gzip=on"))
        .await;
    let sinks = setup.start(config());
    setup.print(&metadata("web-1"), 0, 2500, 100).await;
    // Two drains send the same lines; those of each arrive in order.
    let mut received = vec![0; 2500];
    for _ in 0..5000 {
        let line = line().await;
        let (_, text) = line.split_once(" app[web-1]: line ").expect(&line);
        received[text.parse::<usize>().unwrap()] += 1;
    }
    assert!(received.iter().all(|count| *count == 2), "{received:?}");
    setup
        .until_report(&drain, "all delivered", |report| report.delivered == 2500)
        .await;
    sinks.stop().await;
}
