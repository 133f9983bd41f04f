//! Clients for the Kubernetes API.

#[cfg(feature = "demo")]
use std::net::SocketAddr;

use anyhow::{Context, anyhow, bail};
use http::Request;
use kube::{Client, Config};

use crate::deadline::answered;

/// Returns a client for the cluster of the current kubeconfig (`KUBECONFIG`, `~/.kube/config`, or
/// the pod's service account), after a request that lists one pod.
///
/// # Errors
/// One line with the cause and what to do, at most 10 s after the API stops answering.
pub(crate) async fn connect() -> anyhow::Result<Client> {
    let config = infer_config().await?;
    let url = config.cluster_url.clone();
    let client = client(config)?;
    probe(&client, &url.to_string()).await?;
    Ok(client)
}

/// Returns the same client without a request: the API may become available later.
///
/// # Errors
/// One line with the cause and what to do, if there is no usable kubeconfig.
pub(crate) async fn without_probe() -> anyhow::Result<Client> {
    client(infer_config().await?)
}

async fn infer_config() -> anyhow::Result<Config> {
    Config::infer().await.map_err(|error| {
        let tried = std::env::var("KUBECONFIG").map_or_else(
            |_| "KUBECONFIG is not set, tried ~/.kube/config".to_owned(),
            |path| format!("KUBECONFIG={path}"),
        );
        let cause = causes::innermost(&error);
        anyhow!(
            "no Kubernetes cluster configured ({tried}: {cause}); set KUBECONFIG to a kubeconfig file, or try `tributary demo`, which needs no cluster"
        )
    })
}

fn client(config: Config) -> anyhow::Result<Client> {
    Client::try_from(config).map_err(|error| {
        anyhow!(
            "cannot use the kubeconfig: {}; check it with `kubectl cluster-info`",
            causes::innermost(&error)
        )
    })
}

/// Lists one pod, to find a wrong address or a missing permission at start.
async fn probe(client: &Client, url: &str) -> anyhow::Result<()> {
    let request = Request::get("/api/v1/pods?limit=1")
        .body(Vec::new())
        .context("cannot build the request for pods")?;
    let unreachable = |cause: String| {
        anyhow!("cannot reach the Kubernetes API at {url}: {cause}; check KUBECONFIG and that the cluster is up")
    };
    match answered(client.request_text(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error @ kube::Error::Api(_))) => {
            bail!(
                "the Kubernetes API at {url} refused to list pods: {}; grant `list` and `watch` on pods and `get` on pods/log in all namespaces",
                api_error(&error)
            )
        }
        Ok(Err(error)) => Err(unreachable(causes::innermost(&error))),
        Err(timeout) => Err(unreachable(timeout)),
    }
}

#[cfg(feature = "demo")]
/// Returns a client for the simulated API, which has no TLS and no authentication.
pub(crate) fn for_simulated(addr: SocketAddr) -> anyhow::Result<Client> {
    let url = format!("http://{addr}")
        .parse()
        .context("cannot build the URL of the simulated cluster")?;
    Client::try_from(Config::new(url)).context("cannot build a client for the simulated cluster")
}

/// Returns the message of an API error, or the cause if there was no answer.
pub(crate) fn api_error(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => format!("status {}", status.code),
        kube::Error::Api(status) => status.message.clone(),
        error => causes::innermost(error),
    }
}
