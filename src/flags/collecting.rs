//! The collector: which containers it reads, how, and at what rate.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use collector::AppFrom;

/// How often the collector searches for unused topics.
const TOPIC_GC_INTERVAL: Duration = Duration::from_secs(3600);

/// The smallest `--spool-bytes`.
const MIN_SPOOL: ByteSize = ByteSize::mib(4);

/// Flags of a service that collects logs.
#[derive(Args)]
#[command(next_help_heading = "Collecting")]
pub(crate) struct CollectArgs {
    /// Read only pods of this node [default: all nodes]
    #[arg(long, env = "TRIBUTARY_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Read only pods that match this label selector [default: all pods]
    ///
    /// Pods with the annotation `tributary.dev/exclude: "true"` are never read.
    #[arg(long, env = "TRIBUTARY_POD_SELECTOR", value_name = "SELECTOR")]
    pub(crate) pod_selector: Option<String>,
    /// Read only namespaces that match this label selector; requires permission to list namespaces
    /// [default: all namespaces]
    #[arg(long, env = "TRIBUTARY_NAMESPACE_SELECTOR", value_name = "SELECTOR")]
    pub(crate) namespace_selector: Option<String>,
    /// Name a pod's app after its namespace (`namespace`) or the value of a label (`label:KEY`)
    #[arg(long, env = "TRIBUTARY_APP_FROM", value_name = "RULE", default_value = "namespace")]
    pub(crate) app_from: AppFrom,
    /// Read logs from this source; see docs/operators/sources.md
    #[arg(long, env = "TRIBUTARY_SOURCE", value_name = "SOURCE", value_enum, default_value_t = Source::Api)]
    pub(crate) source: Source,
    /// Read log files in this directory with --source files [default: /var/log/pods; demo writes
    /// them to `pods` in the data directory]
    #[arg(long, env = "TRIBUTARY_POD_LOG_DIR", value_name = "DIR")]
    pub(crate) pod_log_dir: Option<PathBuf>,
    /// Limit each app to this many bytes per second and node; excess lines become a gap (L12);
    /// 0 means no limit [default: 0; demo with its built-in scenario: 4 kB]
    #[arg(long, env = "TRIBUTARY_APP_RATE", value_name = "BYTES", value_parser = crate::flags::values::bytes)]
    pub(crate) app_rate: Option<ByteSize>,
    /// Allow bursts of this many bytes above --app-rate; 0 means ten seconds of --app-rate
    #[arg(long, env = "TRIBUTARY_APP_BURST", value_name = "BYTES", default_value = "0", value_parser = crate::flags::values::bytes)]
    pub(crate) app_burst: ByteSize,
    /// Delete topics of apps without pods or drains after the retention; requires a bus that
    /// no other cluster uses
    ///
    /// Requires permission to list namespaces, or pods if a label names the app.
    #[arg(long, env = "TRIBUTARY_DELETE_UNUSED_TOPICS", alias = "remove-gone-apps")]
    pub(crate) delete_unused_topics: bool,
    /// Store checkpoints in this directory [default: `checkpoints` in the data directory]
    #[arg(long, env = "TRIBUTARY_CHECKPOINT_DIR", value_name = "DIR", help_heading = "Storage")]
    pub(crate) checkpoint_dir: Option<PathBuf>,
    /// Spool at most this many bytes to disk while the bus is unavailable; when this limit is
    /// reached, the oldest batches become a gap (L12)
    #[arg(
        long,
        env = "TRIBUTARY_SPOOL_BYTES",
        value_name = "BYTES",
        default_value = "1GiB",
        value_parser = crate::flags::values::bytes,
        help_heading = "Storage"
    )]
    pub(crate) spool_bytes: ByteSize,
}

/// A source of logs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// The Kubernetes log API
    Api,
    /// The container runtime's log files on this node; separates stdout and stderr
    Files,
}

impl CollectArgs {
    /// Returns one message for each invalid value.
    pub(crate) fn validation_errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for (flag, selector) in [
            ("--pod-selector", &self.pod_selector),
            ("--namespace-selector", &self.namespace_selector),
        ] {
            if let Some(selector) = selector
                && let Err(reason) = collector::check_label_selector(selector)
            {
                errors.push(format!("{flag} {selector}: {reason}"));
            }
        }
        if self.app_rate.unwrap_or_default() == ByteSize::b(0) && self.app_burst != ByteSize::b(0) {
            errors.push(format!(
                "--app-burst {}: set --app-rate too, the burst is above it",
                self.app_burst
            ));
        }
        if self.spool_bytes < MIN_SPOOL {
            errors.push(format!("--spool-bytes {}: set at least 4MiB", self.spool_bytes));
        }
        errors
    }

    /// Returns the settings of the collector. Checkpoints are in `data_dir` unless a flag moves
    /// them.
    pub(crate) fn config(&self, data_dir: &Path, retention: Duration) -> collector::Config {
        let checkpoint_dir = self
            .checkpoint_dir
            .clone()
            .unwrap_or_else(|| data_dir.join("checkpoints"));
        collector::Config {
            node_name: self.node_name.clone(),
            pod_selector: self.pod_selector.clone(),
            namespace_selector: self.namespace_selector.clone(),
            app_from: self.app_from.clone(),
            source: match self.source {
                Source::Api => collector::Source::Api,
                Source::Files => collector::Source::Files,
            },
            pod_log_dir: self
                .pod_log_dir
                .clone()
                .unwrap_or_else(|| collector::POD_LOG_DIR.into()),
            app_rate: self.app_rate.unwrap_or_default().as_u64(),
            app_burst: self.app_burst.as_u64(),
            spool_bytes: self.spool_bytes.as_u64(),
            topic_gc: self.delete_unused_topics.then_some(collector::TopicGc {
                unused_for: retention,
                interval: TOPIC_GC_INTERVAL,
            }),
            ..collector::Config::new(checkpoint_dir)
        }
    }
}
