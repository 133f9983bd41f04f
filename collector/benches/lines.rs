//! The cost of a line from the frame of a log response to the batch: copy, search, number, slice.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{hint::black_box, time::Duration};

use bus::Timestamp;
use collector::stream::lines::Lines;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{LINE_BYTES, LINES, take_above};

/// The size of a frame of a container with high volume.
const FRAME_BYTES: usize = 32 * 1024;

/// Creates a log of lines at intervals of `apart`.
fn log(apart: Duration) -> Vec<u8> {
    let mut log = Vec::with_capacity(LINES * LINE_BYTES);
    for n in 0..LINES as i64 {
        let time = Timestamp(1_795_417_200_000_000_000 + n * apart.as_nanos() as i64);
        let line = format!("{time} line {n} ");
        log.extend_from_slice(line.as_bytes());
        log.resize(log.len() + LINE_BYTES - 1 - line.len(), b'x');
        log.push(b'\n');
    }
    log
}

fn read(lines: &mut Lines, log: &[u8]) -> u64 {
    let mut count = 0;
    for frame in log.chunks(FRAME_BYTES) {
        lines.push(frame);
        // As while a publish is in flight: one batch at a time.
        count += take_above(bus::MAX_BATCH_BYTES, lines);
    }
    count + take_above(0, lines)
}

fn lines(c: &mut Criterion) {
    let mut group = c.benchmark_group("lines");
    group.throughput(Throughput::Elements(LINES as u64));
    for (name, apart) in [("loud", Duration::from_micros(10)), ("quiet", Duration::from_secs(2))] {
        let log = log(apart);
        let mut lines = Lines::default();
        assert_eq!(read(&mut lines, &log), LINES as u64);
        group.bench_function(name, |b| b.iter(|| read(&mut lines, black_box(&log))));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::config();
    targets = lines
}
criterion_main!(benches);
