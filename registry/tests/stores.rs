//! What every store promises: what is added is there for all, at once or within a second.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::time::{Duration, SystemTime};

use registry::{Action, FileRegistry, KEY_LIFETIME, Registry, RegistryError, Role};
use support::{MOST, add, cluster, key, kubernetes, until};
use tempfile::TempDir;

/// Where a test's registry is.
enum Place {
    File(TempDir),
    Kubernetes(kubesim::Cluster),
}

impl Place {
    fn file() -> Self {
        Self::File(TempDir::new().unwrap())
    }

    async fn kubernetes() -> Self {
        Self::Kubernetes(cluster().await)
    }

    /// Opens it, as one process more.
    async fn open(&self) -> Box<dyn Registry> {
        match self {
            Self::File(dir) => Box::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap()),
            Self::Kubernetes(cluster) => Box::new(kubernetes(cluster).await.unwrap()),
        }
    }
}

/// A test for each store of each promise.
macro_rules! promises {
    ($($promise:ident,)*) => {
        mod file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(super::Place::file()).await;
            })*
        }

        mod kubernetes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(super::Place::kubernetes().await).await;
            })*
        }
    };
}

promises! {
    a_drain_is_named_kept_and_removed_by_its_own_app_alone,
    an_app_has_no_drain_twice_and_no_more_than_it_may,
    another_process_sees_drains_and_keys_come_and_go,
    changes_from_many_sides_at_once_are_all_kept,
    a_key_opens_its_app_to_its_own_until_it_ends,
    a_drain_has_one_reader_at_a_time_and_what_was_delivered_is_known_to_the_next,
}

async fn a_drain_is_named_kept_and_removed_by_its_own_app_alone(place: Place) {
    let registry = place.open().await;
    let drain = add(&*registry, "shop", "syslog+tls://logs.example.com:6514")
        .await
        .unwrap();
    assert!((1..1 << 31).contains(&drain.id));
    assert!(drain.token.starts_with("d."), "{}", drain.token);
    assert_eq!(registry.drains().borrow().get(&drain.id), Some(&drain), "shown at once");
    let again = place.open().await;
    assert_eq!(again.drains().borrow().get(&drain.id), Some(&drain), "kept");
    let refused = registry.remove_drain("blog", drain.id).await;
    assert!(matches!(refused, Err(RegistryError::UnknownDrain)), "{refused:?}");
    registry.remove_drain("shop", drain.id).await.unwrap();
    assert!(registry.drains().borrow().is_empty());
}

async fn an_app_has_no_drain_twice_and_no_more_than_it_may(place: Place) {
    let registry = place.open().await;
    for n in 0..MOST {
        add(&*registry, "shop", &format!("https://example.com/{n}"))
            .await
            .unwrap();
    }
    let twice = add(&*registry, "shop", "https://example.com/0").await;
    assert!(matches!(twice, Err(RegistryError::Duplicate)), "{twice:?}");
    let more = add(&*registry, "shop", "https://example.com/more").await;
    assert!(matches!(more, Err(RegistryError::TooMany(MOST))), "{more:?}");
    add(&*registry, "blog", "https://example.com/0").await.unwrap();
}

async fn another_process_sees_drains_and_keys_come_and_go(place: Place) {
    let (writer, reader) = (place.open().await, place.open().await);
    let (mut drains, mut keys) = (reader.drains(), reader.keys());
    let drain = add(&*writer, "shop", "https://example.com/").await.unwrap();
    let made = key(&*writer, "shop", Role::Owner, KEY_LIFETIME).await;
    until(&mut drains, |drains| drains.contains_key(&drain.id)).await;
    until(&mut keys, |keys| keys.holder(&made.key, None).is_some()).await;
    writer.remove_drain("shop", drain.id).await.unwrap();
    writer.revoke_key(&made.info.id).await.unwrap();
    until(&mut drains, |drains| drains.is_empty()).await;
    until(&mut keys, |keys| keys.holder(&made.key, None).is_none()).await;
}

async fn changes_from_many_sides_at_once_are_all_kept(place: Place) {
    let (one, two) = (place.open().await, place.open().await);
    let adds = (0..20).map(|n| {
        let (registry, app) = (if n % 2 == 0 { &one } else { &two }, format!("app-{n}"));
        async move { add(&**registry, &app, "https://example.com/").await.unwrap() }
    });
    let added = futures::future::join_all(adds).await;
    let kept = place.open().await.drains();
    assert_eq!(kept.borrow().len(), added.len());
}

async fn a_key_opens_its_app_to_its_own_until_it_ends(place: Place) {
    let registry = place.open().await;
    let owner = key(&*registry, "shop", Role::Owner, KEY_LIFETIME).await;
    let collaborator = key(&*registry, "shop", Role::Collaborator, KEY_LIFETIME).await;
    let ended = key(&*registry, "shop", Role::Owner, Duration::ZERO).await;
    let keys = registry.keys();
    let keys = keys.borrow();
    assert!(owner.key.len() >= 32);
    let holder = keys.holder(&owner.key, Some("ME@example.com")).unwrap();
    assert!(holder.may(Action::Read, "shop") && holder.may(Action::Drains, "shop"));
    assert!(!holder.may(Action::Read, "blog") && !holder.may(Action::Drains, "blog"));
    let holder = keys.holder(&collaborator.key, None).unwrap();
    assert!(holder.may(Action::Read, "shop") && !holder.may(Action::Drains, "shop"));
    assert_eq!(
        keys.holder(&owner.key, Some("you@example.com")),
        None,
        "somebody else's"
    );
    assert_eq!(keys.holder(&ended.key, None), None, "its time is over");
    assert_eq!(keys.holder(&owner.key[1..], None), None);
    assert_eq!(keys.holder("", None), None);
    assert!(keys.name("shop") && !keys.name("blog"));
}

async fn a_drain_has_one_reader_at_a_time_and_what_was_delivered_is_known_to_the_next(place: Place) {
    let (one, two) = (place.open().await, place.open().await);
    let drain = add(&*one, "shop", "https://example.com/").await.unwrap().id;
    until(&mut two.drains(), |drains| drains.contains_key(&drain)).await;
    assert_eq!(one.lease("one", &[drain]).await.unwrap(), [drain]);
    assert!(two.lease("two", &[drain]).await.unwrap().is_empty());
    assert_eq!(two.last_delivered(drain).await.unwrap(), None);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    one.delivered(vec![(drain, at)]).await.unwrap();
    one.release("one", &[drain]).await.unwrap();
    assert_eq!(two.lease("two", &[drain]).await.unwrap(), [drain]);
    assert_eq!(two.last_delivered(drain).await.unwrap(), Some(at));
}
