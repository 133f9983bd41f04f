//! Where drains and keys are kept, and what drains may do.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use ::registry::{FileRegistry, KubernetesRegistry, Registry};
use anyhow::Context;
use clap::Args;

use crate::{cmd::sinks::SendArgs, kube_client as client};

/// The file of a data directory that holds drains and keys.
const FILE: &str = "registry.json";

/// What drains may do.
#[derive(Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) send: SendArgs,
    /// How many drains an app may have
    #[arg(long, env = "TRIBUTARY_MAX_DRAINS_PER_APP", value_name = "N", default_value_t = streamer::MAX_DRAINS)]
    pub(crate) max_drains_per_app: usize,
}

/// Where drains and keys are.
#[derive(Args)]
pub(crate) struct RegistryArgs {
    /// Where drains and keys are kept: `file:PATH`, or `kubernetes[:NAMESPACE]` for the Secrets of a namespace of the current kubeconfig's cluster [default of up and demo: `registry.json` in the data directory]
    #[arg(long, env = "TRIBUTARY_REGISTRY", value_name = "WHERE")]
    pub(crate) registry: Option<RegistryPlace>,
}

/// A place for drains and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegistryPlace {
    /// A file of this machine.
    File(PathBuf),
    /// Secrets of this namespace, or the kubeconfig's own.
    Kubernetes(Option<String>),
}

impl FromStr for RegistryPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, place) = text.split_once(':').unzip();
        match (kind.unwrap_or(text), place) {
            ("file", Some(path)) if !path.is_empty() => Ok(Self::File(path.into())),
            ("kubernetes", None) => Ok(Self::Kubernetes(None)),
            ("kubernetes", Some(namespace)) if !namespace.is_empty() => {
                Ok(Self::Kubernetes(Some(namespace.to_owned())))
            }
            _ => Err("give file:PATH or kubernetes[:NAMESPACE]".to_owned()),
        }
    }
}

impl RegistryArgs {
    /// The namespace of the Secrets, where they are in one that was named.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match &self.registry {
            Some(RegistryPlace::Kubernetes(namespace)) => namespace.as_deref(),
            _ => None,
        }
    }

    /// Opens what was named, or the data directory's own. `None` where there is neither.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) async fn open(&self, data_dir: Option<&Path>) -> anyhow::Result<Option<Arc<dyn Registry>>> {
        let own = || data_dir.map(|dir| RegistryPlace::File(dir.join(FILE)));
        let Some(place) = self.registry.clone().or_else(own) else {
            return Ok(None);
        };
        let opened: Result<Arc<dyn Registry>, _> = match place {
            RegistryPlace::File(path) => FileRegistry::open(path).await.map(|opened| Arc::new(opened) as _),
            RegistryPlace::Kubernetes(namespace) => {
                let client = client::unasked().await?;
                let opened = KubernetesRegistry::open(client, namespace).await;
                opened.map(|opened| Arc::new(opened) as _)
            }
        };
        let opened = opened.context("drains and keys cannot be had (--registry, or --data-dir)")?;
        Ok(Some(opened))
    }
}
