//! Shared by the benchmarks.

use std::{hint::black_box, time::Duration};

use collector::stream::lines::Lines;
use criterion::Criterion;

/// Bytes of a line, timestamp and newline included.
pub const LINE_BYTES: usize = 120;

/// Number of lines: several batches.
pub const LINES: usize = 40_000;

/// Takes batches while more than `most` bytes are buffered. Returns the number of lines.
pub fn take_above(most: usize, lines: &mut Lines) -> u64 {
    let mut count = 0;
    while lines.buffered_bytes() > most
        && let Some(slice) = lines.next_slice()
    {
        count += black_box(slice).lines;
    }
    count
}

/// Returns the measurement settings.
pub fn config() -> Criterion {
    Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1))
}
