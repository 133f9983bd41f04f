//! Creates directories and files that contain log lines, accessible by their owner only.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// Creates a directory and its parents with mode 0700. Existing ones are not changed.
pub(super) fn create_dir_all(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Returns options that create files with mode 0600.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn new_directories_and_files_are_accessible_by_their_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        create_dir_all(&dir).unwrap();
        options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("file"))
            .unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            [mode(&root.path().join("a")), mode(&dir), mode(&dir.join("file"))],
            [0o700, 0o700, 0o600]
        );
    }
}
