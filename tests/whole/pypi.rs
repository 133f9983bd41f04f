//! Programs from PyPI, each in an environment of its own that stays for the next run.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, sync::OnceCell};

/// A program of a package, at one release.
pub struct Program {
    /// `name==release`.
    pub release: &'static str,
    pub name: &'static str,
    /// The variable that makes its absence a failure.
    pub required_by: &'static str,
    installed: OnceCell<Option<PathBuf>>,
}

impl Program {
    pub const fn new(release: &'static str, name: &'static str, required_by: &'static str) -> Self {
        Self {
            release,
            name,
            required_by,
            installed: OnceCell::const_new(),
        }
    }

    /// Where it is. `None`, with a line that says so, where it cannot be had.
    pub async fn installed(&self) -> Option<&Path> {
        let installed = self.installed.get_or_init(|| async {
            let installed = self.install().await;
            if let Err(reason) = &installed {
                let required = std::env::var_os(self.required_by).is_some();
                assert!(!required, "{} is required: {reason}", self.release);
                eprintln!("skipped: {} cannot be installed: {reason}", self.release);
            }
            installed.ok()
        });
        installed.await.as_deref()
    }

    async fn install(&self) -> Result<PathBuf, String> {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.release);
        let (program, whole) = (home.join("bin").join(self.name), home.join("whole"));
        if whole.exists() {
            return Ok(program);
        }
        let python = home.join("bin/python");
        step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home)).await?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        step(Command::new(python).args(pip).arg(self.release)).await?;
        std::fs::write(whole, "").map_err(|error| error.to_string())?;
        Ok(program)
    }
}

async fn step(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(180), output).await;
    let output = output.map_err(|_| "not within three minutes".to_owned())?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().last().unwrap_or("it failed").to_owned())
}
