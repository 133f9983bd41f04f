//! The key of an app's newest batch, kept apart from the segments.
//!
//! A segment that was cut or removed is whole in itself. The file `newest` says up to which key
//! batches were accepted. It is written after each sync and not synced itself: after a crash it is
//! at most as high as the newest segment.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use system::files::{self, File, OpenOptions};

use super::offset;

/// The file of an app.
pub(super) struct Newest {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    writes: u64,
}

impl Newest {
    /// Returns the file of a topic's directory, and the stored key if there is a valid one.
    pub(super) fn open(dir: &Path) -> (Self, Option<u64>) {
        let path = dir.join("newest");
        let stored = files::read(&path).ok().and_then(|bytes| offset::decode_key(&bytes));
        let state = Mutex::default();
        (Self { path, state }, stored)
    }

    /// Stores a key. A failure is ignored: an older key detects less.
    pub(super) fn store(&self, key: u64) {
        let mut state = self.state.lock();
        if state.file.is_none() {
            state.file = OpenOptions::new().write(true).create(true).open(&self.path).ok();
        }
        let slot = state.writes;
        if let Some(file) = &state.file
            && offset::write_key(file, slot, key).is_ok()
        {
            state.writes += 1;
        }
    }
}
