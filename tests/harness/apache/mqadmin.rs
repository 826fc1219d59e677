use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time;

use super::Version;
use super::jars::Jars;
use super::java::Program;
use super::run_dir::RunDir;

/// Runs one command of Apache's administration tool, of this release, with the name server of whoever it is, and returns
/// what it printed. Takes three to four seconds, most of which it spends on ending. A command that the
/// tool gave up is given again, twice: what it does may be done more than once.
///
/// # Errors
///
/// Java or Maven is missing, or the command failed, by its exit code or, since `mqadmin` likes to exit with 0, its output.
pub async fn mqadmin(version: Version, name_server: &str, args: &[&str]) -> Result<String> {
    /// Each takes a processor for seconds, in which the tool's own time limits run.
    static AT_ONCE: Semaphore = Semaphore::const_new(2);
    let _turn = AT_ONCE.acquire().await?;
    let jars = Jars::resolve(version).await?;
    let home = RunDir::create("mqadmin")?;
    let printed = run(&jars, &home, name_server, args).await;
    home.remove();
    printed
}

/// The same in a home that is there already. Files that the command writes are put there.
pub(super) async fn run(jars: &Jars, home: &RunDir, name_server: &str, args: &[&str]) -> Result<String> {
    let mut printed = run_once(jars, home, name_server, args).await;
    for _ in 0..2 {
        // The tool gives up after five seconds, which a busy machine may take for its start alone.
        let is_timeout = |error: &anyhow::Error| error.to_string().contains("RemotingTimeoutException");
        if printed.as_ref().is_err_and(is_timeout) {
            printed = run_once(jars, home, name_server, args).await;
        }
    }
    printed
}

async fn run_once(jars: &Jars, home: &RunDir, name_server: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::from(Program::Admin.command(jars, home, &BTreeMap::new())?);
    command.current_dir(home.path()).args(args).args(["-n", name_server]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = time::timeout(Duration::from_secs(60), output)
        .await
        .with_context(|| format!("mqadmin {} did not end within a minute", args.join(" ")))?
        .context("cannot run java")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let has_failed = !output.status.success()
        || errors.contains("SubCommandException")
        || errors.contains("RemotingTimeoutException");
    ensure!(!has_failed, "mqadmin {} failed ({}):\n{printed}{errors}", args.join(" "), output.status);
    Ok(printed)
}
