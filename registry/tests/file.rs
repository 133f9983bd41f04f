//! The registry in a file: its owner's alone; what is torn is refused.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use registry::{FileRegistry, KEY_LIFETIME, Registry, Role};
use support::{add, key, until};
use tempfile::TempDir;

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("registry.json")
}

async fn open(dir: &TempDir) -> FileRegistry {
    FileRegistry::open(path(dir)).await.unwrap()
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_no_key_stands_in_it() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let made = key(&registry, "shop", Role::Owner, KEY_LIFETIME).await;
    let text = fs::read_to_string(path(&dir)).unwrap();
    assert!(text.contains(&made.info.id) && !text.contains(&made.key));
    let mode = fs::metadata(path(&dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_torn_file_is_refused_in_one_line_and_costs_a_running_server_nothing() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let drain = add(&registry, "shop", "https://u:hunter2@example.com/").await.unwrap();
    let whole = fs::read(path(&dir)).unwrap();
    for torn in [&whole[..whole.len() / 2], b"", b"{}", b"[1]"] {
        fs::write(path(&dir), torn).unwrap();
        let error = FileRegistry::open(path(&dir)).await.err().expect("refused").to_string();
        assert!(error.contains("registry.json cannot be read"), "{error}");
        assert!(!error.contains('\n') && !error.contains("hunter2"), "{error}");
    }
    let (mut drains, mut keys) = (registry.drains(), registry.keys());
    assert!(
        add(&registry, "shop", "https://example.com/").await.is_err(),
        "never written over"
    );
    assert!(
        drains.borrow_and_update().contains_key(&drain.id),
        "what was good stays"
    );
    keys.mark_unchanged();
    fs::write(path(&dir), &whole).unwrap();
    let made = key(&registry, "shop", Role::Owner, KEY_LIFETIME).await;
    until(&mut keys, |keys| keys.holder(&made.key, None).is_some()).await;
}
