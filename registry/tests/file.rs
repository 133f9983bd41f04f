//! The registry in a file: permissions and corrupt files.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use registry::{DEFAULT_KEY_LIFETIME, FileRegistry, Registry, Role};
use support::{add, key, until};
use tempfile::TempDir;

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("registry.json")
}

async fn open(dir: &TempDir) -> FileRegistry {
    FileRegistry::open(path(dir)).await.unwrap()
}

#[tokio::test]
async fn the_file_is_readable_by_its_owner_only_and_contains_no_key() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let created = key(&registry, "shop", Role::Owner, DEFAULT_KEY_LIFETIME).await;
    let text = fs::read_to_string(path(&dir)).unwrap();
    assert!(text.contains(&created.info.id) && !text.contains(&created.key));
    let mode = fs::metadata(path(&dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_corrupt_file_is_refused_at_startup_and_ignored_by_a_running_server() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let drain = add(&registry, "shop", "https://u:hunter2@example.com/").await.unwrap();
    let intact = fs::read(path(&dir)).unwrap();
    for corrupt in [&intact[..intact.len() / 2], b"", b"{}", b"[1]"] {
        fs::write(path(&dir), corrupt).unwrap();
        let error = FileRegistry::open(path(&dir)).await.err().expect("refused").to_string();
        assert!(
            error.contains("cannot read the registry file") && error.contains("registry.json"),
            "{error}"
        );
        assert!(!error.contains('\n') && !error.contains("hunter2"), "{error}");
    }
    let (mut drains, mut keys) = (registry.drains(), registry.keys());
    assert!(
        add(&registry, "shop", "https://example.com/").await.is_err(),
        "a corrupt file is not overwritten"
    );
    assert!(
        drains.borrow_and_update().contains_key(&drain.id),
        "the last state stays"
    );
    keys.mark_unchanged();
    fs::write(path(&dir), &intact).unwrap();
    let created = key(&registry, "shop", Role::Owner, DEFAULT_KEY_LIFETIME).await;
    until(&mut keys, |keys| keys.authenticate(&created.key, None).is_some()).await;
}

#[tokio::test]
async fn reading_an_existing_registry_takes_no_lock_and_names_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.json");
    drop(registry::FileRegistry::open(&path).await.unwrap());
    let lock = dir.path().join("registry.json.lock");
    std::fs::remove_file(&lock).unwrap();
    drop(registry::FileRegistry::open(&path).await.unwrap());
    assert!(!lock.exists());
    std::fs::write(&path, r#"{"version": "tributary-registry-2"}"#).unwrap();
    let error = registry::FileRegistry::open(&path).await.err().unwrap().to_string();
    assert!(error.contains("its format version is tributary-registry-2"), "{error}");
}
