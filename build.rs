//! Sets `VERSION_WITH_COMMIT`: the package version and, where it is known, the git commit.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script runs on the developer's machine"
)]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Overrides the commit, for builds without a git repository.
const COMMIT: &str = "TRIBUTARY_COMMIT";

/// Digits of the commit that `--version` prints.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed={COMMIT}");
    println!("cargo::rerun-if-changed=build.rs");
    let set = env::var(COMMIT).ok().filter(|commit| !commit.is_empty());
    let commit = set.or_else(from_git);
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match commit {
        Some(commit) => format!("{version} ({})", commit.get(..DIGITS).unwrap_or(&commit)),
        None => version,
    };
    println!("cargo::rustc-env=VERSION_WITH_COMMIT={version}");
}

/// The commit of this package's own repository; `None` without git, or in a source archive that was
/// unpacked inside another repository.
fn from_git() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let top = PathBuf::from(git(&root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // HEAD changes with a checkout, its log with every commit. Cargo reruns this script on every
    // build if a watched file does not exist.
    for name in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(&root, &["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&root, &["rev-parse", "HEAD"])
}

fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(dir).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
