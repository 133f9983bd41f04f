//! The API's own description, tested by schemathesis.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::process::Stdio;

use tokio::process::Command;

use crate::{demo::demo_with_key, pypi::Program, support::*};

static SCHEMATHESIS: Program = Program::new("schemathesis==4.32.5", "schemathesis", "TRIBUTARY_REQUIRE_SCHEMATHESIS");

/// Fixes the app and ends the responses; schemathesis generates the other parameters.
const CONFIG: &str = "[parameters]\n\"path.app\" = \"shop\"\n\"query.follow\" = \"false\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_the_description_allows_causes_a_server_error() {
    let Some(program) = SCHEMATHESIS.installed().await else {
        return;
    };
    let (dir, demo, key) = demo_with_key().await;
    let authorization = format!("Authorization: Bearer {key}");
    let path = dir.path().join("schemathesis.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let server = format!("http://{}", demo.addr);
    // With the app's name, and with generated names.
    for config in [Some(&path), None] {
        let mut command = Command::new(program);
        if let Some(config) = config {
            command.arg("--config-file").arg(config);
        }
        command
            .args([
                "run",
                &format!("{server}/openapi.json"),
                "--url",
                &server,
                "-H",
                &authorization,
            ])
            .args(["--checks", "not_a_server_error", "--max-examples", "40", "--seed", "7"])
            .args(["--request-timeout", "20", "--workers", "2", "--no-color"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = bounded("schemathesis", command.output()).await.unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains("Tested: 11"), "{stdout}");
    }
    demo.terminate().await;
}
