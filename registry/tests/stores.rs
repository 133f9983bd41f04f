//! Behavior that every store has in common.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::time::{Duration, SystemTime};

use registry::{Action, DEFAULT_KEY_LIFETIME, FileRegistry, Registry, RegistryError, Role};
use support::{MAX_DRAINS, add, cluster, key, kubernetes, until};
use tempfile::TempDir;

/// The store of a test.
enum Store {
    File(TempDir),
    Kubernetes(kubesim::Cluster),
}

impl Store {
    fn file() -> Self {
        Self::File(TempDir::new().unwrap())
    }

    async fn kubernetes() -> Self {
        Self::Kubernetes(cluster().await)
    }

    /// Opens the store as another process does.
    async fn open(&self) -> Box<dyn Registry> {
        match self {
            Self::File(dir) => Box::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap()),
            Self::Kubernetes(cluster) => Box::new(kubernetes(cluster).await.unwrap()),
        }
    }
}

/// Runs each test with each store.
macro_rules! for_every_store {
    ($($test:ident,)*) => {
        mod file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Store::file()).await;
            })*
        }

        mod kubernetes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Store::kubernetes().await).await;
            })*
        }
    };
}

for_every_store! {
    drains_are_stored_and_removed_only_by_their_own_app,
    duplicate_and_excess_drains_are_refused,
    other_processes_see_added_and_removed_drains_and_keys,
    concurrent_changes_are_all_stored,
    keys_give_access_to_their_apps_until_they_expire,
    leases_are_exclusive_and_delivery_times_are_shared,
}

async fn drains_are_stored_and_removed_only_by_their_own_app(store: Store) {
    let registry = store.open().await;
    let drain = add(&*registry, "shop", "syslog+tls://logs.example.com:6514")
        .await
        .unwrap();
    assert!((1..1 << 31).contains(&drain.id));
    assert!(drain.token.starts_with("d."), "{}", drain.token);
    assert_eq!(
        registry.drains().borrow().get(&drain.id),
        Some(&drain),
        "visible at once"
    );
    let again = store.open().await;
    assert_eq!(again.drains().borrow().get(&drain.id), Some(&drain), "stored");
    let refused = registry.remove_drain("blog", drain.id).await;
    assert!(matches!(refused, Err(RegistryError::UnknownDrain)), "{refused:?}");
    registry.remove_drain("shop", drain.id).await.unwrap();
    assert!(registry.drains().borrow().is_empty());
}

async fn duplicate_and_excess_drains_are_refused(store: Store) {
    let registry = store.open().await;
    for n in 0..MAX_DRAINS {
        add(&*registry, "shop", &format!("https://example.com/{n}"))
            .await
            .unwrap();
    }
    let duplicate = add(&*registry, "shop", "https://example.com/0").await;
    assert!(matches!(duplicate, Err(RegistryError::DuplicateDrain)), "{duplicate:?}");
    let excess = add(&*registry, "shop", "https://example.com/more").await;
    assert!(
        matches!(excess, Err(RegistryError::TooManyDrains(MAX_DRAINS))),
        "{excess:?}"
    );
    add(&*registry, "blog", "https://example.com/0").await.unwrap();
}

async fn other_processes_see_added_and_removed_drains_and_keys(store: Store) {
    let (writer, reader) = (store.open().await, store.open().await);
    let (mut drains, mut keys) = (reader.drains(), reader.keys());
    let drain = add(&*writer, "shop", "https://example.com/").await.unwrap();
    let created = key(&*writer, "shop", Role::Owner, DEFAULT_KEY_LIFETIME).await;
    until(&mut drains, |drains| drains.contains_key(&drain.id)).await;
    until(&mut keys, |keys| keys.authenticate(&created.key, None).is_some()).await;
    writer.remove_drain("shop", drain.id).await.unwrap();
    writer.revoke_key(&created.info.id).await.unwrap();
    until(&mut drains, |drains| drains.is_empty()).await;
    until(&mut keys, |keys| keys.authenticate(&created.key, None).is_none()).await;
}

async fn concurrent_changes_are_all_stored(store: Store) {
    let (one, two) = (store.open().await, store.open().await);
    let adds = (0..20).map(|n| {
        let (registry, app) = (if n % 2 == 0 { &one } else { &two }, format!("app-{n}"));
        async move { add(&**registry, &app, "https://example.com/").await.unwrap() }
    });
    let added = futures::future::join_all(adds).await;
    let stored = store.open().await.drains();
    assert_eq!(stored.borrow().len(), added.len());
}

async fn keys_give_access_to_their_apps_until_they_expire(store: Store) {
    let registry = store.open().await;
    let owner = key(&*registry, "shop", Role::Owner, DEFAULT_KEY_LIFETIME).await;
    let collaborator = key(&*registry, "shop", Role::Collaborator, DEFAULT_KEY_LIFETIME).await;
    let expired = key(&*registry, "shop", Role::Owner, Duration::ZERO).await;
    let keys = registry.keys();
    let keys = keys.borrow();
    assert!(owner.key.len() >= 32);
    let holder = keys.authenticate(&owner.key, Some("ME@example.com")).unwrap();
    assert!(holder.is_allowed(Action::Read, "shop") && holder.is_allowed(Action::ManageDrains, "shop"));
    assert!(!holder.is_allowed(Action::Read, "blog") && !holder.is_allowed(Action::ManageDrains, "blog"));
    let holder = keys.authenticate(&collaborator.key, None).unwrap();
    assert!(holder.is_allowed(Action::Read, "shop") && !holder.is_allowed(Action::ManageDrains, "shop"));
    assert_eq!(
        keys.authenticate(&owner.key, Some("you@example.com")),
        None,
        "another user"
    );
    assert_eq!(keys.authenticate(&expired.key, None), None, "expired");
    assert_eq!(keys.authenticate(&owner.key[1..], None), None);
    assert_eq!(keys.authenticate("", None), None);
    assert!(keys.contains_app("shop") && !keys.contains_app("blog"));
}

async fn leases_are_exclusive_and_delivery_times_are_shared(store: Store) {
    let (one, two) = (store.open().await, store.open().await);
    let drain = add(&*one, "shop", "https://example.com/").await.unwrap().id;
    until(&mut two.drains(), |drains| drains.contains_key(&drain)).await;
    assert_eq!(one.acquire_leases("one", &[drain]).await.unwrap(), [drain]);
    assert!(two.acquire_leases("two", &[drain]).await.unwrap().is_empty());
    assert_eq!(two.last_delivered(drain).await.unwrap(), None);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    one.record_delivered(vec![(drain, at)]).await.unwrap();
    one.release_leases("one", &[drain]).await.unwrap();
    assert_eq!(two.acquire_leases("two", &[drain]).await.unwrap(), [drain]);
    assert_eq!(two.last_delivered(drain).await.unwrap(), Some(at));
}
