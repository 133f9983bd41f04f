//! Scenario files: parsing, and errors that name the key and its position.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

use std::time::Duration;

use kubesim::{FaultKind, Output, RestartPolicy, Scenario};

const POD: &str = "[[pods]]\nnamespace = \"a\"\nname = \"b\"\n";

fn error(text: &str) -> String {
    Scenario::from_toml(text).unwrap_err().to_string()
}

#[test]
fn a_full_scenario_is_parsed() {
    let text = r#"
        seed = 3
        [[pods]]
        namespace = "shop"
        name = "web"
        replicas = 2
        start_after = "1m30s"
        delete_after = 200
        labels = { tier = "front" }
        [[pods.containers]]
        name = "c"
        lines = 10
        rate = 0
        size = 80
        text = "n {seq}"
        exit_code = 4
        restart = "OnFailure"
        [[pods.containers]]
        name = "d"
        [[faults]]
        at = "250ms"
        kind = "delete-pod"
        namespace = "shop"
        pod = "web"
        [[faults]]
        at = 2.5
        kind = "api-down"
        for = "3s"
    "#;
    let scenario = Scenario::from_toml(text).unwrap();
    let pod = &scenario.pods[0];
    assert_eq!(
        (pod.start_after, pod.delete_after),
        (Duration::from_secs(90), Some(Duration::from_secs(200)))
    );
    let Output::Lines(lines) = &pod.containers[0].output else {
        panic!("expected lines")
    };
    assert_eq!(
        (lines.lines, lines.rate, lines.size, lines.text.as_str()),
        (10, 0.0, Some(80), "n {seq}")
    );
    assert_eq!(
        (pod.containers[0].exit_code, pod.containers[0].restart),
        (4, RestartPolicy::OnFailure)
    );
    assert_eq!(
        pod.containers[1].restart,
        RestartPolicy::Always,
        "endless containers restart by default"
    );
    let Output::Lines(lines) = &pod.containers[1].output else {
        panic!("expected lines")
    };
    assert_eq!(lines.text, "line {seq}");
    assert_eq!(scenario.faults[0].at, Duration::from_millis(250));
    assert_eq!(
        scenario.faults[1].kind,
        FaultKind::ApiDown {
            duration: Duration::from_secs(3)
        }
    );
}

#[test]
fn an_error_names_the_key_and_its_position_on_one_line() {
    let container = "[[pods.containers]]\nname = \"c\"\n";
    let cases = [
        ("sed = 1\n".to_owned(), "line 1, column 1: unknown field `sed`"),
        (
            format!("{POD}replica = 2\n{container}"),
            "line 4, column 1: unknown field `replica`",
        ),
        (
            format!("{POD}{container}rat = 2\n"),
            "line 6, column 1: unknown field `rat`",
        ),
        (
            format!("{POD}{container}rate = -2\n"),
            "line 4, column 1: container `c`: `rate` = -2 is invalid; write 0 or more lines per second",
        ),
        (
            format!("{POD}{container}profile = \"web\"\nsize = 10\n"),
            "container `c`: `size` cannot be combined with `profile`; remove one of them",
        ),
        (
            format!("{POD}{container}role = \"sidecar\"\nrestart = \"Never\"\n"),
            "container `c`: `restart` = \"Never\" is invalid for role `sidecar`, whose policy is \"Always\"",
        ),
        (
            format!("{POD}{container}role = \"init\"\n"),
            "container `c`: an init container without `lines` never ends",
        ),
        (
            "[log_files]\nmax_files = 1\n".to_owned(),
            "`max_files` = 1 is too small; write 2 or more",
        ),
        (
            format!("{POD}{container}restart = \"Sometimes\"\n"),
            "line 6, column 11: unknown variant `Sometimes`",
        ),
        (
            format!("{POD}{container}{container}"),
            "container `c` is defined twice; give every container of a pod its own `name`",
        ),
        (
            format!("{POD}start_after = \"with_timeout\"\n{container}"),
            "line 4, column 15: \"with_timeout\" is not a duration; write a string such as",
        ),
        (
            format!("{POD}containers = []\n"),
            "pod `b` has no container with role `main`; add a `[[pods.containers]]` entry",
        ),
        (
            POD.replace("\"b\"", "\"B_\"") + container,
            "`name` = \"B_\" is not a Kubernetes name; use",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"explode\"\n".to_owned(),
            "line 3, column 8: unknown variant `explode`",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"delete-pod\"\npod = \"x\"\n".to_owned(),
            "fault `delete-pod` needs the key `namespace`; add it",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"api-down\"\n".to_owned(),
            "fault `api-down` needs the key `for`; add it",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"end-streams\"\nwhen = 3\n".to_owned(),
            "line 4, column 1: unknown field `when`",
        ),
    ];
    for (text, expected) in cases {
        let error = error(&text);
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        assert!(!error.contains('\n'), "{error:?} should be one line");
    }
}

#[test]
fn the_demo_has_two_apps_of_three_pods() {
    let demo = Scenario::demo();
    let count = |namespace: &str| -> u32 {
        let pods = demo.pods.iter().filter(|pod| pod.namespace == namespace);
        pods.map(|pod| pod.replicas.unwrap_or(1)).sum()
    };
    assert_eq!((count("shop"), count("mailer")), (3, 3));
}

#[test]
fn every_example_scenario_is_valid_and_says_what_it_shows() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/scenarios");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let scenario = Scenario::from_toml(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!scenario.pods.is_empty(), "{} has no pods", path.display());
        assert!(
            text.starts_with("# Shows "),
            "{} starts with a comment that names what it shows",
            path.display()
        );
        count += 1;
    }
    assert!(count >= 4, "only {count} scenarios in {dir}");
}

#[test]
fn the_scenarios_in_the_manual_are_valid() {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/simulator.md")).unwrap();
    let blocks = manual.split("```toml\n").skip(1);
    let scenarios: Vec<_> = blocks.map(|block| block.split("```").next().unwrap()).collect();
    assert!(scenarios.len() >= 2, "the manual contains examples");
    for text in scenarios {
        Scenario::from_toml(text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    }
}

#[test]
fn the_manual_lists_every_fault_kind() {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/simulator.md")).unwrap();
    let unknown = error("[[faults]]\nat = 1\nkind = \"explode\"\n");
    let (_, kinds) = unknown.split_once("expected one of ").unwrap();
    assert!(kinds.contains("`mute-watches`"), "{unknown}");
    for kind in kinds.split(", ") {
        assert!(
            manual.contains(&format!("| {kind} |")),
            "{kind} is missing from the manual"
        );
    }
}
