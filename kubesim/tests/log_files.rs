//! The node's log files have the format and rotation of a container runtime and a kubelet.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use flate2::read::GzDecoder;
use kubesim::{Cluster, FaultKind, LogFiles, PodPlan, RestartPolicy, Scenario};
use tempfile::TempDir;

struct Node {
    cluster: Cluster,
    dir: TempDir,
}

impl Node {
    async fn start(max_files: usize, policy: RestartPolicy) -> Self {
        let files = LogFiles {
            max_files,
            check: Duration::from_secs(3600),
            ..LogFiles::default()
        };
        Self::start_with(files, policy).await
    }

    async fn start_with(files: LogFiles, policy: RestartPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scenario = Scenario {
            log_files: LogFiles {
                dir: Some(dir.path().join("pods")),
                ..files
            },
            ..Scenario::default()
        };
        let listen = ([127, 0, 0, 1], 0).into();
        let cluster = kubesim::start(kubesim::Config { listen, scenario }).await.unwrap();
        cluster
            .create_pod(&PodPlan::silent("app", "p", "c").restarting(policy))
            .unwrap();
        let node = Self { cluster, dir };
        node.until_running().await;
        node
    }

    async fn until_running(&self) {
        let running = self.cluster.wait_running("app", "p", "c");
        tokio::time::timeout(Duration::from_secs(30), running)
            .await
            .unwrap()
            .unwrap();
    }

    fn container_dir(&self) -> PathBuf {
        let pods: Vec<_> = fs::read_dir(self.dir.path().join("pods")).unwrap().collect();
        let [pod] = &pods[..] else { panic!("{pods:?}") };
        let pod = pod.as_ref().unwrap();
        assert!(pod.file_name().to_str().unwrap().starts_with("app_p_"));
        pod.path().join("c")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.container_dir()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Returns the entries without their timestamps.
    fn entries(&self, name: &str) -> Vec<String> {
        let file = File::open(self.container_dir().join(name)).unwrap();
        let mut text = String::new();
        if name.ends_with(".gz") {
            GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else {
            (&file).read_to_string(&mut text).unwrap();
        }
        let entries = text.lines().map(|line| line.split_once(' ').unwrap());
        let each = entries.map(|(time, entry)| {
            assert!(
                time.ends_with('Z') && !time.ends_with("0Z") || time.len() == 20,
                "{time}"
            );
            entry.to_owned()
        });
        each.collect()
    }

    fn write(&self, text: &str) {
        self.cluster.write_line("app", "p", "c", text).unwrap();
    }

    fn rotate(&self) {
        self.cluster.rotate_log_file("app", "p", "c").unwrap();
    }

    async fn exit(&self) {
        let exited = self.cluster.exit_container("app", "p", "c", 1);
        tokio::time::timeout(Duration::from_secs(30), exited)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn lines_are_entries_of_two_streams_and_long_lines_are_split() {
    let node = Node::start(5, RestartPolicy::Never).await;
    node.write("plain");
    node.write("");
    let long = "x".repeat(16_384);
    node.write(&long);
    node.cluster
        .write_unterminated("app", "p", "c", format!("{long}{long}y"))
        .unwrap();
    node.write(" end");
    node.cluster.write_stderr("app", "p", "c", "beside").unwrap();
    node.cluster.write_unterminated("app", "p", "c", "last words").unwrap();
    node.exit().await;
    let entries = node.entries("0.log");
    let expected = [
        "stdout F plain",
        "stdout F ",
        &format!("stdout F {long}"),
        &format!("stdout P {long}"),
        &format!("stdout P {long}"),
    ];
    assert_eq!(entries[..5], expected);
    assert_eq!(
        entries[5..],
        ["stdout F y end", "stderr F beside", "stdout P last words"]
    );
}

#[tokio::test]
async fn rotation_renames_compresses_removes_and_splits_an_unterminated_line() {
    let node = Node::start(3, RestartPolicy::Never).await;
    node.write("one");
    node.cluster.write_unterminated("app", "p", "c", "two ").unwrap();
    node.rotate();
    node.write("parts");
    let [current, first] = &node.names()[..] else {
        panic!("{:?}", node.names())
    };
    assert_eq!(node.entries(first), ["stdout F one", "stdout P two "]);
    assert_eq!(node.entries(current), ["stdout F parts"]);
    node.rotate();
    node.write("three");
    assert_eq!(node.names()[1], format!("{first}.gz"));
    assert_eq!(node.entries(&node.names()[1]), ["stdout F one", "stdout P two "]);
    node.rotate();
    let names = node.names();
    assert_eq!(names.len(), 3, "one rotated, one compressed and the current file");
    assert_eq!(node.entries(&names[1]), ["stdout F parts"]);
    assert_eq!(node.entries(&names[2]), ["stdout F three"]);
    assert!(names[1].ends_with(".gz") && node.entries("0.log").is_empty());
}

#[tokio::test]
async fn each_instance_has_its_file_and_only_the_newest_terminated_one_remains() {
    let node = Node::start(5, RestartPolicy::Always).await;
    node.write("zero");
    node.exit().await;
    node.until_running().await;
    assert_eq!(node.names(), ["0.log", "1.log"]);
    node.write("one");
    node.exit().await;
    assert_eq!(node.names(), ["1.log"]);
    assert_eq!(node.entries("1.log"), ["stdout F one"]);
}

/// Starts a node in summer time that checks its log files every 100 ms.
async fn checking_node(max_size: u64) -> Node {
    let files = LogFiles {
        max_size,
        check: Duration::from_millis(100),
        utc_offset: Some(jiff::SignedDuration::from_hours(3)),
        ..LogFiles::default()
    };
    Node::start_with(files, RestartPolicy::Never).await
}

/// Waits until the check has done its work.
async fn eventually(holds: impl Fn() -> bool) {
    for _ in 0..300 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it did not happen within 30 s");
}

#[tokio::test]
async fn a_removed_file_is_written_until_the_next_check_creates_it_again() {
    let node = checking_node(1 << 20).await;
    node.write("before");
    let path = node.container_dir().join("0.log");
    let removed = File::open(&path).unwrap();
    node.cluster.remove_log_file("app", "p", "c").unwrap();
    node.write("to the removed file");
    eventually(|| path.exists()).await;
    let written = node.cluster.write_log("app", "p", "c", ["after".into()]).unwrap();
    assert_eq!(written.lines[0].files_before, Some(1));
    assert_eq!(node.entries("0.log"), ["stdout F after"]);
    let mut text = String::new();
    (&removed).read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 2);
}

#[tokio::test]
async fn a_truncated_file_is_appended_to() {
    let node = checking_node(1 << 20).await;
    node.write("before");
    node.cluster.cause(FaultKind::TruncateLogFiles {
        namespace: "app".to_owned(),
        pod: "p".to_owned(),
    });
    let written = node.cluster.write_log("app", "p", "c", ["after".into()]).unwrap();
    assert_eq!(node.entries("0.log"), ["stdout F after"]);
    assert_eq!((written.lines[0].number, written.lines[0].files_before), (1, Some(0)));
}

#[tokio::test]
async fn in_winter_time_the_names_of_rotated_files_sort_backwards() {
    let node = checking_node(100).await;
    let full = "x".repeat(100);
    node.write(&full);
    eventually(|| node.names().len() == 2).await;
    let summer = node.names()[1].clone();
    node.cluster.cause(FaultKind::SetUtcOffset {
        offset: jiff::SignedDuration::from_hours(2),
    });
    node.write(&full);
    eventually(|| node.names().len() == 3).await;
    let names = node.names();
    assert_eq!(names[2], format!("{summer}.gz"), "the older file is last");
    let hour = |name: &str| name["0.log.20261130-".len()..][..2].parse::<u32>().unwrap();
    assert_eq!((hour(&names[1]) + 1) % 24, hour(&names[2]) % 24);
    let written = node.cluster.write_log("app", "p", "c", ["next".into()]).unwrap();
    assert_eq!(written.lines[0].files_before, Some(2));
}
