//! Which rare branches of the product the simulations reach.
//!
//! The product marks them with `system::probe!("name")`, which is nothing in a build without the
//! simulation.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The crates whose probes count.
const CRATES: [&str; 5] = ["bus", "collector", "registry", "sinks", "streamer"];

/// Returns the names of all probes in the product's source code.
///
/// # Errors
/// It cannot be read.
pub fn probes_in_source() -> anyhow::Result<BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = BTreeSet::new();
    let mut dirs: Vec<PathBuf> = CRATES.iter().map(|name| root.join(name).join("src")).collect();
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                names.extend(
                    text.split("probe!(\"")
                        .skip(1)
                        .filter_map(|rest| rest.split_once('"'))
                        .map(|(name, _)| name.to_owned()),
                );
            }
        }
    }
    Ok(names)
}
