//! What tests of registries share.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use registry::{Addresses, Drain, DrainUrl, Grant, KubernetesRegistry, NewKey, Registry, RegistryError, Role};
use tokio::sync::watch;

/// Every wait's bound.
pub const BOUND: Duration = Duration::from_secs(20);

pub const MOST: usize = 5;

pub fn url(text: &str) -> DrainUrl {
    DrainUrl::parse(text, &Addresses::default()).unwrap()
}

pub async fn add(registry: &dyn Registry, app: &str, to: &str) -> Result<Drain, RegistryError> {
    registry.add_drain(app, &url(to), MOST).await
}

pub async fn key(registry: &dyn Registry, app: &str, role: Role, lifetime: Duration) -> NewKey {
    let app = app.to_owned();
    let added = registry.add_key("me@example.com", vec![Grant { app, role }], lifetime);
    added.await.unwrap()
}

pub async fn until<T>(seen: &mut watch::Receiver<T>, what: impl FnMut(&T) -> bool) {
    let waited = tokio::time::timeout(BOUND, seen.wait_for(what)).await;
    waited.expect("seen in time").expect("still looked after");
}

/// A simulated cluster without pods.
pub async fn cluster() -> kubesim::Cluster {
    let config = kubesim::Config {
        listen: ([127, 0, 0, 1], 0).into(),
        scenario: kubesim::Scenario::default(),
    };
    kubesim::start(config).await.unwrap()
}

pub fn client(cluster: &kubesim::Cluster) -> kube::Client {
    let url = format!("http://{}", cluster.addr()).parse().unwrap();
    kube::Client::try_from(kube::Config::new(url)).unwrap()
}

pub async fn kubernetes(cluster: &kubesim::Cluster) -> Result<KubernetesRegistry, RegistryError> {
    KubernetesRegistry::open(client(cluster), Some("tributary".to_owned())).await
}
