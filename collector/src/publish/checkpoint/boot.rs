//! Detects that the machine has stopped since checkpoints were written.
//!
//! Checkpoints are not synced, so after a loss of power they can be older than what the bus has. The
//! journal contains the id of the boot in which it was written, or that the collector has shut down
//! after a sync. In any other boot its entries prove nothing.

use std::path::Path;

use system::files;

/// Identifies the current boot of the machine, for all containers on it.
///
/// *Source*: random(4). Systems other than Linux have none: a loss of power is not detected there.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The value after a graceful shutdown.
pub const SHUT_DOWN: &[u8] = b"shut down";

/// Returns the id of the current boot; empty if the system has none.
pub fn current() -> Vec<u8> {
    let mut id = [0; 64];
    let read = files::File::open(Path::new(BOOT_ID)).and_then(|file| file.read_at(&mut id, 0));
    id[..read.unwrap_or_default()].trim_ascii().to_vec()
}

/// Returns whether entries that were written with this value are the newest ones.
pub fn is_trusted(written: &[u8], current: &[u8]) -> bool {
    written == SHUT_DOWN || written == current
}
