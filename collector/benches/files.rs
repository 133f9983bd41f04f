//! The cost of a line of a container's file from the page cache to the batch: read, parse,
//! assemble, number, slice.
//!
//! `joined` leaves out reading the file, which is up to the operating system.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{fs::File, hint::black_box, io::Read, time::Duration};

use bus::{Fd, Timestamp};
use collector::{files::assemble::LineAssembler, stream::lines::Lines};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{LINE_BYTES, LINES, take_above};

/// Read size.
const READ_BYTES: usize = 256 * 1024;

/// Creates a file of lines at intervals of `apart`; every `partial_every`th line is continued by
/// the next entry.
fn file(apart: Duration, partial_every: Option<usize>) -> Vec<u8> {
    let mut file = Vec::with_capacity(LINES * (LINE_BYTES + 10));
    for n in 0..LINES {
        let time = Timestamp(1_795_417_200_000_000_001 + n as i64 * apart.as_nanos() as i64);
        let tag = if partial_every.is_some_and(|every| n % every == 0) {
            'P'
        } else {
            'F'
        };
        let text = format!("line {n} ");
        file.extend_from_slice(format!("{time} stdout {tag} {text}").as_bytes());
        file.resize(file.len() + LINE_BYTES - 32 - text.len(), b'x');
        file.push(b'\n');
    }
    file
}

/// Reads a whole file as a container's task does under load.
fn read(mut file: impl Read, buffer: &mut [u8], assembler: &mut LineAssembler, lines: &mut Lines) -> u64 {
    let (mut rest, mut count) = (0, 0);
    loop {
        let read = file.read(&mut buffer[rest..]).unwrap_or_default();
        if read == 0 {
            break;
        }
        let filled = rest + read;
        let end = memchr::memrchr(b'\n', &buffer[..filled]).map_or(0, |newline| newline + 1);
        assembler.lines(&buffer[..end]);
        lines.push(assembler.frame(Fd::Out));
        assembler.clear();
        buffer.copy_within(end..filled, 0);
        rest = filled - end;
        count += take_above(bus::MAX_BATCH_BYTES, lines);
    }
    count + take_above(0, lines)
}

fn files(c: &mut Criterion) {
    let mut group = c.benchmark_group("files");
    group.throughput(Throughput::Elements(LINES as u64));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    let mut buffer = vec![0; READ_BYTES];
    let (mut assembler, mut lines) = (LineAssembler::default(), Lines::default());
    for (name, apart, partial_every) in [
        ("loud", Duration::from_micros(10), None),
        ("quiet", Duration::from_secs(2), None),
        ("parts", Duration::from_micros(10), Some(2)),
    ] {
        let data = file(apart, partial_every);
        std::fs::write(&path, &data).expect("a file");
        let open = || File::open(&path).expect("the file");
        let expected = if partial_every.is_some() { LINES / 2 } else { LINES };
        assert_eq!(read(open(), &mut buffer, &mut assembler, &mut lines), expected as u64);
        group.bench_function(name, |b| {
            b.iter(|| read(open(), &mut buffer, &mut assembler, &mut lines))
        });
        group.bench_function(format!("{name}, joined"), |b| {
            b.iter(|| read(black_box(&data[..]), &mut buffer, &mut assembler, &mut lines))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::config();
    targets = files
}
criterion_main!(benches);
