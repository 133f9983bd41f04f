//! Help, usage errors, and errors in one line that says what to do.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::process::Output;

use tempfile::TempDir;

use crate::{demo::start_demo, support::*};

/// Returns the port of a closed listener.
pub(crate) fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Writes a kubeconfig for a server without TLS and authentication.
pub(crate) fn kubeconfig(dir: &TempDir, server: &str) -> String {
    let path = dir.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{{name: x, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: x, user: {{}}}}]\ncontexts: [{{name: x, context: {{cluster: x, user: x}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Asserts a failure with one line on stderr that contains all of these texts.
pub(crate) fn assert_error(output: &Output, texts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with("tributary: "),
        "one line: {stderr}"
    );
    for text in texts {
        assert!(lines[0].contains(text), "{text:?} in {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Asserts a usage error: clap's message, at most one tip, exit code 2.
pub(crate) fn assert_usage_error(output: &Output, texts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.starts_with("error: ") && stderr.contains("For more information, try '--help'."),
        "{stderr}"
    );
    assert!(stderr.matches("tip:").count() <= 1, "{stderr}");
    for text in texts {
        assert!(stderr.contains(text), "{text:?} in {stderr}");
    }
}

#[tokio::test]
async fn a_usage_error_is_explained_with_the_right_tip() {
    for (args, texts) in [
        (
            &["demo", "--lisen", "127.0.0.1:0"][..],
            &["--lisen", "tip: a similar argument exists: '--listen'"][..],
        ),
        (&["demo", "--listen", "here"], &["--listen", "here"]),
        (&["up", "--retention", "soon"], &["--retention", "soon", "such as 30s"]),
        (&["up", "--app-from", "pod"], &["--app-from", "label:KEY"]),
        (&["up", "--source", "disk"], &["--source", "api", "files"]),
        (&["up", "--max-tails", "0"], &["--max-tails", "0 is not in 1.."]),
        (&["colector"], &["tip: a similar subcommand exists: 'collector'"]),
        (
            &["logs", "shop", "--follow"],
            &["tip: 'tributary logs' follows by default"],
        ),
        (&["logs", "shop", "-f"], &["tip: 'tributary logs' follows by default"]),
        (&["up", "--allow-origin", "foo"], &["--allow-origin", "'foo'"]),
        (&["up", "--auth", "webhook=foo"], &["--auth webhook=foo"]),
        (
            &["up", "--spool-bytes", "x"],
            &["'x'", "expected a size such as 64MiB or 1GB"],
        ),
        (&["up", "--listen", "x"], &["expected IP:PORT such as 127.0.0.1:8080"]),
        (
            &["up", "--trusted-proxy", "x"],
            &["expected a network such as 10.0.0.0/8"],
        ),
        (&["lgs", "shop"], &["lgs", "tip: a similar subcommand exists: 'logs'"]),
        (&["logs"], &["<APP>"]),
    ] {
        assert_usage_error(&run(args, &[]).await, texts);
    }
    let unknown = run(&["logs", "--folow"], &[]).await;
    let stderr = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        !stderr.contains("-- --folow"),
        "no tip to pass a flag as a value: {stderr}"
    );
}

#[tokio::test]
async fn help_is_printed_without_arguments_and_is_grouped_with_examples() {
    let bare = run(&[], &[]).await;
    let help = String::from_utf8_lossy(&bare.stderr).into_owned();
    assert!(
        help.contains("Usage: tributary <COMMAND>") && help.contains("Examples:"),
        "{help}"
    );
    let help = run(&["--help"], &[]).await;
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("demo"));
    let help = run(&["up", "--help"], &[]).await;
    let help = String::from_utf8(help.stdout).unwrap();
    let mut rest = &*help;
    for heading in [
        "Reading:",
        "Auth & TLS:",
        "Drains:",
        "Collecting:",
        "Storage:",
        "Admin:",
        "Examples:",
    ] {
        let at = rest
            .find(&format!("\n{heading}\n"))
            .unwrap_or_else(|| panic!("{heading} in order in {help}"));
        rest = &rest[at + 1..];
    }
    for subcommand in [
        "demo",
        "up",
        "collector",
        "streamer",
        "sinks",
        "kubesim",
        "logs",
        "apps",
        "check",
        "drains",
        "keys",
        "completions",
        "man",
    ] {
        let help = run(&[subcommand, "--help"], &[]).await;
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("\nExamples:\n  tributary "), "{subcommand}: {help}");
    }
}

#[tokio::test]
async fn old_flag_names_are_still_accepted() {
    for args in [&["up", "--linger", "x"][..], &["check", "--wait", "x"]] {
        assert_usage_error(&run(args, &[]).await, &["invalid value 'x'", "such as 30s"]);
    }
    let both = ["up", "--remove-gone-apps", "--auth-none-anywhere", "--retention", "1s"];
    assert_usage_error(&run(&both, &[]).await, &["error: --retention 1s: set at least 1m"]);
}

#[tokio::test]
async fn completions_and_man_pages_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], &[]).await;
        assert!(script.status.success());
        let script = String::from_utf8(script.stdout).unwrap();
        assert!(
            script.contains("kubeconfig-out") && script.contains("drains"),
            "{shell}"
        );
    }
    let dir = TempDir::new().unwrap();
    let pages = dir.path().join("man1");
    let written = run(&["man", &pages.display().to_string()], &[]).await;
    assert!(written.status.success());
    for page in ["tributary.1", "tributary-logs.1", "tributary-drains-add.1"] {
        assert!(
            std::fs::read_to_string(pages.join(page)).unwrap().contains(".TH"),
            "{page}"
        );
    }
    let file = dir.path().join("file").display().to_string();
    std::fs::write(&file, "").unwrap();
    assert_error(&run(&["man", &file], &[]).await, &[&file, "cannot write man pages"]);
}

#[tokio::test]
async fn a_misspelt_variable_is_named_at_start() {
    let dir = TempDir::new().unwrap();
    let registry = format!("file:{}", dir.path().join("registry.json").display());
    let add = [
        "keys",
        "add",
        "--email",
        "a@b.example",
        "--app",
        "shop",
        "--registry",
        &registry,
    ];
    let output = run(&add, &[("TRIBUTARY_RETENTIN", "1d"), ("TRIBUTARY_KEY", "x")]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let warnings: Vec<&str> = stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(
        warnings,
        [
            "warning: the environment variable TRIBUTARY_RETENTIN is ignored: unknown name, did you mean TRIBUTARY_RETENTION?"
        ]
    );
}

#[tokio::test]
async fn commands_that_only_read_create_no_registry() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("typo");
    let data = missing.display().to_string();
    let registry = format!("file:{data}/registry.json");
    for args in [
        &["keys", "list", "--data-dir", &data][..],
        &["keys", "list", "--registry", &registry],
        &["keys", "revoke", "1", "--data-dir", &data],
    ] {
        assert_error(
            &run(args, &[]).await,
            &["no registry at", &data, "--data-dir", "keys add"],
        );
        assert!(!missing.exists(), "{args:?}");
    }
    let check = ["check", "--server", "http://127.0.0.1:1", "--registry", &registry];
    let stdout = String::from_utf8(run(&check, &[("KUBECONFIG", "/none-such")]).await.stdout).unwrap();
    assert!(stdout.contains("FAIL  registry    no registry at"), "{stdout}");
    assert!(!missing.exists());
}

#[tokio::test]
async fn one_signal_ends_a_start_that_waits_for_the_api() {
    let dir = TempDir::new().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let kubeconfig = kubeconfig(&dir, &format!("http://{}", silent.local_addr().unwrap()));
    let data = dir.path().join("data").display().to_string();
    let up = start_detached(
        &["up", "--listen", "127.0.0.1:0", "--data-dir", &data],
        &[("KUBECONFIG", &kubeconfig)],
    );
    // It has connected, so its signal handlers are installed.
    let silent = tokio::task::spawn_blocking(move || silent.accept().unwrap());
    let _connection = bounded("a connection", silent).await.unwrap();
    up.terminate().await;
}

#[tokio::test]
async fn logs_prints_lines_and_reports_unknown_apps_and_servers() {
    let demo = start_demo(&[]).await;
    let server = format!("http://{}", demo.addr);
    let mut tail = demo.get("/api/apps/shop/logs").await;
    for _ in 0..20 {
        tail.line().await.unwrap();
    }
    let output = run(&["logs", "shop", "-n", "5", "--no-follow", "--server", &server], &[]).await;
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 5);
    stdout.lines().for_each(|line| assert_eq!(parse_line(line).app, "shop"));
    assert_error(
        &run(&["logs", "nope", "--server", &server], &[]).await,
        &["nope", "app not found"],
    );
    assert_usage_error(
        &run(&["logs", "shop", "--server", "127.0.0.1"], &[]).await,
        &["--server 127.0.0.1"],
    );
    assert_usage_error(
        &run(&["logs", "shop", "--server", "ftp://127.0.0.1"], &[]).await,
        &["--server ftp://127.0.0.1"],
    );
    for (flag, value) in [("--since", "yesterday"), ("--grep", "(")] {
        let output = run(&["logs", "shop", "--server", &server, flag, value], &[]).await;
        assert_usage_error(&output, &[&format!("error: {flag} {value}: ")]);
    }
    let closed = format!("http://127.0.0.1:{}", closed_port());
    assert_error(
        &run(&["logs", "shop", "--server", &closed], &[]).await,
        &[&closed, "--server"],
    );
    demo.terminate().await;
}

#[tokio::test]
async fn a_closed_terminal_stops_no_service() {
    let demo = Tributary::start(&["demo", "--listen", "127.0.0.1:0"], &[("RUST_LOG", "info")]).await;
    let addr = demo.addr;
    // It still prints its admin address, log events and the introduction.
    let demo = demo.close_output();
    let server = format!("http://{addr}");
    let read = async {
        // An app exists once its first pod was found.
        while !run(&["logs", "shop", "-n", "1", "--no-follow", "--server", &server], &[])
            .await
            .status
            .success()
        {}
    };
    bounded("an app to read", read).await;
    demo.terminate().await;
}

#[tokio::test]
async fn a_value_from_a_variable_is_reported_with_the_variable() {
    let variables = [("TRIBUTARY_LISTEN", "x")];
    let output = run(&["up"], &variables).await;
    assert_usage_error(&output, &["'x'", "--listen <ADDR> (from TRIBUTARY_LISTEN)"]);
    let output = run(&["up"], &[("TRIBUTARY_RETENTION", "1s")]).await;
    assert_usage_error(&output, &["--retention (from TRIBUTARY_RETENTION) 1s: set at least 1m"]);
    let output = run(&["up", "--listen", "y"], &variables).await;
    assert_usage_error(&output, &["'y'"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("TRIBUTARY_LISTEN"));
}

#[tokio::test]
async fn passwords_and_control_characters_are_not_printed() {
    let server = format!("http://user:secret@127.0.0.1:{}", closed_port());
    for args in [&["logs", "shop"][..], &["drains", "list", "shop"], &["logs", "--help"]] {
        let output = run(args, &[("TRIBUTARY_SERVER", &server)]).await;
        for text in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(text).contains("secret"), "{args:?}");
        }
    }
    let output = run(&["up", "--source", "\u{1b}[31m"], &[]).await;
    assert!(!output.stderr.contains(&0x1b));
}

#[tokio::test]
async fn a_key_expires_within_a_hundred_years() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().display().to_string();
    let add = [
        "keys",
        "add",
        "--email",
        "a@b.example",
        "--app",
        "shop",
        "--data-dir",
        &data,
    ];
    let output = run(&[&add[..], &["--expires-in", "3000000d"]].concat(), &[]).await;
    assert_usage_error(&output, &["--expires-in", "set at most 36525d (100 years)"]);
    let output = run(&[&add[..], &["--expires-in", "36525d"]].concat(), &[]).await;
    assert!(output.status.success());
    // A key of an earlier version may expire later.
    let file = dir.path().join("registry.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once("\"expires\":").unwrap();
    let after = after.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
    std::fs::write(&file, format!("{before}\"expires\":300000000000{after}")).unwrap();
    let output = run(&["keys", "list", "--data-dir", &data], &[]).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("expires after 9999"));
}

#[tokio::test]
async fn a_full_stdout_is_an_error() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().display().to_string();
    let add = [
        "keys",
        "add",
        "--email",
        "a@b.example",
        "--app",
        "shop",
        "--data-dir",
        &data,
    ];
    for (args, text) in [
        (&add[..], "the new key is lost; revoke it with `tributary keys revoke "),
        (&["keys", "list", "--data-dir", &data], "cannot write to stdout"),
        (&["completions", "bash"], "cannot write to stdout"),
        (&["reference", "flags"], "cannot write to stdout"),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = command(args, &[]).stdout(full).spawn().unwrap();
        let output = bounded("the end", child.wait_with_output()).await.unwrap();
        assert_error(&output, &[text]);
    }
}

#[tokio::test]
async fn the_first_signal_ends_a_command() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let args = ["drains", "list", "shop", "--server", &server];
        let mut child = command(&args, &[]).spawn().unwrap();
        let _connection = bounded("a connection", silent.accept()).await.unwrap();
        let kill = format!("kill -{signal} {}", child.id().unwrap());
        assert!(
            std::process::Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        let status = bounded("the end", child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(code));
    }
}

#[tokio::test]
async fn a_foreign_kubeconfig_is_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("kubeconfig").display().to_string();
    let args = ["kubesim", "--kubeconfig-out", &file];
    for _ in 0..2 {
        Tributary::start(&args, &[]).await.terminate().await;
    }
    std::fs::write(&file, "apiVersion: v1\n").unwrap();
    assert_error(&run(&args, &[]).await, &[&file, "--kubeconfig-out"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "apiVersion: v1\n");
}

#[tokio::test]
async fn a_rejected_request_says_whether_a_key_was_sent() {
    let demo = start_demo(&["--auth", "keys"]).await;
    let server = format!("http://{}", demo.addr);
    let places = ["--key", "TRIBUTARY_KEY", "~/.netrc"];
    for command in [&["logs", "shop"][..], &["drains", "list", "shop"]] {
        let args = [command, &["--server", &server]].concat();
        let home = [("HOME", "/nonexistent")];
        let output = run(&args, &home).await;
        assert_error(&output, &[&places[..], &["no API key was sent"]].concat());
        let output = run(&[&args[..], &["--key", "x"]].concat(), &home).await;
        assert_error(&output, &[&places[..], &["an API key was sent"]].concat());
    }
    demo.terminate().await;
}

#[tokio::test]
async fn an_unknown_drain_is_reported_with_the_command_that_lists_drains() {
    let demo = start_demo(&[]).await;
    let server = format!("http://{}", demo.addr);
    for command in ["show", "test", "remove"] {
        let output = run(&["drains", command, "shop", "99", "--server", &server], &[]).await;
        assert_error(&output, &["`tributary drains list shop`"]);
    }
    demo.terminate().await;
}
