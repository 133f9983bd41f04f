//! Warnings about `TRIBUTARY_*` environment variables that no flag reads.

use std::collections::BTreeSet;

use clap::Command;

/// Prefix of the variables.
const PREFIX: &str = "TRIBUTARY_";

/// Variables of earlier versions, and their names today.
const RENAMED: [(&str, &str); 3] = [
    ("TRIBUTARY_LINGER", "TRIBUTARY_IDLE_SUBSCRIPTION_TIMEOUT"),
    ("TRIBUTARY_REMOVE_GONE_APPS", "TRIBUTARY_DELETE_UNUSED_TOPICS"),
    ("TRIBUTARY_AUTH_NONE_ANYWHERE", "TRIBUTARY_ALLOW_UNAUTHENTICATED"),
];

/// Prefixes of variables that only the build and the tests read.
const OF_DEVELOPMENT: [&str; 3] = ["TRIBUTARY_COMMIT", "TRIBUTARY_REQUIRE_", "TRIBUTARY_TEST_"];

/// Names less similar than this are not suggested.
const MIN_SIMILARITY: f64 = 0.8;

/// Returns one warning for each variable of the environment that no flag of the command tree reads.
pub(crate) fn warnings(tree: &Command, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut flag_variables = BTreeSet::new();
    collect(tree, &mut flag_variables);
    names
        .filter(|name| name.starts_with(PREFIX) && !flag_variables.contains(name))
        .filter(|name| !OF_DEVELOPMENT.iter().any(|prefix| name.starts_with(prefix)) && !is_service_link(name))
        .map(|name| warning(&name, &flag_variables))
        .collect()
}

fn warning(name: &str, flag_variables: &BTreeSet<String>) -> String {
    if let Some((_, renamed)) = RENAMED.iter().find(|(old, _)| *old == name) {
        return format!("warning: the environment variable {name} is ignored: it was renamed to {renamed}");
    }
    if name == "TRIBUTARY_KUBECONFIG" {
        return format!("warning: the environment variable {name} is ignored: unknown name, did you mean KUBECONFIG?");
    }
    let similarity = |candidate: &&String| strsim::normalized_damerau_levenshtein(name, candidate);
    let nearest = flag_variables
        .iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .filter(|candidate| similarity(candidate) >= MIN_SIMILARITY);
    match nearest {
        Some(nearest) => {
            format!("warning: the environment variable {name} is ignored: unknown name, did you mean {nearest}?")
        }
        None => format!(
            "warning: the environment variable {name} is ignored: unknown name, `tributary COMMAND --help` lists the variables"
        ),
    }
}

/// Collects the variables that the flags of a command and of its subcommands read.
fn collect(command: &Command, flag_variables: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|flag| flag.get_env());
    flag_variables.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    for subcommand in command.get_subcommands() {
        collect(subcommand, flag_variables);
    }
}

/// Returns whether Kubernetes sets a variable of this name for a Service whose name begins with
/// `tributary`.
///
/// *Source*: Kubernetes documentation, "Service", "Environment variables".
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest_known_one() {
        let flag = |env: &'static str| Arg::new(env).long(env).env(env);
        let subcommand = Command::new("up").args([flag("TRIBUTARY_LISTEN"), flag("TRIBUTARY_RETENTION")]);
        let tree = Command::new("tributary").subcommand(subcommand);
        let warnings = |name: &str| warnings(&tree, [name.to_owned()].into_iter()).join("\n");
        assert!(warnings("TRIBUTARY_LISTN").ends_with("did you mean TRIBUTARY_LISTEN?"));
        assert!(warnings("TRIBUTARY_LINGER").ends_with("renamed to TRIBUTARY_IDLE_SUBSCRIPTION_TIMEOUT"));
        assert!(warnings("TRIBUTARY_KUBECONFIG").ends_with("did you mean KUBECONFIG?"));
        assert!(warnings("TRIBUTARY_COLOUR_SCHEME").contains("unknown name"));
        for ignored in [
            "TRIBUTARY_RETENTION",
            "TRIBUTARY_PORT",
            "TRIBUTARY_STREAMER_SERVICE_HOST",
            "TRIBUTARY_STREAMER_PORT_80_TCP_ADDR",
            "TRIBUTARY_REQUIRE_EMULATOR",
            "PATH",
        ] {
            assert_eq!(warnings(ignored), "", "{ignored}");
        }
    }
}
