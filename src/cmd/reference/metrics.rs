//! The metrics of the services, from the registries that `/metrics` encodes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use prometheus_client::{encoding::text::encode, registry::Registry};

use super::row;

const INTRODUCTION: &str = "\
# Metrics

Every metric that the services expose on `/metrics` of the admin listener: 127.0.0.1:9601 (collector,
up, demo), :9602 (streamer), :9603 (sinks), or the address of `--admin-listen`. No metric has an app, a
pod or a drain as a label, so the number of series does not grow with the platform. This page is
generated: `cargo run -- reference metrics`.
";

/// Registers the metrics of a service.
type Register = fn(&mut Registry);

/// A metric, as the exposition describes it.
#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    /// Values of each label; histogram buckets are left out.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Renders the page.
///
/// # Errors
/// Fails if a metric cannot be encoded.
pub(super) fn page() -> anyhow::Result<String> {
    let mut page = INTRODUCTION.to_owned();
    let services: [(&str, Register); 3] = [
        ("Collector", |registry| drop(collector::Metrics::register(registry))),
        ("Streamer", |registry| drop(streamer::Metrics::register(registry))),
        ("Sinks", |registry| drop(sinks::Metrics::register(registry))),
    ];
    for (service, register) in services {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).context("cannot encode the metrics")?;
        page.push_str(&format!("\n## {service}\n\n"));
        page.push_str(&row(&["metric", "type", "labels", "meaning"]));
        page.push_str(&row(&["---", "---", "---", "---"]));
        for (name, metric) in parse(&text) {
            let labels: Vec<String> = metric
                .labels
                .iter()
                .map(|(label, values)| label_cell(label, values))
                .collect();
            page.push_str(&row(&[
                &format!("`{name}`"),
                &metric.kind,
                &labels.join(", "),
                &metric.help,
            ]));
        }
    }
    Ok(page)
}

fn label_cell(label: &str, values: &BTreeSet<String>) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{label}`: {}", values.join(", "))
}

/// Reads the OpenMetrics text format; the metrics are sorted by name.
///
/// *Source*: OpenMetrics 1.0, "Text format".
fn parse(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            metrics.entry(current.clone()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            metrics.entry(current.clone()).or_default().kind = kind.to_owned();
        } else if let Some((_, labels)) = line.split_once('{')
            && let Some(metric) = metrics.get_mut(&current)
            && let Some((labels, _)) = labels.rsplit_once('}')
        {
            for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
                if label != "le" {
                    let values = metric.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    let in_full = |(name, metric): (String, Metric)| match &*metric.kind {
        "counter" => (format!("{name}_total"), metric),
        _ => (name, metric),
    };
    metrics.into_iter().map(in_full).collect()
}
