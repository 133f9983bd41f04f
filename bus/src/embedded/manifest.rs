//! Lists of a topic's files, by which a missing file is noticed.
//!
//! *Shape*: lines of text, the last of which is the CRC-32 of those before it. A list that is
//! missing or damaged proves nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use system::files;

/// The file that lists closed segments: lower bound of the keys and length of each.
const SEGMENTS: &str = "segments";

/// The file that lists durable subscriptions.
const SUBSCRIPTIONS: &str = "subscriptions";

/// Reads the lengths of closed segments by the lower bounds of their keys.
pub(super) fn read_segments(dir: &Path) -> BTreeMap<u64, u64> {
    let entry = |line: &str| {
        let (first, len) = line.split_once(' ')?;
        Some((first.parse().ok()?, len.parse().ok()?))
    };
    read(&dir.join(SEGMENTS))
        .iter()
        .filter_map(|line| entry(line))
        .collect()
}

/// Writes the list of closed segments, durably.
///
/// # Errors
/// The disk refused it.
pub(super) fn write_segments(dir: &Path, segments: &BTreeMap<u64, u64>) -> io::Result<()> {
    let lines = segments.iter().map(|(first, len)| format!("{first} {len}"));
    write(&dir.join(SEGMENTS), lines)
}

/// Reads the file names of the durable subscriptions.
pub(super) fn read_subscriptions(dir: &Path) -> BTreeSet<String> {
    read(&dir.join(SUBSCRIPTIONS)).into_iter().collect()
}

/// Writes the file names of the durable subscriptions, durably.
///
/// # Errors
/// The disk refused it.
pub(super) fn write_subscriptions(dir: &Path, names: &BTreeSet<String>) -> io::Result<()> {
    write(&dir.join(SUBSCRIPTIONS), names.iter().cloned())
}

fn read(path: &Path) -> Vec<String> {
    let lines = files::read(path).ok().and_then(|bytes| decode(&bytes));
    lines.unwrap_or_default()
}

fn decode(bytes: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (lines, sum) = text
        .strip_suffix('\n')?
        .rsplit_once('\n')
        .unwrap_or(("", text.trim_end()));
    let is_valid = sum == format!("{:08x}", crc32fast::hash(lines.as_bytes()));
    is_valid.then(|| lines.lines().map(str::to_owned).collect())
}

fn write(path: &Path, lines: impl Iterator<Item = String>) -> io::Result<()> {
    let lines: Vec<_> = lines.collect();
    let lines = lines.join("\n");
    let sum = crc32fast::hash(lines.as_bytes());
    let separator = if lines.is_empty() { "" } else { "\n" };
    files::replace(path, format!("{lines}{separator}{sum:08x}\n").as_bytes())
}
