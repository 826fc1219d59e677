use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Version;
use super::jars::Jars;
use super::java;
use super::process::Process;
use super::run_dir::RunDir;
use super::wait;

/// What a JVM needs to compile and start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A small program against a release's own client, in one source file: what Apache's users would write.
///
/// It ends with this value, or with the test process, whichever is first.
#[derive(Debug)]
pub struct JavaProgram {
    process: Process,
}

impl JavaProgram {
    /// Compiles and starts the class `name`, whose source is given, with the jars of `version`.
    ///
    /// # Errors
    ///
    /// Java or Maven is missing, or the jars cannot be had. What is wrong with the source shows in its output.
    pub async fn start(version: Version, name: &str, source: &str, arguments: &[&str]) -> Result<Self> {
        let jars = Jars::resolve(version).await?;
        let home = RunDir::create("program")?;
        let source = home.write_conf(&format!("{name}.java"), source)?;
        let logback = home.write_conf("logback.xml", "<configuration/>")?;
        let mut command = Command::new(&jars.java);
        command.args(java::FLAGS).args(["-Xms64m", "-Xmx256m"]);
        command.arg(format!("-Drmq.logback.configurationFile={}", logback.display()));
        command.arg(format!("-Dlogback.configurationFile={}", logback.display()));
        command.arg(format!("-Duser.home={}", home.path().display()));
        // A file in the place of a class is compiled in memory.
        command.arg("-cp").arg(format!("{}/*", jars.folder.display())).arg(source).args(arguments);
        command.env_remove("NAMESRV_ADDR");
        let mut process = Process::new(format!("{name} {version}"), home);
        process.spawn(&command)?;
        Ok(Self { process })
    }

    /// Waits until it has printed so many lines that begin with `prefix`, and returns what follows there.
    ///
    /// # Errors
    ///
    /// It does not in time, or ends before; the error holds the end of its output.
    pub async fn lines(&mut self, prefix: &str, count: usize) -> Result<Vec<String>> {
        let process = &mut self.process;
        let mut found = Vec::new();
        let printed = wait::until(PATIENCE, &format!("{count} lines {prefix:?}"), async || {
            // Before its output is read: what it printed last counts, too.
            let alive = process.ensure_alive();
            let output = fs::read(process.home().output()).unwrap_or_default();
            let output = String::from_utf8_lossy(&output);
            found = output.lines().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect();
            if found.len() < count { alive.map(|()| false) } else { Ok(true) }
        })
        .await;
        printed.with_context(|| {
            format!("the Java program did not do its part, {}", self.process.last_words())
        })?;
        Ok(found)
    }

    /// Ends it, and deletes all that it left on the disk.
    ///
    /// # Errors
    ///
    /// It could not be ended.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await
    }
}
