//! The registry in a cluster's Secrets: it survives the API's weather, and no damaged Secret costs a running server what was good.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use registry::{KEY_LIFETIME, Registry, RegistryError, Role};
use support::{BOUND, add, client, cluster, key, kubernetes, until};

fn secrets(cluster: &kubesim::Cluster) -> Api<Secret> {
    Api::namespaced(client(cluster), "tributary")
}

#[tokio::test]
async fn what_changes_while_the_api_is_away_is_seen_when_it_is_back() {
    let cluster = cluster().await;
    let registry = kubernetes(&cluster).await.unwrap();
    let first = add(&registry, "shop", "https://example.com/").await.unwrap();
    cluster.set_down(true);
    let away = async { while registry.last_delivered(first.id).await.is_ok() {} };
    tokio::time::timeout(BOUND, away).await.expect("away in time");
    let refused = registry.remove_drain("shop", first.id).await;
    assert!(matches!(refused, Err(RegistryError::Api { .. })), "{refused:?}");
    assert!(
        registry.drains().borrow().contains_key(&first.id),
        "what was seen last holds"
    );
    cluster.set_down(false);
    let other = async {
        loop {
            if let Ok(opened) = kubernetes(&cluster).await {
                break opened;
            }
        }
    };
    let other = tokio::time::timeout(BOUND, other).await.expect("back in time");
    let second = add(&other, "shop", "https://example.com/2").await.unwrap();
    until(&mut registry.drains(), |drains| drains.contains_key(&second.id)).await;
}

#[tokio::test]
async fn a_secret_that_somebody_damaged_costs_a_running_server_nothing_and_is_not_written_over() {
    let cluster = cluster().await;
    let registry = kubernetes(&cluster).await.unwrap();
    let drain = add(&registry, "shop", "https://u:hunter2@example.com/").await.unwrap();
    let api = secrets(&cluster);
    let all = api.list(&ListParams::default()).await.unwrap();
    let mut damaged = all
        .items
        .into_iter()
        .find(|secret| secret.data.as_ref().unwrap().contains_key("drains"))
        .unwrap();
    let name = damaged.metadata.name.clone().unwrap();
    let data = damaged.data.as_mut().unwrap();
    data.insert("drains".to_owned(), ByteString(b"[{\"hunter2\"".to_vec()));
    api.replace(&name, &PostParams::default(), &damaged).await.unwrap();
    // Seen after it: the watch is in order.
    let other = add(&registry, "blog", "https://example.com/").await.unwrap();
    until(&mut registry.drains(), |drains| drains.contains_key(&other.id)).await;
    assert!(
        registry.drains().borrow().contains_key(&drain.id),
        "what was good of it stays"
    );
    let error = add(&registry, "shop", "https://example.com/")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&name) && error.contains("damaged") && !error.contains("hunter2"),
        "{error}"
    );
}

#[tokio::test]
async fn no_key_stands_in_a_secret_and_a_foreign_secret_is_left_alone() {
    let cluster = cluster().await;
    let api = secrets(&cluster);
    let mut foreign = Secret::default();
    foreign.metadata.name = Some("theirs".to_owned());
    foreign.data = Some([("drains".to_owned(), ByteString(b"x".to_vec()))].into());
    api.create(&PostParams::default(), &foreign).await.unwrap();
    let registry = kubernetes(&cluster).await.unwrap();
    let made = key(&registry, "shop", Role::Owner, KEY_LIFETIME).await;
    let kept = api.list(&ListParams::default()).await.unwrap();
    let holds = |secret: &Secret, text: &str| {
        let data = secret.data.iter().flatten();
        data.into_iter()
            .any(|(_, bytes)| String::from_utf8_lossy(&bytes.0).contains(text))
    };
    assert!(kept.items.iter().any(|secret| holds(secret, &made.info.id)));
    assert!(!kept.items.iter().any(|secret| holds(secret, &made.key)));
    let theirs = api.get("theirs").await.unwrap();
    assert_eq!(theirs.data, foreign.data);
}
