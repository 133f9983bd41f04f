//! The way to a cluster's API.

use std::{error::Error, net::SocketAddr};

use anyhow::{Context, anyhow, bail};
use http::Request;
use kube::{Client, Config};

use crate::deadline::answered;

/// A client for the cluster of the current kubeconfig (`KUBECONFIG`, `~/.kube/config`, or the pod's own account), proved to be there and to let pods be listed.
///
/// # Errors
/// One line that says what to do, within ten seconds of an API that does not answer.
pub(crate) async fn from_kubeconfig() -> anyhow::Result<Client> {
    let config = config().await?;
    let url = config.cluster_url.clone();
    let client = client(config)?;
    ask(&client, &url.to_string()).await?;
    Ok(client)
}

/// The same, without a question: the API may come later than we do.
///
/// # Errors
/// One line that says what to do, where there is no configuration, or none that can be used.
pub(crate) async fn unasked() -> anyhow::Result<Client> {
    client(config().await?)
}

async fn config() -> anyhow::Result<Config> {
    Config::infer().await.map_err(|error| {
        let place = std::env::var("KUBECONFIG").map_or_else(|_| "no KUBECONFIG, ~/.kube/config".to_owned(), |set| format!("KUBECONFIG={set}"));
        let cause = innermost(&error);
        anyhow!("no cluster to read from: {place}: {cause} (set KUBECONFIG to a kubeconfig file, or try `tributary demo`, which brings its own)")
    })
}

fn client(config: Config) -> anyhow::Result<Client> {
    Client::try_from(config).map_err(|error| anyhow!("the kubeconfig cannot be used: {}", innermost(&error)))
}

/// Proves that the API is there and lets pods be listed.
async fn ask(client: &Client, url: &str) -> anyhow::Result<()> {
    let look = Request::get("/api/v1/pods?limit=1")
        .body(Vec::new())
        .context("cannot ask for pods")?;
    let answer = answered(client.request_text(look)).await;
    let silent = |why: String| {
        anyhow!("the Kubernetes API at {url} does not answer: {why} (check KUBECONFIG and that the cluster is up)")
    };
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refused @ kube::Error::Api(_))) => {
            let said = refusal(&refused);
            bail!(
                "the Kubernetes API at {url} refuses: {said} (this needs `list` and `watch` on pods and `get` on pods/log, in all namespaces)"
            )
        }
        Ok(Err(error)) => Err(silent(innermost(&error))),
        Err(why) => Err(silent(why)),
    }
}

/// A client for an API without TLS or authentication: the simulated one.
pub(crate) fn for_simulated(addr: SocketAddr) -> anyhow::Result<Client> {
    let url = format!("http://{addr}")
        .parse()
        .context("the simulated cluster has no address")?;
    Client::try_from(Config::new(url)).context("the simulated cluster cannot be reached")
}

/// What the API says for itself, or why it says nothing.
pub(crate) fn refusal(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => format!("status {}", status.code),
        kube::Error::Api(status) => status.message.clone(),
        error => innermost(error),
    }
}

/// The innermost cause, which is the one a user can do something about; those around it say the same again.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
