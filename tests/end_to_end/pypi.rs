//! Programs from PyPI, each in its own virtual environment, kept between runs.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, sync::OnceCell};

/// A program of a package at a fixed release.
pub struct Program {
    /// `name==release`.
    pub release: &'static str,
    pub name: &'static str,
    /// If this variable is set, a missing program fails the tests.
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

    /// Returns the path; `None`, with a line on stderr, if the program cannot be installed.
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
        let (program, complete) = (home.join("bin").join(self.name), home.join("complete"));
        if complete.exists() {
            return Ok(program);
        }
        let python = home.join("bin/python");
        run_step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home)).await?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run_step(Command::new(python).args(pip).arg(self.release)).await?;
        std::fs::write(complete, "").map_err(|error| error.to_string())?;
        Ok(program)
    }
}

async fn run_step(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(180), output).await;
    let output = output.map_err(|_| "no result within three minutes".to_owned())?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(stderr.lines().last().unwrap_or("it failed").to_owned())
}
