//! Helpers for the tests of the registries.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use registry::{AddressPolicy, Drain, DrainUrl, Grant, KubernetesRegistry, NewKey, Registry, RegistryError, Role};
use tokio::sync::watch;

/// The timeout of every wait.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The maximum number of drains of an app.
pub const MAX_DRAINS: usize = 5;

pub fn url(text: &str) -> DrainUrl {
    DrainUrl::parse(text, &AddressPolicy::default()).unwrap()
}

pub async fn add(registry: &dyn Registry, app: &str, to: &str) -> Result<Drain, RegistryError> {
    registry.add_drain(app, &url(to), MAX_DRAINS).await
}

pub async fn key(registry: &dyn Registry, app: &str, role: Role, lifetime: Duration) -> NewKey {
    let app = app.to_owned();
    let added = registry.add_key("me@example.com", vec![Grant { app, role }], lifetime);
    added.await.unwrap()
}

/// Waits until a watched value meets a condition.
pub async fn until<T>(watched: &mut watch::Receiver<T>, condition: impl FnMut(&T) -> bool) {
    let waited = tokio::time::timeout(TIMEOUT, watched.wait_for(condition)).await;
    waited.expect("no timeout").expect("the registry is open");
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
