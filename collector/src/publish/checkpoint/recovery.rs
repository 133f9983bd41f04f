//! Reads a journal after a restart, whatever happened to it.

use std::{io, path::Path};

use system::files;

use super::record::{Decoded, Entries, HEADER_BYTES, Header, Record};

/// What the files of a journal contain.
#[derive(Default)]
pub struct Recovered {
    pub entries: Entries,
    /// The sequence number of the next record.
    pub next_seq: u64,
    /// The highest generation, readable or not; 0 if there is none.
    pub newest: u64,
    /// All generations, and whether each is damaged.
    pub generations: Vec<(u64, bool)>,
    /// Why the entries may not be the newest ones.
    pub damage: Option<String>,
}

/// The content of one generation.
#[derive(Default)]
struct Generation {
    entries: Entries,
    next_seq: u64,
    is_readable: bool,
    is_damaged: bool,
    damage: Option<&'static str>,
}

/// Returns the file name of a generation.
pub fn file_name(generation: u64) -> String {
    format!("checkpoints.{generation}")
}

/// Returns the generation that a file name denotes.
pub fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoints.")?.parse().ok()
}

/// Reads the newest readable generation.
///
/// # Errors
/// A file cannot be read; that may be temporary and says nothing of its content.
pub fn recover(dir: &Path) -> io::Result<Recovered> {
    let mut numbers: Vec<u64> = files::list(dir)?
        .iter()
        .filter_map(|entry| generation_of(&entry.name))
        .collect();
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    let mut recovered = Recovered {
        newest: numbers.first().copied().unwrap_or_default(),
        ..Recovered::default()
    };
    let mut is_found = false;
    for number in numbers {
        if is_found {
            // The kill of a collector left it beside its successor.
            recovered.generations.push((number, false));
            continue;
        }
        let generation = read_generation(&files::read(&dir.join(file_name(number)))?);
        recovered.generations.push((number, generation.is_damaged));
        is_found = generation.is_readable;
        // What an unreadable generation contained is missing, even if an older one is whole.
        recovered.damage = recovered.damage.or(generation.damage.map(str::to_owned));
        (recovered.entries, recovered.next_seq) = (generation.entries, generation.next_seq);
    }
    Ok(recovered)
}

/// Reads all records that are valid. A record that was cut off at the end is no damage: the process
/// was killed while it wrote the record and before it used it.
fn read_generation(bytes: &[u8]) -> Generation {
    let header = Header::decode(bytes);
    let mut generation = Generation::default();
    let mut expected = header.map(|header| header.first_seq);
    let mut at = HEADER_BYTES;
    let mut is_damaged = header.is_none();
    while at < bytes.len() {
        match Record::decode(&bytes[at..]) {
            Decoded::Record(record, len) if expected.is_none_or(|expected| record.seq >= expected) => {
                is_damaged |= expected != Some(record.seq);
                expected = Some(record.seq + 1);
                apply(&record, &mut generation.entries);
                at += len;
            }
            Decoded::CutOff => break,
            // The next valid record is searched for byte by byte.
            Decoded::Record(..) | Decoded::Damaged => {
                is_damaged = true;
                at += 1;
            }
        }
    }
    generation.is_readable = expected.is_some();
    generation.next_seq = expected.unwrap_or_default();
    is_damaged |= header.is_some_and(|header| generation.next_seq - header.first_seq < u64::from(header.records));
    generation.is_damaged = is_damaged;
    generation.damage = match header {
        _ if is_damaged => Some("the checkpoint file is damaged"),
        Some(header) if header.is_incomplete => Some("the last checkpoints could not be written"),
        _ => None,
    };
    generation
}

fn apply(record: &Record<'_>, entries: &mut Entries) {
    match record.value {
        Some(value) => drop(entries.insert(record.key.to_vec(), value.to_vec())),
        None => drop(entries.remove(record.key)),
    }
}
