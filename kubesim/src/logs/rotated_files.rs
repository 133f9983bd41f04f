//! Rotated log files of a container instance: the kubelet removes and compresses them.

use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use system::files::{self, File, OpenOptions, Reader};

use super::cri_files::with_suffix;

/// Makes room for one more rotated file: removes the oldest files and compresses the others.
///
/// *Errors*: those of the file system.
pub(super) fn clean(current: &Path, max_files: usize) -> io::Result<()> {
    let (unfinished, rotated): (Vec<_>, Vec<_>) =
        list(current)?.into_iter().partition(|path| has_extension(path, "tmp"));
    for path in unfinished {
        files::remove_file(&path)?;
    }
    // One of `max_files` is the current file, and the current file becomes a rotated one.
    let surplus = rotated.len().saturating_sub(max_files.saturating_sub(2));
    for (at, path) in rotated.iter().enumerate() {
        if at < surplus {
            files::remove_file(path)?;
        } else if !has_extension(path, "gz") {
            compress(path)?;
        }
    }
    Ok(())
}

/// Returns the rotated files, sorted by name. The kubelet takes that for their order, which it is
/// not after the clock or the time zone stepped back.
///
/// *Errors*: those of the file system.
pub(super) fn list(current: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = current.parent().unwrap_or(Path::new("."));
    let name = current.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{name}.");
    let rotated = files::list(dir)?.into_iter();
    let rotated = rotated.filter(|entry| entry.name.starts_with(&prefix));
    Ok(rotated.map(|entry| dir.join(entry.name)).collect())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|own| own == extension)
}

fn compress(path: &Path) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    // Left over from an earlier attempt, it would be appended to.
    let options = OpenOptions::new().append(true).create_new(true);
    let mut gz = GzEncoder::new(Appender(options.open(&temporary)?), Compression::fast());
    let mut plain = io::BufReader::new(Reader::new(File::open(path)?));
    io::copy(&mut plain, &mut gz)?;
    gz.finish()?;
    files::rename(&temporary, &with_suffix(path, ".gz"))?;
    files::remove_file(path)
}

/// Writes to the end of a file.
struct Appender(File);

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(&mut [IoSlice::new(bytes)])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
