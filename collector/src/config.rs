//! The collector's settings.

use std::{path::PathBuf, str::FromStr};

use crate::status::Status;

/// The collector's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node whose pods are collected; `None`: all nodes.
    pub node_name: Option<String>,
    /// Where the checkpoints are kept, made where it does not exist. Belongs to one collector at a time.
    pub checkpoint_dir: PathBuf,
    /// What names a pod's app.
    pub app_from: AppFrom,
    /// Where lines are read.
    pub source: Source,
    /// The node's log directory, `/var/log/pods` on a node. Only read with [`Source::Files`].
    pub pod_log_dir: PathBuf,
    /// Told how far the collector is: keep a clone to ask it.
    pub status: Status,
}

impl Config {
    /// Collects all nodes, apps named by namespace, checkpoints in this directory.
    pub fn new(checkpoint_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: None,
            checkpoint_dir: checkpoint_dir.into(),
            app_from: AppFrom::Namespace,
            source: Source::Api,
            pod_log_dir: POD_LOG_DIR.into(),
            status: Status::default(),
        }
    }
}

/// Where the kubelet keeps its containers' files, unless it was told otherwise (`podLogsDir`).
pub const POD_LOG_DIR: &str = "/var/log/pods";

/// Where lines are read. The pods come from the API either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Source {
    /// Through the Kubernetes log API.
    #[default]
    Api,
    /// From the files that the container runtime writes on this node: standard output and standard error are streams of their own.
    Files,
}

/// What names a pod's app.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum AppFrom {
    /// Its namespace.
    #[default]
    Namespace,
    /// The value of this label. A pod without it is not collected.
    Label(String),
}

/// A text that should say what names an app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not say what names an app: namespace, or label:KEY")]
pub struct InvalidAppFrom(pub String);

impl FromStr for AppFrom {
    type Err = InvalidAppFrom;

    fn from_str(text: &str) -> Result<Self, InvalidAppFrom> {
        match text.split_once(':') {
            None if text == "namespace" => Ok(Self::Namespace),
            Some(("label", key)) if !key.is_empty() => Ok(Self::Label(key.to_owned())),
            _ => Err(InvalidAppFrom(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_named_by_namespace_or_label() {
        assert_eq!("namespace".parse(), Ok(AppFrom::Namespace));
        assert_eq!(
            "label:gigalixir.com/app".parse(),
            Ok(AppFrom::Label("gigalixir.com/app".to_owned()))
        );
        for wrong in ["", "label", "label:", "pod", "Namespace"] {
            assert!(wrong.parse::<AppFrom>().is_err(), "{wrong}");
        }
    }
}
