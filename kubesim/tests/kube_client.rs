//! The Rust client of collectors (`kube`) works against the simulated cluster.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config};
use kubesim::{Cluster, PodPlan, Scenario};
use support::{cluster, with_timeout};

async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&cluster.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn the_client_lists_pods_and_follows_logs() {
    let cluster = cluster(Scenario::default()).await;
    cluster.create_pod(&PodPlan::silent("a", "p", "c")).unwrap();
    with_timeout(cluster.wait_running("a", "p", "c")).await.unwrap();
    let client = client(&cluster).await;
    let all: Api<Pod> = Api::all(client.clone());
    let list = with_timeout(all.list(&ListParams::default().fields("spec.nodeName=node-1")))
        .await
        .unwrap();
    let status = list.items[0].status.as_ref().unwrap();
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert!(container.state.as_ref().unwrap().running.is_some());
    assert_eq!(
        container.container_id.as_ref().unwrap().len(),
        "containerd://".len() + 64
    );

    let pods: Api<Pod> = Api::namespaced(client, "a");
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = with_timeout(pods.log_stream("p", &params)).await.unwrap().lines();
    cluster.write_line("a", "p", "c", "hello").unwrap();
    assert_eq!(with_timeout(lines.try_next()).await.unwrap().as_deref(), Some("hello"));
    cluster.exit_container("a", "p", "c", 0).await.unwrap();
    assert_eq!(with_timeout(lines.try_next()).await.unwrap(), None);
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_watcher_recovers_from_broken_watches_with_both_list_modes() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let cluster = cluster(Scenario::default()).await;
        cluster.create_pod(&PodPlan::silent("a", "first", "c")).unwrap();
        let pods: Api<Pod> = Api::all(client(&cluster).await);
        let mut events = Box::pin(watcher(pods, config.fields("spec.nodeName=node-1")));
        let mut breaks = 0;
        let mut expected = vec!["first", "second", "second gone"];
        while !expected.is_empty() {
            // An error is a broken watch; the watcher reconnects.
            let Ok(event) = with_timeout(events.next()).await.unwrap() else {
                continue;
            };
            let seen = match event {
                Event::InitApply(pod) | Event::Apply(pod) => pod.metadata.name.unwrap(),
                Event::Delete(pod) => format!("{} gone", pod.metadata.name.unwrap()),
                Event::Init | Event::InitDone => continue,
            };
            if expected.first() == Some(&seen.as_str()) {
                expected.remove(0);
                if breaks == 0 {
                    breaks = 1;
                    cluster.break_streams();
                    cluster.create_pod(&PodPlan::silent("a", "second", "c")).unwrap();
                } else if expected.len() == 1 {
                    cluster.delete_pod("a", "second", Some(0)).unwrap();
                }
            }
        }
        with_timeout(cluster.shutdown()).await;
    }
}

#[tokio::test]
async fn an_authorizing_api_allows_what_the_rules_allow_and_explains_refusals() {
    let scenario = Scenario::from_toml(
        r#"
        authorize = true
        [[users]]
        name = "reader"
        token = "one"
        [[users.rules]]
        groups = [""]
        resources = ["pods"]
        verbs = ["list", "watch"]
        [[users.rules]]
        groups = [""]
        resources = ["secrets"]
        verbs = ["*"]
        namespace = "home"
        "#,
    );
    let cluster = cluster(scenario.unwrap()).await;
    cluster.create_pod(&PodPlan::silent("a", "p", "c")).unwrap();
    let with_token = async |token: &str| {
        let kubeconfig = cluster
            .kubeconfig()
            .replace("user: {}", &format!("user: {{token: {token}}}"));
        let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.unwrap()).unwrap()
    };
    let refused = |error: kube::Error| match error {
        kube::Error::Api(status) => (status.code, status.message),
        other => panic!("{other}"),
    };
    let reader = with_token("one").await;
    let pods: Api<Pod> = Api::all(reader.clone());
    assert_eq!(
        with_timeout(pods.list(&ListParams::default()))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let namespaced: Api<Pod> = Api::namespaced(reader.clone(), "a");
    let log = with_timeout(namespaced.logs("p", &LogParams::default()))
        .await
        .unwrap_err();
    let message = "pods \"p\" is forbidden: User \"reader\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"a\"";
    assert_eq!(refused(log), (403, message.to_owned()));
    let secrets = async |namespace: &str| {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(reader.clone(), namespace);
        with_timeout(secrets.list(&ListParams::default()))
            .await
            .map(|list| list.items.len())
    };
    assert_eq!(secrets("home").await.unwrap(), 0);
    let message = "secrets is forbidden: User \"reader\" cannot list resource \"secrets\" in API group \"\" in the namespace \"a\"";
    assert_eq!(refused(secrets("a").await.unwrap_err()), (403, message.to_owned()));
    for token in ["two", "''"] {
        let pods: Api<Pod> = Api::all(with_token(token).await);
        assert_eq!(
            refused(with_timeout(pods.list(&ListParams::default())).await.unwrap_err()).0,
            401
        );
    }
    with_timeout(cluster.shutdown()).await;
}
