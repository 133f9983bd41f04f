//! `tributary apps`: lists and removes the apps of a bus.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use tempfile::TempDir;

use crate::{cluster::streamer, drains::succeeds, emulator::Emulator, support::*};

#[tokio::test(flavor = "multi_thread")]
async fn apps_are_listed_and_removed_and_an_app_with_drains_requires_a_flag() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let registry = format!("file:{}", dir.path().join("registry.json").display());
    let streamer = streamer(&emulator, &["--registry", &registry, "--allow-address", "127.0.0.0/8"]).await;
    let apps = async |args: &[&str]| {
        let args = [&["apps"], args, &["--bus", "pubsub:whole"]].concat();
        let done = run(&args, &[("PUBSUB_EMULATOR_HOST", emulator.host())]).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.success(), text(done.stdout), text(done.stderr))
    };
    assert_eq!(apps(&["list"]).await.1, "");
    succeeds(&streamer, &["add", "shop", "syslog+tcp://127.0.0.1:1"]).await;
    assert_eq!(apps(&["list"]).await.1, "shop\tdrains\n");
    let (removed, _, output) = apps(&["remove", "shop"]).await;
    assert!(!removed && output.contains("shop has drains"), "{output}");
    let (removed, _, output) = apps(&["remove", "shop", "--with-drains"]).await;
    assert!(removed, "{output}");
    assert_eq!(apps(&["list"]).await.1, "");
    let (removed, _, output) = apps(&["remove", "shop"]).await;
    assert!(!removed && output.contains("app shop not found"), "{output}");
    streamer.terminate().await;
    emulator.stop().await;
}
