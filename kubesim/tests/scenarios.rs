//! Scenario files: what they mean, and that a mistake is named with its place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use kubesim::{FaultKind, Output, RestartPolicy, Scenario};

const POD: &str = "[[pods]]\nnamespace = \"a\"\nname = \"b\"\n";

fn error(text: &str) -> String {
    Scenario::from_toml(text).unwrap_err().to_string()
}

#[test]
fn a_full_scenario_is_read() {
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
        panic!("lines were expected")
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
        "endless: always restarted"
    );
    let Output::Lines(lines) = &pod.containers[1].output else {
        panic!("lines were expected")
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
fn a_mistake_names_its_key_and_place_on_one_line() {
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
        (format!("{POD}{container}rate = -2\n"), "`rate` must be 0 or more"),
        (
            format!("{POD}{container}restart = \"Sometimes\"\n"),
            "line 6, column 11: unknown variant `Sometimes`",
        ),
        (
            format!("{POD}{container}{container}"),
            "`name`: a second container is called `c`",
        ),
        (
            format!("{POD}start_after = \"soon\"\n{container}"),
            "line 4, column 15: expected a time such as",
        ),
        (
            format!("{POD}containers = []\n"),
            "`containers` needs at least one entry",
        ),
        (POD.replace("\"b\"", "\"B_\"") + container, "`name` = \"B_\""),
        (
            "[[faults]]\nat = 1\nkind = \"explode\"\n".to_owned(),
            "line 3, column 8: unknown variant `explode`",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"delete-pod\"\npod = \"x\"\n".to_owned(),
            "missing field `namespace`",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"api-down\"\n".to_owned(),
            "missing field `for`",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"end-streams\"\nwhen = 3\n".to_owned(),
            "line 4, column 1: unknown field `when`",
        ),
    ];
    for (text, wanted) in cases {
        let error = error(&text);
        assert!(error.contains(wanted), "{error:?} should say {wanted:?}");
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
