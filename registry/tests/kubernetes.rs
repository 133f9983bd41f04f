//! The registry in Secrets: an unavailable API, corrupt and foreign Secrets.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use registry::{DEFAULT_KEY_LIFETIME, Registry, RegistryError, Role};
use support::{TIMEOUT, add, client, cluster, key, kubernetes, until};

fn secrets(cluster: &kubesim::Cluster) -> Api<Secret> {
    Api::namespaced(client(cluster), "tributary")
}

#[tokio::test]
async fn changes_during_an_api_outage_are_seen_afterwards() {
    let cluster = cluster().await;
    let registry = kubernetes(&cluster).await.unwrap();
    let first = add(&registry, "shop", "https://example.com/").await.unwrap();
    cluster.set_down(true);
    let unavailable = async { while registry.last_delivered(first.id).await.is_ok() {} };
    tokio::time::timeout(TIMEOUT, unavailable)
        .await
        .expect("the API becomes unavailable");
    let refused = registry.remove_drain("shop", first.id).await;
    assert!(matches!(refused, Err(RegistryError::Kubernetes { .. })), "{refused:?}");
    assert!(
        registry.drains().borrow().contains_key(&first.id),
        "the last state stays"
    );
    cluster.set_down(false);
    let other = async {
        loop {
            if let Ok(opened) = kubernetes(&cluster).await {
                break opened;
            }
        }
    };
    let other = tokio::time::timeout(TIMEOUT, other)
        .await
        .expect("the API becomes available");
    let second = add(&other, "shop", "https://example.com/2").await.unwrap();
    until(&mut registry.drains(), |drains| drains.contains_key(&second.id)).await;
}

#[tokio::test]
async fn a_corrupt_secret_is_ignored_by_a_running_server_and_not_overwritten() {
    let cluster = cluster().await;
    let registry = kubernetes(&cluster).await.unwrap();
    let drain = add(&registry, "shop", "https://u:hunter2@example.com/").await.unwrap();
    let api = secrets(&cluster);
    let all = api.list(&ListParams::default()).await.unwrap();
    let mut corrupt = all
        .items
        .into_iter()
        .find(|secret| secret.data.as_ref().unwrap().contains_key("drains"))
        .unwrap();
    let name = corrupt.metadata.name.clone().unwrap();
    let data = corrupt.data.as_mut().unwrap();
    data.insert("drains".to_owned(), ByteString(b"[{\"hunter2\"".to_vec()));
    api.replace(&name, &PostParams::default(), &corrupt).await.unwrap();
    // Events are ordered: once this drain is seen, the corrupt Secret was seen.
    let other = add(&registry, "blog", "https://example.com/").await.unwrap();
    until(&mut registry.drains(), |drains| drains.contains_key(&other.id)).await;
    assert!(
        registry.drains().borrow().contains_key(&drain.id),
        "the last valid content stays"
    );
    let error = add(&registry, "shop", "https://example.com/")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&name) && error.contains("corrupt") && !error.contains("hunter2"),
        "{error}"
    );
}

#[tokio::test]
async fn secrets_contain_no_key_and_foreign_secrets_are_not_changed() {
    let cluster = cluster().await;
    let api = secrets(&cluster);
    let mut foreign = Secret::default();
    foreign.metadata.name = Some("theirs".to_owned());
    foreign.data = Some([("drains".to_owned(), ByteString(b"x".to_vec()))].into());
    api.create(&PostParams::default(), &foreign).await.unwrap();
    let registry = kubernetes(&cluster).await.unwrap();
    let created = key(&registry, "shop", Role::Owner, DEFAULT_KEY_LIFETIME).await;
    let stored = api.list(&ListParams::default()).await.unwrap();
    let holds = |secret: &Secret, text: &str| {
        let data = secret.data.iter().flatten();
        data.into_iter()
            .any(|(_, bytes)| String::from_utf8_lossy(&bytes.0).contains(text))
    };
    assert!(stored.items.iter().any(|secret| holds(secret, &created.info.id)));
    assert!(!stored.items.iter().any(|secret| holds(secret, &created.key)));
    let theirs = api.get("theirs").await.unwrap();
    assert_eq!(theirs.data, foreign.data);
}
