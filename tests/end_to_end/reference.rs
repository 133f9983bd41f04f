//! The generated pages of docs/reference equal the code.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::path::Path;

use crate::support::*;

async fn assert_generated(page: &str) {
    let path = format!("docs/reference/{page}.md");
    let stored = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap_or_default();
    let generated = run(&["reference", page], &[]).await;
    assert!(generated.status.success());
    let generated = String::from_utf8(generated.stdout).unwrap();
    let differs = stored
        .lines()
        .zip(generated.lines())
        .find(|(stored, new)| stored != new);
    assert!(
        stored == generated,
        "{path} is out of date, run: cargo run -- reference {page} > {path}; first difference: {differs:?}"
    );
}

#[tokio::test]
async fn the_flags_page_equals_the_command_line() {
    assert_generated("flags").await;
}

#[tokio::test]
async fn the_metrics_page_equals_the_registered_metrics() {
    assert_generated("metrics").await;
}
