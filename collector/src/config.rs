//! The collector's settings.

use std::{path::PathBuf, str::FromStr, time::Duration};

use crate::{metrics::Metrics, progress::Progress};

/// Below the kubelet's limit of four hours.
const RENEW_AFTER: Duration = Duration::from_secs(3 * 3600);

/// Far above the response time of an available bus.
const PUBLISH_WAIT: Duration = Duration::from_secs(60);

/// A collector's own pod is seen in less.
const NO_PODS_FOR: Duration = Duration::from_secs(60);

/// More than the containers of a node.
const MAX_CONNECTIONS: usize = 10_000;

/// The pods of a node are at most about half a megabyte.
const RELIST_EVERY: Duration = Duration::from_secs(300);

/// Half an hour of a node that writes 500 kB/s.
const DEFAULT_SPOOL_BYTES: u64 = 1 << 30;

/// The collector's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node whose pods are collected; `None`: all nodes.
    pub node_name: Option<String>,
    /// Label selector for pods, with the syntax of `kubectl -l`. Pods with the annotation
    /// `tributary.dev/exclude: "true"` are never collected.
    pub pod_selector: Option<String>,
    /// Label selector for namespaces. Needs permission to list namespaces.
    pub namespace_selector: Option<String>,
    /// Directory for checkpoints and spool, created if it does not exist. Belongs to one collector
    /// at a time.
    pub checkpoint_dir: PathBuf,
    /// Which part of a pod names its app.
    pub app_from: AppFrom,
    /// How lines are read.
    pub source: Source,
    /// The node's log directory. Used only with [`Source::Files`].
    pub pod_log_dir: PathBuf,
    /// Maximum number of connections over which logs are read. Containers above it are polled.
    pub max_connections: usize,
    /// Maximum age of a follow. The kubelet ends one after four hours; values below an hour load
    /// the API server needlessly.
    pub renew_after: Duration,
    /// Interval at which pods are listed again, in case the watch's connection is dead.
    pub relist_every: Duration,
    /// Time after which a batch without a response is sent again.
    pub publish_wait: Duration,
    /// Rate limit of an app on this node, over all its containers, in bytes per second. Lines above
    /// it are dropped and recorded as a gap. 0: no limit.
    pub app_rate: u64,
    /// Burst of the rate limit in bytes. 0: ten times the rate.
    pub app_burst: u64,
    /// Maximum size of the spool in bytes, in `checkpoint_dir`. When it is full, the oldest batches
    /// are dropped and recorded as a gap. At least 4 MiB.
    pub spool_bytes: u64,
    /// Deletes topics of apps that no longer exist in the cluster; `None`: never. Requires a bus
    /// that only this cluster uses, and permission to list namespaces (or pods, if a label names the
    /// app).
    pub topic_gc: Option<TopicGc>,
    /// A node without pods for this long is reported: even an empty one runs the collector's own pod.
    pub report_missing_pods_after: Duration,
    /// Progress of the collector; keep a clone to read it.
    pub progress: Progress,
    /// Metrics of the collector.
    pub metrics: Metrics,
}

impl Config {
    /// Creates settings that collect all nodes, name apps by namespace and store checkpoints in
    /// this directory.
    pub fn new(checkpoint_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: None,
            pod_selector: None,
            namespace_selector: None,
            checkpoint_dir: checkpoint_dir.into(),
            app_from: AppFrom::Namespace,
            source: Source::Api,
            pod_log_dir: POD_LOG_DIR.into(),
            max_connections: MAX_CONNECTIONS,
            renew_after: RENEW_AFTER,
            relist_every: RELIST_EVERY,
            publish_wait: PUBLISH_WAIT,
            app_rate: 0,
            app_burst: 0,
            spool_bytes: DEFAULT_SPOOL_BYTES,
            topic_gc: None,
            report_missing_pods_after: NO_PODS_FOR,
            progress: Progress::default(),
            metrics: Metrics::default(),
        }
    }

    /// Returns whether every pod is collected from its start: no selection can begin later.
    pub(crate) fn collects_all_pods(&self) -> bool {
        self.pod_selector.is_none() && self.namespace_selector.is_none() && self.app_from == AppFrom::Namespace
    }
}

/// When topics are deleted.
#[derive(Clone, Copy, Debug)]
pub struct TopicGc {
    /// How long an app must be missing from the cluster: the retention of its history. Measured by
    /// this process, so that one incomplete list deletes nothing.
    pub unused_for: Duration,
    /// How often the cluster is checked.
    pub interval: Duration,
}

/// The kubelet's default for `podLogsDir`.
pub const POD_LOG_DIR: &str = "/var/log/pods";

/// How lines are read. Pods are always read from the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Source {
    /// Through the Kubernetes log API.
    #[default]
    Api,
    /// From the files that the container runtime writes on this node. Standard output and standard
    /// error are separate streams.
    Files,
}

/// What names a pod's app.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum AppFrom {
    /// Its namespace.
    #[default]
    Namespace,
    /// The value of this label. Pods without it are not collected.
    Label(String),
}

/// An invalid value for what names an app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {0:?}: expected namespace or label:KEY")]
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
