//! Names in the node's log directory.

use std::path::{Path, PathBuf};

use system::files;

use crate::instance::Instance;

/// Returns a container's directory, `<namespace>_<pod>_<uid>/<container>`.
///
/// *Source*: the kubelet's `BuildContainerLogsDirectory`. The uid is the kubelet's; for a static
/// pod it differs from the one in the API.
pub fn container_dir(root: &Path, instance: &Instance) -> PathBuf {
    let Instance { namespace, pod, .. } = instance;
    let uid = &instance.node_uid;
    root.join(format!("{namespace}_{pod}_{uid}"))
        .join(instance.key.container_name())
}

/// Finds the directory of a container by the uid of its pod, or returns `None` if it is gone. For
/// pods that the API no longer lists.
pub fn find_container_dir(root: &Path, uid: &str, container: &str) -> Option<PathBuf> {
    let suffix = format!("_{uid}");
    let entries = files::list(root).ok()?;
    let named = entries.iter().filter(|entry| entry.name.ends_with(&suffix));
    named
        .map(|entry| root.join(&entry.name).join(container))
        .find(|dir| is_dir(dir))
}

/// Returns whether a directory exists, or a symbolic link to one.
pub fn is_dir(path: &Path) -> bool {
    files::metadata(path).is_ok_and(|metadata| metadata.is_dir)
}

/// A file in a container's directory. Ordered as the files were written, the current one last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// `n.log.20261123-084316`, with the suffix `.gz` if compressed. The node's local time in
    /// seconds.
    Rotated(String),
    /// `n.log`, the file being written.
    Current,
}

/// Parses a file name of the instance with `number` predecessors; also returns whether the file is
/// compressed. Returns `None` for files of other instances and for files being compressed.
pub fn parse(name: &str, number: u32) -> Option<(Name, bool)> {
    let rest = name.strip_prefix(&number.to_string())?.strip_prefix(".log")?;
    if rest.is_empty() {
        return Some((Name::Current, false));
    }
    let time = rest.strip_prefix('.')?;
    let (time, is_gz) = match time.strip_suffix(".gz") {
        Some(time) => (time, true),
        None => (time, false),
    };
    let is_time = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    is_time.then(|| (Name::Rotated(time.to_owned()), is_gz))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_ordered_by_age() {
        let rotated = |time: &str| Name::Rotated(time.to_owned());
        for (name, expected) in [
            ("2.log", Some((Name::Current, false))),
            ("2.log.20261123-084316", Some((rotated("20261123-084316"), false))),
            ("2.log.20261123-084316.gz", Some((rotated("20261123-084316"), true))),
            ("2.log.20261123-084316.tmp", None),
            ("2.log.gz", None),
            ("2.log.", None),
            ("2.logs", None),
            ("12.log", None),
            ("1.log", None),
            ("", None),
        ] {
            assert_eq!(parse(name, 2), expected, "{name}");
        }
        assert!(rotated("20261123-084316") < rotated("20261124-000000"));
        assert!(rotated("20261124-000000") < Name::Current);
    }

    #[test]
    fn file_names_of_a_real_node_are_parsed() {
        let listing = include_str!("../../tests/recordings/ondisk-layout.txt");
        let files = listing.lines().filter(|line| line.starts_with("-rw"));
        let names: Vec<_> = files.filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(names.len(), 14);
        assert!(names.iter().all(|name| parse(name, 0).is_some()));
        assert!(names.iter().any(|name| parse(name, 0).is_some_and(|(_, is_gz)| is_gz)));
    }
}
