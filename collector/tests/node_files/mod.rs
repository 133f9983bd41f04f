//! Manipulates the node's files and reads both outputs from the bus.
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use bus::{AppName, Bus, BusError, Content, Fd, ReaderItem, Start};
use kubesim::{LogFiles, RestartPolicy, Scenario};

use crate::support::{Harness, StreamRead, in_time};

/// Files that rotate only on request, and how many are kept.
pub fn keeping(max_files: usize) -> LogFiles {
    LogFiles {
        max_files,
        check: Duration::from_secs(3600),
        ..LogFiles::default()
    }
}

/// Starts a pod whose files are all kept.
pub async fn with_pod(policy: RestartPolicy) -> Harness {
    with_pod_keeping(1000, policy).await
}

pub async fn with_pod_keeping(max_files: usize, policy: RestartPolicy) -> Harness {
    let scenario = Scenario {
        log_files: keeping(max_files),
        ..Scenario::default()
    };
    let harness = Harness::with_files(scenario).await;
    harness.pod("p", policy).await;
    harness
}

/// Returns the directory of the only container.
pub fn dir(harness: &Harness) -> PathBuf {
    let pods = fs::read_dir(harness.pod_log_dir.as_ref().unwrap()).unwrap();
    let pods: Vec<_> = pods.map(|pod| pod.unwrap().path().join("c")).collect();
    assert_eq!(pods.len(), 1, "one pod: {pods:?}");
    pods.into_iter().next().unwrap()
}

/// Returns the names of its files, sorted.
pub fn names(harness: &Harness) -> Vec<String> {
    let entries = fs::read_dir(dir(harness)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

impl Harness {
    pub fn rotate_file(&self) {
        self.cluster.rotate_log_file("app", "p", "c").unwrap();
    }

    /// Waits until the streams of one output have this many lines. Returns them, ordered by id.
    pub async fn wait_for_lines_of(&self, fd: Fd, lines: usize) -> Vec<StreamRead> {
        let suffix = if fd == Fd::Out { ":out/" } else { ":err/" };
        let of_fd = |stream: &StreamRead| stream.stream.contains(suffix);
        let count = |streams: &[StreamRead]| {
            streams
                .iter()
                .filter(|stream| of_fd(stream))
                .map(|stream| stream.texts.len())
                .sum::<usize>()
        };
        let streams = self
            .wait_for(&format!("{lines} lines of {fd:?}"), |streams| count(streams) >= lines)
            .await;
        streams.into_iter().filter(of_fd).collect()
    }

    /// Returns the concatenated data of all batches, by output.
    pub async fn raw(&self) -> BTreeMap<&'static str, Vec<u8>> {
        let app: AppName = "app".parse().unwrap();
        let mut raw: BTreeMap<_, Vec<u8>> = BTreeMap::new();
        let mut reader = match self.bus.follow(&app, Start::Oldest).await {
            Ok(reader) => reader,
            Err(BusError::UnknownApp(_)) => return raw,
            Err(error) => panic!("{error}"),
        };
        loop {
            match in_time(reader.next()).await.unwrap().unwrap() {
                ReaderItem::Delivery(delivery) => {
                    let batch = delivery.batch;
                    let name = match batch.metadata.fd.expect("a batch has an output") {
                        Fd::Out => "out",
                        Fd::Err => "err",
                    };
                    assert!(batch.metadata.stream.to_string().contains(&format!("/c:{name}/")));
                    if let Content::Lines { data, .. } = &batch.content {
                        raw.entry(name).or_default().extend_from_slice(data);
                    }
                }
                ReaderItem::CaughtUp => return raw,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits until both outputs have this many bytes.
    pub async fn wait_for_raw(&self, out: usize, err: usize) -> BTreeMap<&'static str, Vec<u8>> {
        let enough = async {
            loop {
                let raw = self.raw().await;
                let len = |name| raw.get(name).map_or(0, Vec::len);
                if len("out") >= out && len("err") >= err {
                    return raw;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        in_time(enough).await
    }
}
