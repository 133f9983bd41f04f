//! The collector's settings.

use std::{path::PathBuf, str::FromStr, time::Duration};

use crate::{metrics::Metrics, status::Status};

/// Well before the kubelet's four hours.
const RENEW_AFTER: Duration = Duration::from_secs(3 * 3600);

/// Far above what a bus takes that is there.
const PUBLISH_WAIT: Duration = Duration::from_secs(60);

/// A node's pods are half a megabyte at the most.
const RELIST_EVERY: Duration = Duration::from_secs(300);

/// A node that prints 500 kB/s has half an hour of it.
const DEFAULT_SPOOL_BYTES: u64 = 1 << 30;

/// The collector's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node whose pods are collected; `None`: all nodes.
    pub node_name: Option<String>,
    /// Only pods with these labels are collected: a label selector, as kubectl's `-l`. A pod with the annotation `tributary.dev/exclude: "true"` never is.
    pub pod_selector: Option<String>,
    /// Only pods of namespaces with these labels are collected. Needs the right to list namespaces.
    pub namespace_selector: Option<String>,
    /// Where the checkpoints are kept, made where it does not exist. Belongs to one collector at a time.
    pub checkpoint_dir: PathBuf,
    /// What names a pod's app.
    pub app_from: AppFrom,
    /// Where lines are read.
    pub source: Source,
    /// The node's log directory, `/var/log/pods` on a node. Only read with [`Source::Files`].
    pub pod_log_dir: PathBuf,
    /// A follow is renewed after this at the latest: a kubelet ends one after four hours. Below an hour the API server is troubled for nothing.
    pub renew_after: Duration,
    /// The pods are listed anew about this often, whatever the watch says: one whose connection is gone looks like one of pods that do not change.
    pub relist_every: Duration,
    /// A bus that has not answered by then is handed the same batch again.
    pub publish_wait: Duration,
    /// How many bytes a second an app may print on this node, all its containers together; what is above is lost, and told. 0: what it likes.
    pub app_rate: u64,
    /// And how many at once. 0: ten seconds' worth.
    pub app_burst: u64,
    /// How many bytes of batches wait on disk while the bus is away, in `checkpoint_dir`; past that the oldest are lost, and told. At least 4 MiB.
    pub spool_bytes: u64,
    /// Topics of apps that are gone from the cluster are removed; `None`: never. For a bus that belongs to this cluster alone. Needs the right to list namespaces (or,
    /// where a label names the app, pods).
    pub topic_gc: Option<TopicGc>,
    /// Told how far the collector is: keep a clone to ask it.
    pub status: Status,
    /// What is counted.
    pub metrics: Metrics,
}

impl Config {
    /// Collects all nodes, apps named by namespace, checkpoints in this directory.
    pub fn new(checkpoint_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: None,
            pod_selector: None,
            namespace_selector: None,
            checkpoint_dir: checkpoint_dir.into(),
            app_from: AppFrom::Namespace,
            source: Source::Api,
            pod_log_dir: POD_LOG_DIR.into(),
            renew_after: RENEW_AFTER,
            relist_every: RELIST_EVERY,
            publish_wait: PUBLISH_WAIT,
            app_rate: 0,
            app_burst: 0,
            spool_bytes: DEFAULT_SPOOL_BYTES,
            topic_gc: None,
            status: Status::default(),
            metrics: Metrics::default(),
        }
    }
}

/// When topics of apps that are gone are removed.
#[derive(Clone, Copy, Debug)]
pub struct TopicGc {
    /// An app has to be gone for so long: how far history reaches. Counted by this process, so that a list that was wrong for a moment removes nothing.
    pub unused_for: Duration,
    /// How often it is looked.
    pub interval: Duration,
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
