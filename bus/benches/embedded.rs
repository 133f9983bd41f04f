//! The embedded bus compared with raw synced writes of the same size.
//!
//! `cargo bench -p bus --bench embedded` writes the same number of bytes in three ways per round,
//! in varying order: a file with `fdatasync` after each write; one publisher, which waits for each
//! batch; eight publishers, which share syncs. Then one reader reads everything. The results are
//! medians. The last column is the CPU time of the process per line of 120 bytes, system time
//! included, with one publisher.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should panic")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    AppName, Batch, Bus, Content, Embedded, EmbeddedSettings, Epoch, ReaderItem, Start, StreamId, StreamMetadata,
};
use bytes::Bytes;

const ROUNDS: usize = 9;
const LINE: usize = 120;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    println!(
        "{:>8}  {:>10}  {:>10}  {:>6}  {:>10}  {:>6}  {:>10}  {:>10}",
        "bytes", "raw MB/s", "1 pub", "ratio", "8 pubs", "ratio", "follow", "ns a line"
    );
    for (size, total) in [
        (4 << 10, 8 << 20),
        (64 << 10, 128 << 20),
        (256 << 10, 256 << 20),
        (1 << 20, 512 << 20),
    ] {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            let dir = tempfile::tempdir_in(".").unwrap();
            let count = total / size;
            let (mut raw, mut one, mut eight) = (0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0));
            // The order varies because a disk is faster for the first burst.
            for turn in 0..3 {
                match (round + turn) % 3 {
                    0 => raw = raw_writes(dir.path(), size, count),
                    1 => one = runtime.block_on(publish(dir.path(), size, count, 1)),
                    _ => eight = runtime.block_on(publish(dir.path(), size, count, 8)),
                }
            }
            rounds.push([raw, one.0, one.0 / raw, eight.0, eight.0 / raw, eight.1, one.2]);
        }
        let median = |at: usize| {
            let mut values: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
            values.sort_by(f64::total_cmp);
            values[ROUNDS / 2]
        };
        let [raw, one, one_ratio, eight, eight_ratio, follow, cpu] = std::array::from_fn(median);
        println!(
            "{size:>8}  {raw:>10.0}  {one:>10.0}  {one_ratio:>6.2}  {eight:>10.0}  {eight_ratio:>6.2}  {follow:>10.0}  {cpu:>10.0}"
        );
    }
}

fn rate(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

fn raw_writes(dir: &Path, size: usize, count: usize) -> f64 {
    let data = batch_data(size);
    let mut file = File::create(dir.join("raw")).unwrap();
    let began = Instant::now();
    for _ in 0..count {
        file.write_all(&data).unwrap();
        file.sync_data().unwrap();
    }
    rate(size * count, began.elapsed())
}

/// MB/s of publishing and of reading from the oldest batch, and the CPU time of publishing in ns
/// per line.
async fn publish(dir: &Path, size: usize, count: usize, publishers: usize) -> (f64, f64, f64) {
    let settings = EmbeddedSettings {
        retention_bytes: 4 << 30,
        ..EmbeddedSettings::default()
    };
    let dir = dir.join(format!("bus-{publishers}"));
    let bus = Arc::new(Embedded::open(&dir, settings).unwrap());
    let app: AppName = "bench".parse().unwrap();
    bus.create(&app).await.unwrap();
    let data = batch_data(size);
    let lines = (size / LINE) as u64;
    let cpu = cpu_seconds();
    let began = Instant::now();
    let tasks: Vec<_> = (0..publishers)
        .map(|n| {
            let (bus, data) = (Arc::clone(&bus), data.clone());
            let metadata = metadata(&app, n);
            tokio::spawn(async move {
                for i in 0..count / publishers {
                    let content = Content::Lines {
                        data: data.clone(),
                        lines,
                        part: None,
                    };
                    bus.publish(Batch {
                        metadata: Arc::clone(&metadata),
                        seq: i as u64 * lines,
                        content,
                    })
                    .await
                    .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let published = rate(size * count, began.elapsed());
    let per_line = (cpu_seconds() - cpu) / (count as f64 * lines as f64) * 1e9;
    let began = Instant::now();
    let mut reader = bus.follow(&app, Start::Oldest).await.unwrap();
    let mut bytes = 0;
    loop {
        match reader.next().await.unwrap().unwrap() {
            ReaderItem::Delivery(delivery) => bytes += delivery.batch.data().len(),
            ReaderItem::CaughtUp => break,
            other => panic!("{other:?}"),
        }
    }
    (published, rate(bytes, began.elapsed()), per_line)
}

/// User and system CPU time of this process, with a resolution of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn batch_data(size: usize) -> Bytes {
    let line = format!("2026-11-23T07:00:00.123456789Z {}\n", "x".repeat(LINE - 32));
    let mut data = line.repeat(size / LINE);
    data.pop();
    data.push_str(&"y".repeat(size % LINE));
    data.push('\n');
    data.into()
}

fn metadata(app: &AppName, n: usize) -> Arc<StreamMetadata> {
    Arc::new(StreamMetadata {
        app: app.clone(),
        process: format!("web-{n}"),
        stream: StreamId::new(&format!("uid-{n}"), "web", "c0ffee", Epoch::new()).unwrap(),
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    })
}
