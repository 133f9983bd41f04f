//! The checkpoint directory: ownership and damage.

use std::path::{Path, PathBuf};

use collector::{CollectorError, Config};

use crate::support::{Harness, in_time};

async fn refusal(harness: &Harness, dir: &Path) -> CollectorError {
    let run = collector::run(
        Config::new(dir),
        harness.client().await,
        harness.bus.clone(),
        Default::default(),
    );
    in_time(run).await.unwrap_err()
}

fn set_aside(harness: &Harness) -> usize {
    let beside = std::fs::read_dir(harness.dir.path()).unwrap();
    let within = std::fs::read_dir(harness.dir.path().join("checkpoints"));
    let entries = beside.chain(within.into_iter().flatten());
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("set-aside")).count()
}

/// Returns the path of the checkpoints' file.
fn journal(harness: &Harness) -> PathBuf {
    let entries = std::fs::read_dir(harness.dir.path().join("checkpoints")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let is_journal = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "checkpoints");
    paths.find(is_journal).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_is_rejected() {
    let harness = Harness::new().await;
    let collector = harness.collect().await;
    let refused = refusal(&harness, &harness.dir.path().join("checkpoints")).await;
    assert!(matches!(refused, CollectorError::InUse(_)));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_directories_are_rejected_and_left_unchanged() {
    let harness = Harness::new().await;
    let foreign = harness.dir.path().join("foreign");
    std::fs::create_dir_all(&foreign).unwrap();
    let file = foreign.join("version");
    std::fs::write(&file, "not ours").unwrap();
    for (dir, reason) in [
        (&foreign, "it contains files that are not checkpoints"),
        (&file, "not a directory"),
        (&file.join("below"), "not a directory"),
    ] {
        let expected = format!(
            "cannot use checkpoint directory {}: {reason}; choose another one with --checkpoint-dir",
            dir.display()
        );
        assert_eq!(refusal(&harness, dir).await.to_string(), expected);
    }
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1);
    assert_eq!(set_aside(&harness), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporarily_unreadable_checkpoints_are_not_replaced() {
    let harness = Harness::new().await;
    let dir = harness.dir.path().join("checkpoints");
    harness.collect().await.stop().await;
    // A directory cannot be read as a file, whatever the user's permissions.
    let journal = journal(&harness);
    std::fs::remove_file(&journal).unwrap();
    std::fs::create_dir(&journal).unwrap();
    let refused = refusal(&harness, &dir).await.to_string();
    assert!(refused.contains("Is a directory"), "{refused}");
    assert!(!refused.contains("Error"), "{refused}");
    assert_eq!(set_aside(&harness), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_checkpoints_are_renamed() {
    let harness = Harness::new().await;
    harness.collect().await.stop().await;
    std::fs::write(journal(&harness), "damaged").unwrap();
    harness.collect().await.stop().await;
    assert_eq!(set_aside(&harness), 1);
}
