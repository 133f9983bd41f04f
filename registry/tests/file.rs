//! The registry in a file: what is added is there for all, at once or within a second; what is torn is refused.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use registry::{
    Action, Addresses, Drain, DrainUrl, FileRegistry, Grant, KEY_LIFETIME, NewKey, Registry, RegistryError, Role,
};
use tempfile::TempDir;
use tokio::sync::watch;

/// Every wait's bound.
const BOUND: Duration = Duration::from_secs(20);

const MOST: usize = 5;

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("registry.json")
}

async fn open(dir: &TempDir) -> FileRegistry {
    FileRegistry::open(path(dir)).await.unwrap()
}

fn url(text: &str) -> DrainUrl {
    DrainUrl::parse(text, &Addresses::default()).unwrap()
}

async fn add(registry: &FileRegistry, app: &str, to: &str) -> Result<Drain, RegistryError> {
    registry.add_drain(app, &url(to), MOST).await
}

async fn key(registry: &FileRegistry, app: &str, role: Role, lifetime: Duration) -> NewKey {
    let app = app.to_owned();
    let added = registry.add_key("me@example.com", vec![Grant { app, role }], lifetime);
    added.await.unwrap()
}

async fn until<T>(seen: &mut watch::Receiver<T>, what: impl FnMut(&T) -> bool) {
    let waited = tokio::time::timeout(BOUND, seen.wait_for(what)).await;
    waited.expect("seen in time").expect("still looked after");
}

#[tokio::test]
async fn a_drain_is_named_kept_and_removed_by_its_own_app_alone() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let drain = add(&registry, "shop", "syslog+tls://logs.example.com:6514")
        .await
        .unwrap();
    assert!((1..1 << 31).contains(&drain.id));
    assert!(drain.token.starts_with("d."), "{}", drain.token);
    assert_eq!(registry.drains().borrow().get(&drain.id), Some(&drain), "shown at once");
    let again = open(&dir).await;
    assert_eq!(again.drains().borrow().get(&drain.id), Some(&drain), "kept");
    let refused = registry.remove_drain("blog", drain.id).await;
    assert!(matches!(refused, Err(RegistryError::UnknownDrain)), "{refused:?}");
    registry.remove_drain("shop", drain.id).await.unwrap();
    assert!(registry.drains().borrow().is_empty());
}

#[tokio::test]
async fn an_app_has_no_drain_twice_and_no_more_than_it_may() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    for n in 0..MOST {
        add(&registry, "shop", &format!("https://example.com/{n}"))
            .await
            .unwrap();
    }
    let twice = add(&registry, "shop", "https://example.com/0").await;
    assert!(matches!(twice, Err(RegistryError::Duplicate)), "{twice:?}");
    let more = add(&registry, "shop", "https://example.com/more").await;
    assert!(matches!(more, Err(RegistryError::TooMany(MOST))), "{more:?}");
    add(&registry, "blog", "https://example.com/0").await.unwrap();
}

#[tokio::test]
async fn another_process_sees_drains_and_keys_come_and_go() {
    let dir = TempDir::new().unwrap();
    let (writer, reader) = (open(&dir).await, open(&dir).await);
    let (mut drains, mut keys) = (reader.drains(), reader.keys());
    let drain = add(&writer, "shop", "https://example.com/").await.unwrap();
    let made = key(&writer, "shop", Role::Owner, KEY_LIFETIME).await;
    until(&mut drains, |drains| drains.contains_key(&drain.id)).await;
    until(&mut keys, |keys| keys.holder(&made.key, None).is_some()).await;
    writer.remove_drain("shop", drain.id).await.unwrap();
    writer.revoke_key(&made.info.id).await.unwrap();
    until(&mut drains, |drains| drains.is_empty()).await;
    until(&mut keys, |keys| keys.holder(&made.key, None).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_from_many_sides_at_once_are_all_kept() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (open(&dir).await, open(&dir).await);
    let adds = (0..20).map(|n| {
        let (registry, app) = (if n % 2 == 0 { &one } else { &two }, format!("app-{n}"));
        async move { add(registry, &app, "https://example.com/").await.unwrap() }
    });
    let added = futures::future::join_all(adds).await;
    let kept = open(&dir).await.drains();
    assert_eq!(kept.borrow().len(), added.len());
}

#[tokio::test]
async fn a_key_opens_its_app_to_its_own_until_it_ends() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let owner = key(&registry, "shop", Role::Owner, KEY_LIFETIME).await;
    let collaborator = key(&registry, "shop", Role::Collaborator, KEY_LIFETIME).await;
    let ended = key(&registry, "shop", Role::Owner, Duration::ZERO).await;
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

#[tokio::test]
async fn a_drain_has_one_reader_at_a_time_and_what_was_delivered_is_known_to_the_next() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (open(&dir).await, open(&dir).await);
    let drain = add(&one, "shop", "https://example.com/").await.unwrap().id;
    until(&mut two.drains(), |drains| drains.contains_key(&drain)).await;
    assert_eq!(one.lease("one", &[drain]).await.unwrap(), [drain]);
    assert!(two.lease("two", &[drain]).await.unwrap().is_empty());
    assert_eq!(two.last_delivered(drain).await.unwrap(), None);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    one.delivered(drain, at).await.unwrap();
    one.release("one", &[drain]).await.unwrap();
    assert_eq!(two.lease("two", &[drain]).await.unwrap(), [drain]);
    assert_eq!(two.last_delivered(drain).await.unwrap(), Some(at));
}
