//! Reports a node name that no pod has: a collector with it reads nothing, for ever.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use system::{
    clock::{Instant, since, steady},
    task::spawn_in,
};
use tokio::task::JoinSet;

use crate::{config::Config, progress::Progress};

/// Pods that are listed to find the names of nodes, and names in a message.
const LISTED_PODS: u32 = 500;
const LISTED_NODES: usize = 5;

/// Watches whether the node of the settings has pods.
pub struct NodeNameCheck {
    /// `None`: all nodes are watched, or pods were seen.
    node: Option<String>,
    /// Only some pods are watched, so that there may be none.
    is_selective: bool,
    /// See [`Config::report_missing_pods_after`].
    report_after: Duration,
    client: kube::Client,
    progress: Progress,
    without_pods: Option<Instant>,
    report: JoinSet<()>,
}

impl NodeNameCheck {
    /// Creates the check of these settings.
    pub fn new(config: &Config, client: kube::Client) -> Self {
        Self {
            node: config.node_name.clone(),
            is_selective: config.pod_selector.is_some() || config.namespace_selector.is_some(),
            report_after: config.report_missing_pods_after,
            client,
            progress: config.progress.clone(),
            without_pods: None,
            report: JoinSet::new(),
        }
    }

    /// Checks the number of pods now. The first pod ends the check.
    pub fn check(&mut self, pods: usize) {
        if pods > 0 && self.node.take().is_some() {
            self.report = JoinSet::new();
            self.progress.set_no_pods(None);
        }
        let Some(node) = self.node.clone().filter(|_| self.progress.is_listed()) else {
            return;
        };
        if since(*self.without_pods.get_or_insert_with(steady)) < self.report_after {
            return;
        }
        // Not again before that time has passed once more.
        self.without_pods = None;
        let (client, progress, is_selective) = (self.client.clone(), self.progress.clone(), self.is_selective);
        self.report = JoinSet::new();
        spawn_in(&mut self.report, async move {
            let problem = describe(&client, &node, is_selective).await;
            tracing::error!("{problem}");
            if !is_selective {
                progress.set_no_pods(Some(problem));
            }
        });
    }
}

async fn describe(client: &kube::Client, node: &str, is_selective: bool) -> String {
    let pods = Api::<Pod>::all(client.clone());
    let listed = pods.list(&ListParams::default().limit(LISTED_PODS)).await;
    let names: BTreeSet<String> = listed
        .into_iter()
        .flatten()
        .filter_map(|pod| pod.spec?.node_name)
        .collect();
    if is_selective && names.contains(node) {
        return format!("no selected pod runs on the node {node}; check --pod-selector and --namespace-selector");
    }
    let names: Vec<String> = names.into_iter().take(LISTED_NODES).collect();
    let others = match names.is_empty() {
        true => String::new(),
        false => format!("; nodes with pods are {}", names.join(", ")),
    };
    format!("no pod runs on the node {node}; check --node-name{others}")
}
