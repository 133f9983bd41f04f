//! The stored offset of a durable subscription.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use system::{
    collections::HashSet,
    files::{self, File, OpenOptions},
};

/// The offset file of a subscription that is being read: the key up to which all batches are
/// acknowledged.
///
/// *Shape*: two slots of [`SLOT`] bytes, each a key in decimal and its CRC-32. They are written in
/// turns, so that one of them is whole if a write is torn; the higher valid key counts.
pub(super) struct Offset {
    file: File,
    writes: AtomicU64,
    _reservation: Reservation,
}

/// Bytes of a slot.
const SLOT: usize = 30;

impl Offset {
    /// Opens the file and returns the stored offset. A subscription without a file begins at
    /// `newest`; one with a damaged file, or that had a file (`is_known`), at 0, which redelivers
    /// batches and skips none. A key above
    /// `newest` belongs to batches that the topic has lost. The file is durable when this returns.
    pub(super) fn open(path: &Path, reservation: Reservation, is_known: bool, newest: u64) -> io::Result<(Self, u64)> {
        let stored = match files::read(path) {
            Ok(bytes) => Some(decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(file = %path.display(), "subscription offset damaged, redelivering all batches");
                Stored::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_known => {
                tracing::warn!(file = %path.display(), "subscription offset missing, redelivering all batches");
                Some(Stored::default())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let acked = stored.map_or(newest, |stored| stored.acked.min(newest));
        // A file that can be used as it is needs no space on a full disk.
        let used = stored.filter(|stored| stored.is_current && stored.acked == acked);
        if used.is_none() {
            files::replace(path, encode(acked).repeat(2).as_bytes())?;
        }
        let offset = Self {
            file: OpenOptions::new().write(true).open(path)?,
            writes: AtomicU64::new(used.map_or(0, |stored| stored.slot + 1)),
            _reservation: reservation,
        };
        Ok((offset, acked))
    }

    /// Stores the offset, without a sync. After a crash of the process the file holds the old or
    /// the new value; after a crash of the machine possibly an older one, and batches acknowledged
    /// since are redelivered.
    pub(super) fn store(&self, acked: u64) -> io::Result<()> {
        write_key(&self.file, self.writes.fetch_add(1, Ordering::Relaxed), acked)
    }
}

/// Writes a key to the slot of the so-many-th write, without a sync.
pub(super) fn write_key(file: &File, write: u64, key: u64) -> io::Result<()> {
    file.write_at(encode(key).as_bytes(), write % 2 * SLOT as u64)
}

/// Returns the highest valid key; `None` if there is none.
pub(super) fn decode_key(bytes: &[u8]) -> Option<u64> {
    decode(bytes).map(|stored| stored.acked)
}

fn encode(acked: u64) -> String {
    let key = format!("{acked:020}");
    format!("{key} {:08x}\n", crc32fast::hash(key.as_bytes()))
}

/// What a file holds.
#[derive(Clone, Copy, Default)]
struct Stored {
    acked: u64,
    /// The slot of the key; the other one is written next.
    slot: u64,
    /// Whether the file has both slots. Earlier versions stored the key alone.
    is_current: bool,
}

/// Returns what is stored; `None` if the file is damaged.
fn decode(bytes: &[u8]) -> Option<Stored> {
    let is_current = bytes.len() == 2 * SLOT;
    let slots = (0..).zip(bytes.chunks(SLOT)).filter_map(|(slot, bytes)| {
        let acked = std::str::from_utf8(bytes.get(..20)?).ok()?.parse().ok()?;
        let is_valid = bytes == encode(acked).as_bytes() || (bytes.len() == 20 && slot == 0);
        is_valid.then_some(Stored {
            acked,
            slot,
            is_current,
        })
    });
    slots.max_by_key(|stored| stored.acked)
}

/// Reserves a subscription for one reader until it is dropped.
pub(super) struct Reservation {
    path: PathBuf,
    all: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Reservation {
    /// Reserves the subscription of this file; `None` if it has a reader.
    pub(super) fn new(path: &Path, all: &Arc<Mutex<HashSet<PathBuf>>>) -> Option<Self> {
        let free = all.lock().insert(path.to_owned());
        free.then(|| Self {
            path: path.to_owned(),
            all: Arc::clone(all),
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.all.lock().remove(&self.path);
    }
}
