use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::availability::Availability;
use super::run_dir;
use super::version::Version;

/// The folder with everything one release needs on its class path, and the `java` to run it with.
#[derive(Debug, Clone)]
pub(super) struct Jars {
    pub(super) version: Version,
    pub(super) folder: PathBuf,
    pub(super) java: PathBuf,
}

impl Jars {
    /// Asks Maven once for each release, and never again until `target` is deleted.
    pub(super) async fn resolve(version: Version) -> Result<Self> {
        static ONCE: [OnceCell<()>; Version::ALL.len()] =
            [const { OnceCell::const_new() }; Version::ALL.len()];
        let java = Availability::detect().java.context("no `java` in JAVA_HOME or PATH")?;
        let folder = folder(version);
        ONCE[version as usize].get_or_try_init(|| download(version, &folder)).await?;
        Ok(Self { version, folder, java })
    }
}

/// Whether the jars of this release are here, so that Maven is not needed.
pub(super) fn are_resolved(version: Version) -> bool {
    folder(version).is_dir()
}

fn folder(version: Version) -> PathBuf {
    run_dir::servers().join(format!("lib-{version}"))
}

/// Maven fills a folder of our own, which then gets its name in one step: whoever sees the folder
/// sees all of it, whichever of several test binaries came first and whoever died on the way.
async fn download(version: Version, folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let staging = folder.with_extension(format!("{}.partial", process::id()));
    fs::create_dir_all(&staging).with_context(|| format!("cannot create {}", staging.display()))?;
    let outcome = copy_dependencies(version, &staging).await;
    if outcome.is_ok() && fs::rename(&staging, folder).is_ok() {
        return Ok(());
    }
    fs::remove_dir_all(&staging).with_context(|| format!("cannot delete {}", staging.display()))?;
    outcome?;
    ensure!(folder.is_dir(), "cannot move the jars to {}", folder.display());
    Ok(())
}

async fn copy_dependencies(version: Version, into: &Path) -> Result<()> {
    let maven = Availability::detect().maven.context("no `mvn` in PATH, and the jars are not here yet")?;
    let pom = into.join("pom.xml");
    fs::write(&pom, include_str!("../pom.xml"))?;
    let output = Command::new(maven)
        .args(["--quiet", "--batch-mode", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-Drocketmq.version={version}"))
        .arg(format!("-DoutputDirectory={}", into.display()))
        .arg("--file")
        .arg(&pom)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run mvn")?;
    ensure!(
        output.status.success(),
        "mvn could not fetch RocketMQ {version} ({}); without a network, leave Apache's servers out with \
         ROCKETMQ_TEST_SERVERS=embedded:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
    );
    Ok(())
}
