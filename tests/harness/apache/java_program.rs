use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Version;
use super::jars::Jars;
use super::java;
use super::process::Process;
use super::run_dir::RunDir;
use super::supervisor::Signal;
use super::wait;

/// What a JVM needs to compile and start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Java's client gives up where the first request of its start fails, which happens on a busy machine.
const STARTS: u32 = 3;

/// A small program against a release's own client, in one source file: what Apache's users would write.
///
/// It ends with this value, or with the test process, whichever is first.
#[derive(Debug)]
pub struct JavaProgram {
    process: Process,
    command: Command,
    starts_left: u32,
    /// How much of the output is of earlier starts.
    old_output: usize,
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
        let process = Process::new(format!("{name} {version}"), home);
        let mut program = Self { process, command, starts_left: STARTS, old_output: 0 };
        program.spawn()?;
        Ok(program)
    }

    fn spawn(&mut self) -> Result<()> {
        self.starts_left -= 1;
        self.old_output = self.output().len();
        self.process.spawn(&self.command)
    }

    fn output(&self) -> String {
        let output = fs::read(self.process.home().output()).unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Starts it again if its client could not be started, also where threads of that client keep it alive.
    async fn ensure_alive(&mut self) -> Result<()> {
        let alive = self.process.ensure_alive();
        let output = self.output();
        let client_did_not_start = output.get(self.old_output..).is_some_and(|output| {
            output.contains("Impl.start(") && output.contains("remoting.exception.Remoting")
        });
        if !client_did_not_start {
            return alive;
        }
        self.process.end(Signal::Kill).await?;
        if self.starts_left == 0 { bail!("its client could not be started") } else { self.spawn() }
    }

    /// Waits until it has printed so many lines that begin with `prefix`, and returns what follows there.
    ///
    /// # Errors
    ///
    /// It does not in time, or ends before; the error holds the end of its output.
    pub async fn lines(&mut self, prefix: &str, count: usize) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let printed = wait::until(PATIENCE, &format!("{count} lines {prefix:?}"), async || {
            // Before its output is read: what it printed last counts, too.
            let alive = self.ensure_alive().await;
            let output = self.output();
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
