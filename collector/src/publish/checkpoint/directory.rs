//! The checkpoint directory: whose it is, and what else is in it.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use system::{
    clock::wall,
    files::{self, File, OpenOptions},
};

use super::{Damage, recovery::generation_of};
use crate::error::CollectorError;

/// The first file in a new directory. Locked while a collector uses the directory; holds the
/// [`watermark`](super::watermark).
const LOCK_FILE: &str = "lock";

/// Directory of the database that held the checkpoints in earlier versions.
const FORMER_DIR: &str = "keyspaces";

/// Opens the directory for this collector only, and creates it if it does not exist. The returned
/// file keeps it locked. Also returns whether no collector has used the directory before.
///
/// # Errors
/// [`CollectorError::InUse`] if another collector uses the directory, [`CollectorError::Open`] if it
/// cannot be used.
pub fn lock(dir: &Path) -> Result<(File, bool), CollectorError> {
    let is_new = check_contents(dir).map_err(|reason| cannot_open(dir, reason))?;
    let locked = files::create_dir_all(dir)
        .and_then(|()| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .open(&dir.join(LOCK_FILE))
        })
        .and_then(|file| Ok((file.try_lock()?, file)));
    match locked {
        Ok((true, file)) => Ok((file, is_new)),
        Ok((false, _)) => Err(CollectorError::InUse(dir.to_owned())),
        Err(error) => Err(cannot_open(dir, error.to_string())),
    }
}

/// Returns the error of a directory that cannot be used.
pub fn cannot_open(dir: &Path, reason: String) -> CollectorError {
    CollectorError::Open {
        dir: dir.to_owned(),
        reason,
    }
}

/// Removes what a kill has left of an unfinished generation.
pub fn remove_temporary_files(dir: &Path) -> io::Result<()> {
    for entry in files::list(dir)? {
        if entry.name.strip_suffix(".tmp").and_then(generation_of).is_some() {
            files::remove_file(&dir.join(entry.name))?;
        }
    }
    Ok(())
}

/// Moves the database of an earlier version to a directory beside the checkpoints. The spool, which
/// this version reads, stays. It is not moved out of the directory, which may be a volume.
pub fn set_aside_former_store(dir: &Path) -> io::Result<Option<Damage>> {
    let entries = files::list(dir)?;
    if !entries.iter().any(|entry| entry.name == FORMER_DIR && entry.is_dir) {
        return Ok(None);
    }
    let set_aside = dir.join(format!("database.set-aside-{}", wall().as_millis()));
    files::create_dir_all(&set_aside)?;
    // The directory goes last: after a kill it shows that the rest must follow.
    let is_file = |name: &str| name == "version" || name.ends_with(".jnl");
    let names = entries.iter().map(|entry| entry.name.as_str());
    for name in names.filter(|name| is_file(name)).chain([FORMER_DIR]) {
        files::rename(&dir.join(name), &set_aside.join(name))?;
    }
    Ok(Some(Damage {
        reason: "the checkpoints were written by an earlier version".to_owned(),
        set_aside: Some(set_aside),
    }))
}

/// Rejects a directory with other content, which must not be written to. Returns whether it has no
/// lock file.
fn check_contents(dir: &Path) -> Result<bool, String> {
    let entries = match files::list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Err("not a directory".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    // Volumes have `lost+found`. A spool may remain where an operator has removed checkpoints.
    let is_generation = |name: &str| generation_of(name.strip_suffix(".tmp").unwrap_or(name)).is_some();
    let is_ours = |name: &str| ["lost+found", "spool"].contains(&name) || is_generation(name);
    let has_lock = entries.iter().any(|entry| entry.name == LOCK_FILE);
    if has_lock || entries.iter().all(|entry| is_ours(&entry.name)) {
        Ok(!has_lock)
    } else {
        Err("it contains files that are not checkpoints".to_owned())
    }
}
