use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time;

use super::jars::Jars;
use super::java::Program;
use super::name_server::NameServer;

/// Runs one command of Apache's administration tool and returns what it printed.
pub(super) async fn run(jars: &Jars, name_server: &NameServer, args: &[&str]) -> Result<String> {
    let mut command = Command::from(Program::Admin.command(jars, name_server.home(), &BTreeMap::new())?);
    command.args(args).args(["-n", &name_server.addr().to_string()]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = time::timeout(Duration::from_secs(60), output)
        .await
        .with_context(|| format!("mqadmin {} did not end within a minute", args.join(" ")))?
        .context("cannot run java")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let has_failed = !output.status.success() || errors.contains("SubCommandException");
    ensure!(!has_failed, "mqadmin {} failed ({}):\n{printed}{errors}", args.join(" "), output.status);
    Ok(printed)
}
