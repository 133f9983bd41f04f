//! The metrics that services export, of all processes since the start.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::{encoding::text, registry::Registry};

/// The metrics of all processes. Clones share them.
#[derive(Clone, Default)]
pub struct Exported(Arc<Mutex<Vec<(&'static str, Registry)>>>);

impl Exported {
    /// Adds those of a process that has just started.
    pub fn add(&self, service: &'static str, metrics: Registry) {
        self.0.lock().push((service, metrics));
    }

    /// Returns how many processes of a service there have been.
    pub fn processes(&self, service: &str) -> usize {
        self.0.lock().iter().filter(|(name, _)| *name == service).count()
    }

    /// Returns the sum of a counter over all processes, such as `tributary_collector_lines_total`,
    /// with its labels if it has some.
    pub fn sum(&self, counter: &str) -> u64 {
        let processes = self.0.lock();
        let pages = processes.iter().map(|(_, metrics)| {
            let mut page = String::new();
            // Writing to a String cannot fail.
            let _ = text::encode(&mut page, metrics);
            page
        });
        pages.map(|page| value(&page, counter)).sum()
    }
}

fn value(page: &str, counter: &str) -> u64 {
    let values = page.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == counter).then(|| value.parse::<u64>().ok()).flatten()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name_and_labels() {
        let page = "# HELP gaps Gaps.\ngaps_total{reason=\"away\"} 3\ngaps_total{reason=\"limit\"} 2\n";
        assert_eq!(value(page, "gaps_total{reason=\"away\"}"), 3);
        assert_eq!(value(page, "gaps_total"), 0);
    }
}
