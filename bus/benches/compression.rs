//! Cost and ratio of batch compression.
//!
//! `cargo bench -p bus --bench compression [-- FILE …]` compresses batches of several sizes, as for
//! Pub/Sub, and decodes them: of each file's lines, and of two kinds of generated lines. The ratio
//! is compressed to uncompressed bytes on the wire, attributes included. Rates are medians of nine
//! rounds on one thread. For comparison, other levels of zstd compress the same data, without
//! attributes.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should panic")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

use std::{hint::black_box, sync::Arc, time::Instant};

use bus::{Batch, Content, Epoch, StreamId, StreamMetadata};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

const ROUNDS: usize = 9;

/// Bytes used of each text.
const TOTAL: usize = 8 << 20;

fn main() {
    let files = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let mut texts = vec![
        ("access log, random ids".to_owned(), generated(access_line)),
        ("JSON, random ids".to_owned(), generated(json_line)),
    ];
    texts.extend(files.map(|path| {
        let text = std::fs::read(&path).unwrap();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let stamped = lines.flat_map(|line| [b"2026-11-23T07:00:00.123456789Z ", line, b"\n"].concat());
        (path, stamped.take(TOTAL).collect())
    }));
    println!(
        "{:<28} {:>8}  {:>6}  {:>10}  {:>10}    other levels: ratio, MB/s compressing",
        "text", "batch", "ratio", "compress", "read back"
    );
    for (name, text) in &texts {
        for size in [1 << 10, 4 << 10, 64 << 10, 1 << 20] {
            let batches = batches(text, size);
            let mut rounds: Vec<(f64, f64, f64)> = (0..ROUNDS).map(|_| round(&batches)).collect();
            rounds.sort_by(|one, other| one.1.total_cmp(&other.1));
            let (ratio, compress, read) = rounds[ROUNDS / 2];
            let others: Vec<String> = [-5, -1, 3, 6]
                .iter()
                .map(|level| other_level(&batches, *level))
                .collect();
            println!(
                "{name:<28} {size:>8}  {ratio:>6.3}  {compress:>5.0} MB/s  {read:>5.0} MB/s    {}",
                others.join("; ")
            );
        }
    }
}

/// The ratio, and MB/s of compressing and decoding.
fn round(batches: &[Batch]) -> (f64, f64, f64) {
    let plain: usize = batches
        .iter()
        .map(|batch| wire_bytes(&batch.attributes(), batch.data().len()))
        .sum();
    let lines: usize = batches.iter().map(|batch| batch.data().len()).sum();
    let began = Instant::now();
    let sent: Vec<_> = batches.iter().map(Batch::compressed).collect();
    let compressing = began.elapsed();
    let wire: usize = sent
        .iter()
        .map(|(attributes, data)| wire_bytes(attributes, data.len()))
        .sum();
    let began = Instant::now();
    for (attributes, data) in sent {
        let attributes = attributes.iter().map(|(name, value)| (*name, &**value)).collect();
        black_box(Batch::from_message(&attributes, data).unwrap());
    }
    let reading = began.elapsed();
    let rate = |took: std::time::Duration| lines as f64 / 1e6 / took.as_secs_f64();
    (wire as f64 / plain as f64, rate(compressing), rate(reading))
}

/// The billed bytes of a message: data, and names and values of attributes.
fn wire_bytes(attributes: &[(&'static str, String)], data: usize) -> usize {
    data + attributes
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
}

/// Ratio and MB/s of another zstd level.
fn other_level(batches: &[Batch], level: i32) -> String {
    let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
    let began = Instant::now();
    let (mut from, mut to) = (0, 0);
    for batch in batches {
        from += batch.data().len();
        to += compressor.compress(batch.data()).unwrap().len();
    }
    let rate = from as f64 / 1e6 / began.elapsed().as_secs_f64();
    format!("{level}: {:.3}, {rate:.0}", to as f64 / from as f64)
}

/// Batches of as many whole lines as fit `size`.
fn batches(text: &[u8], size: usize) -> Vec<Batch> {
    let metadata = Arc::new(StreamMetadata {
        app: "shop".parse().unwrap(),
        process: "web-7d4b9c6f5d-x2x9z".to_owned(),
        stream: StreamId::new(
            "0aca61f6-5f9b-41d7-ae58-715b5c102af3",
            "web",
            "89b8f8ec33db31227bf0475f11e2a43b6eb4b17220550335238cc2c47cb72777",
            Epoch::new(),
        )
        .unwrap(),
        node: "gke-pool-1-7c9f".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    });
    let (mut batches, mut rest, mut seq) = (Vec::new(), text, 0);
    while let Some(end) = rest[..rest.len().min(size)].iter().rposition(|byte| *byte == b'\n') {
        let (data, left) = rest.split_at(end + 1);
        let lines = data.iter().filter(|byte| **byte == b'\n').count() as u64;
        batches.push(Batch {
            metadata: Arc::clone(&metadata),
            seq,
            content: Content::Lines {
                data: data.to_vec().into(),
                lines,
                part: None,
            },
        });
        (rest, seq) = (left, seq + lines);
    }
    batches
}

fn generated(line: impl Fn(&mut SmallRng) -> String) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(9);
    let (mut text, mut nanos) = (Vec::with_capacity(TOTAL), 0u64);
    while text.len() < TOTAL {
        nanos += random.random_range(1_000..4_000_000);
        let (second, nanos) = (nanos / 1_000_000_000 % 60, nanos % 1_000_000_000);
        text.extend_from_slice(format!("2026-11-23T07:00:{second:02}.{nanos:09}Z {}\n", line(&mut random)).as_bytes());
    }
    text
}

fn access_line(random: &mut SmallRng) -> String {
    let ip: [u8; 4] = random.random();
    let (path, id) = (
        ["cart", "products", "login", "api/v2/orders"][random.random_range(0..4)],
        random.random_range(0..1_000_000),
    );
    let status = [200, 200, 200, 204, 302, 404, 500][random.random_range(0..7)];
    format!(
        "{}.{}.{}.{} - - \"GET /{path}/{id} HTTP/1.1\" {status} {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\" {}ms",
        ip[0],
        ip[1],
        ip[2],
        ip[3],
        random.random_range(100..90_000),
        random.random_range(1..900)
    )
}

fn json_line(random: &mut SmallRng) -> String {
    let (trace, user): (u128, u32) = (random.random(), random.random());
    let (level, message) = (
        ["info", "info", "info", "warn", "error"][random.random_range(0..5)],
        ["request done", "cache miss", "job enqueued", "payment accepted"][random.random_range(0..4)],
    );
    format!(
        "{{\"level\":\"{level}\",\"msg\":\"{message}\",\"trace_id\":\"{trace:032x}\",\"user\":{user},\"duration_ms\":{}}}",
        random.random_range(1..900)
    )
}
