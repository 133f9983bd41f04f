//! Puts rotated files in the order in which they were written.
//!
//! Their names carry the node's local time, which goes back in winter and when the clock is set; the
//! kubelet takes their order for the files' age when it compresses and removes them. What holds at
//! any time: the current file is the newest, and of the rotated ones only the newest is not
//! compressed. The rest follow each other: the first line of a file is printed soon after the last
//! one of the file before it. Where the clock was set, these times are apart or out of order. A
//! runtime stamps lines slightly out of order at any time.

use super::{listing::ListedFile, log_file::read_time_span, path::Name};

/// With more files the names decide: the number of orders is the factorial. A node keeps 5.
const MAX_COMPARED: usize = 7;

/// Lines are out of order by less than this, in nanoseconds, unless the clock was set back: the runtime
/// stamps each when it reads it, and writes it at once.
const MAX_DISORDER: u64 = 100_000_000;

/// A file, and whether files between it and the one before it may be missing.
#[derive(Clone, Debug)]
pub struct OrderedFile {
    pub listed: ListedFile,
    pub after_gap: bool,
}

/// A file and the times of its first and last line, in nanoseconds since 1970.
struct Candidate {
    listed: ListedFile,
    span: Option<(i64, i64)>,
}

/// Orders files as they were written; `first` is known to come before them, and is not returned.
///
/// The kubelet removes files by their names. Where the order of the names is not the order of the
/// files, it may have removed one from their middle.
pub fn order(files: Vec<ListedFile>, first: Option<&ListedFile>) -> Vec<OrderedFile> {
    if let [_] = files[..]
        && first.is_none_or(|first| is_in_order(&first.name, &files[0].name))
    {
        return files.into_iter().map(|listed| ordered(listed, false)).collect();
    }
    let (current, rotated): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.name == Name::Current);
    let (plain, compressed): (Vec<_>, Vec<_>) = rotated.into_iter().partition(|file| !file.is_gz);
    let (mut free, pinned) = match plain.len() {
        1 => (compressed, plain),
        // A compression failed.
        _ => (compressed.into_iter().chain(plain).collect(), Vec::new()),
    };
    free.sort_by(|one, other| one.name.cmp(&other.name));
    let candidate = |listed: ListedFile| Candidate {
        span: read_time_span(&listed.path, listed.is_gz),
        listed,
    };
    let before: Option<Candidate> = first.cloned().map(candidate);
    let free: Vec<_> = free.into_iter().map(candidate).collect();
    let pinned: Vec<_> = pinned.into_iter().chain(current).map(candidate).collect();
    let best = if (2..=MAX_COMPARED).contains(&free.len()) {
        best_order(&free, before.as_ref(), pinned.first())
    } else {
        (0..free.len()).collect()
    };
    let mut free: Vec<_> = free.into_iter().map(Some).collect();
    let sorted = best.into_iter().filter_map(|index| free[index].take());
    let mut all: Vec<OrderedFile> = Vec::new();
    let mut previous = before;
    for next in sorted.collect::<Vec<_>>().into_iter().chain(pinned) {
        let after_gap = previous.as_ref().is_some_and(|previous| {
            goes_back(previous, &next) || !is_in_order(&previous.listed.name, &next.listed.name)
        });
        all.push(ordered(next.listed.clone(), after_gap));
        previous = Some(next);
    }
    all
}

fn ordered(listed: ListedFile, after_gap: bool) -> OrderedFile {
    OrderedFile { listed, after_gap }
}

/// Nothing lies between the newest rotated file and the current one.
fn is_in_order(before: &Name, after: &Name) -> bool {
    *after == Name::Current || before < after
}

/// Returns the order in which the times of neighbours are closest. That is the order of the times, if
/// the clock was not set. Of equal ones, the first in the order of the names.
fn best_order(free: &[Candidate], before: Option<&Candidate>, after: Option<&Candidate>) -> Vec<usize> {
    let mut best = (u64::MAX, Vec::new());
    permute(&mut Vec::new(), free.len(), &mut |order| {
        let chain = before
            .into_iter()
            .chain(order.iter().map(|index| &free[*index]))
            .chain(after);
        let chain: Vec<_> = chain.collect();
        let distances = chain.windows(2).map(|pair| distance(pair[0], pair[1]));
        let cost = distances.fold(0, u64::saturating_add);
        if cost < best.0 {
            best = (cost, order.to_vec());
        }
    });
    best.1
}

/// Calls `visit` with all orders of `count` indexes, in ascending order.
fn permute(order: &mut Vec<usize>, count: usize, visit: &mut impl FnMut(&[usize])) {
    if order.len() == count {
        return visit(order);
    }
    for index in 0..count {
        if !order.contains(&index) {
            order.push(index);
            permute(order, count, visit);
            order.pop();
        }
    }
}

/// Returns whether the clock was set back between two files.
fn goes_back(one: &Candidate, other: &Candidate) -> bool {
    match (one.span, other.span) {
        (Some((_, last)), Some((first, _))) => first < last && last.abs_diff(first) >= MAX_DISORDER,
        _ => false,
    }
}

/// Returns the time between the last line of a file and the first one of another, in either direction.
fn distance(one: &Candidate, other: &Candidate) -> u64 {
    match (one.span, other.span) {
        (Some((_, last)), Some((first, _))) => last.abs_diff(first),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, path::Path};

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::files::listing::list;

    /// Writes a file whose lines have these seconds.
    fn write(dir: &Path, name: &str, seconds: &[u32]) {
        let micros: Vec<_> = seconds.iter().map(|second| second * 1_000_000).collect();
        write_micros(dir, name, &micros);
    }

    fn write_micros(dir: &Path, name: &str, micros: &[u32]) {
        let line = |micros: &u32| {
            let (second, micros) = (micros / 1_000_000, micros % 1_000_000);
            let (minute, second) = (second / 60, second % 60);
            format!("2026-10-25T00:{minute:02}:{second:02}.{micros:06}Z stdout F x\n")
        };
        let text: String = micros.iter().map(line).collect();
        let file = fs::File::create(dir.join(name)).unwrap();
        if name.ends_with(".gz") {
            let mut gz = GzEncoder::new(file, Compression::fast());
            gz.write_all(text.as_bytes()).unwrap();
            gz.finish().unwrap();
        } else {
            (&file).write_all(text.as_bytes()).unwrap();
        }
    }

    fn names(dir: &Path, first: Option<&str>) -> Vec<(String, bool)> {
        let mut listed = list(dir, 0).unwrap();
        let name = |file: &ListedFile| file.path.file_name().unwrap().to_str().unwrap().to_owned();
        let first = first.map(|first| listed.remove(listed.iter().position(|file| name(file) == first).unwrap()));
        let ordered = order(listed, first.as_ref());
        ordered
            .iter()
            .map(|file| (name(&file.listed), file.after_gap))
            .collect()
    }

    #[test]
    fn files_that_were_rotated_in_the_repeated_hour_are_read_in_the_order_of_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, "0.log.20261025-025959.gz", &[1, 2, 3]);
        write(dir, "0.log.20261025-020100.gz", &[4, 5]);
        write(dir, "0.log.20261025-020050.gz", &[7, 8]);
        write(dir, "0.log.20261025-020040", &[9, 10]);
        write(dir, "0.log", &[11]);
        let expected = [
            ("0.log.20261025-020100.gz", true),
            ("0.log.20261025-020050.gz", true),
            ("0.log.20261025-020040", true),
            ("0.log", false),
        ];
        let expected = expected.map(|(name, after_gap)| (name.to_owned(), after_gap));
        assert_eq!(names(dir, Some("0.log.20261025-025959.gz")), expected);
    }

    #[test]
    fn files_in_the_order_of_their_names_have_no_gap() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, "0.log.20261025-010000.gz", &[1, 2]);
        write(dir, "0.log.20261025-010100", &[3]);
        write(dir, "0.log", &[]);
        assert_eq!(
            names(dir, None),
            ["0.log.20261025-010000.gz", "0.log.20261025-010100", "0.log"].map(|name| (name.to_owned(), false))
        );
    }

    #[test]
    fn lines_that_are_slightly_out_of_order_say_nothing_about_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write_micros(dir, "0.log.20261025-010000.gz", &[10_000_000, 20_000_001]);
        write_micros(dir, "0.log.20261025-010010.gz", &[20_000_000, 30_000_001]);
        write_micros(dir, "0.log.20261025-010020", &[30_000_000, 40_000_001]);
        write_micros(dir, "0.log", &[40_000_000]);
        let expected = [
            "0.log.20261025-010000.gz",
            "0.log.20261025-010010.gz",
            "0.log.20261025-010020",
            "0.log",
        ];
        assert_eq!(names(dir, None), expected.map(|name| (name.to_owned(), false)));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_a_gap_possible() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, "0.log.20261025-010000.gz", &[100, 110]);
        write(dir, "0.log.20261025-010001", &[50]);
        write(dir, "0.log", &[51]);
        let expected = [("0.log.20261025-010001", true), ("0.log", false)].map(|(name, gap)| (name.to_owned(), gap));
        assert_eq!(names(dir, Some("0.log.20261025-010000.gz")), expected);
    }
}
