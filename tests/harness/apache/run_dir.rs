use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// `target/rocketmq-servers` of this workspace.
pub(super) fn servers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rocketmq-servers")
}

/// The home of one Java process: `conf/`, `store/`, `logs/` and what it printed.
#[derive(Debug)]
pub(super) struct RunDir(PathBuf);

impl RunDir {
    pub(super) fn create(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let runs = servers().join("run");
        sweep(&runs);
        let unique = format!("{}-{}-{name}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = runs.join(unique);
        // Process ids come round again: what an earlier process of the same number left is stale.
        remove(&path);
        fs::create_dir_all(path.join("conf")).with_context(|| format!("cannot create {}", path.display()))?;
        // Java is told absolute paths, and prints them: no `tests/../target`.
        Ok(Self(path.canonicalize()?))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// What the process printed, as far as it got.
    pub(super) fn output(&self) -> PathBuf {
        self.0.join("output.log")
    }

    /// Writes `conf/<name>` and returns its path.
    pub(super) fn write_conf(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join("conf").join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub(super) fn remove_store(&self) {
        remove(&self.store());
    }

    pub(super) fn remove(&self) {
        remove(&self.0);
    }
}

/// Deletes the logs that nobody read within a day.
fn sweep(runs: &Path) {
    const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
    let is_old = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|data| data.modified());
        modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| KEPT < age))
    };
    for entry in fs::read_dir(runs).into_iter().flatten().flatten().filter(is_old) {
        remove(&entry.path());
    }
}

/// Best effort: a test must not fail because somebody looks into its folder, or it was never there.
fn remove(path: &Path) {
    drop(fs::remove_dir_all(path));
}
