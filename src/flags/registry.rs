//! The registry: where drains and API keys are stored.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use ::registry::{FileRegistry, KubernetesRegistry, Registry};
use anyhow::{Context, bail};
use clap::Args;

use crate::kube_client;

/// The registry file in a data directory.
const FILE: &str = "registry.json";

/// Flags of the registry.
#[derive(Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct RegistryArgs {
    /// Store drains and API keys in `file:PATH`, or in Secrets: `kubernetes[:NAMESPACE]` [default
    /// for up, demo and keys: registry.json in the data directory]
    #[arg(long, env = "TRIBUTARY_REGISTRY", value_name = "REGISTRY")]
    pub(crate) registry: Option<RegistryLocation>,
}

/// The value of `--registry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegistryLocation {
    /// A file on this machine.
    File(PathBuf),
    /// Secrets of this namespace, or of the kubeconfig's own namespace.
    Kubernetes(Option<String>),
}

impl FromStr for RegistryLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, location) = text.split_once(':').unzip();
        match (kind.unwrap_or(text), location) {
            ("file", Some(path)) if !path.is_empty() => Ok(Self::File(path.into())),
            ("kubernetes", None) => Ok(Self::Kubernetes(None)),
            ("kubernetes", Some(namespace)) if !namespace.is_empty() => {
                Ok(Self::Kubernetes(Some(namespace.to_owned())))
            }
            _ => Err("expected file:PATH or kubernetes[:NAMESPACE]".to_owned()),
        }
    }
}

impl RegistryArgs {
    /// Returns the namespace of the Secrets, if the flag names one.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match &self.registry {
            Some(RegistryLocation::Kubernetes(namespace)) => namespace.as_deref(),
            _ => None,
        }
    }

    /// Opens the registry and creates it if it does not exist. Without the flag it is the file in
    /// `data_dir`; `None` if there is no data directory either.
    ///
    /// # Errors
    /// One line with the location, the cause and what to do.
    pub(crate) async fn open(&self, data_dir: Option<&Path>) -> anyhow::Result<Option<Arc<dyn Registry>>> {
        let Some(location) = self.location(data_dir) else {
            return Ok(None);
        };
        let opened: Result<Arc<dyn Registry>, _> = match location {
            RegistryLocation::File(path) => FileRegistry::open(path).await.map(|opened| Arc::new(opened) as _),
            RegistryLocation::Kubernetes(namespace) => {
                let client = kube_client::without_probe().await?;
                let opened = KubernetesRegistry::open(client, namespace).await;
                opened.map(|opened| Arc::new(opened) as _)
            }
        };
        let opened = opened.context("cannot open the registry (set by --registry or --data-dir)")?;
        Ok(Some(opened))
    }

    /// Opens the registry as [`open`](Self::open) does, but creates no file: for commands that only
    /// read, or that change an existing entry.
    ///
    /// # Errors
    /// The same as [`open`](Self::open), and that the file does not exist.
    pub(crate) async fn open_existing(&self, data_dir: Option<&Path>) -> anyhow::Result<Option<Arc<dyn Registry>>> {
        if let Some(RegistryLocation::File(path)) = self.location(data_dir)
            && !path.exists()
        {
            bail!(
                "no registry at {}: check --registry and --data-dir, or create it with `tributary keys add`",
                path.display()
            );
        }
        self.open(data_dir).await
    }

    fn location(&self, data_dir: Option<&Path>) -> Option<RegistryLocation> {
        let default = || data_dir.map(|dir| RegistryLocation::File(dir.join(FILE)));
        self.registry.clone().or_else(default)
    }
}
