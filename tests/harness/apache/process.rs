use std::fs;
use std::process::Command;

use anyhow::{Error, Result, bail};

use super::run_dir::RunDir;
use super::supervisor::{Signal, Supervised};

/// One of a server's two programs with its home, running or not.
///
/// Dropping it kills the program and deletes the store. The logs stay, for they are small and the test may
/// be a failed one; the next start after a day deletes them. `stop` deletes them at once.
#[derive(Debug)]
pub(super) struct Process {
    /// What it is in error messages: `broker-a 5.5.0`.
    label: String,
    home: RunDir,
    running: Option<Supervised>,
}

impl Process {
    pub(super) fn new(label: String, home: RunDir) -> Self {
        Self { label, home, running: None }
    }

    pub(super) fn home(&self) -> &RunDir {
        &self.home
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn spawn(&mut self, java: &Command) -> Result<()> {
        self.running = Some(Supervised::spawn(java, self.home.path())?);
        Ok(())
    }

    /// # Errors
    ///
    /// It does not run, although it was meant to or because nobody started it.
    pub(super) fn ensure_alive(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { bail!("{} was not started", self.label) };
        let Some(status) = running.exit_status()? else { return Ok(()) };
        self.running = None;
        bail!("{} ended with {status}", self.label)
    }

    /// Ends it and returns when it is gone; does nothing if it does not run.
    pub(super) async fn end(&mut self, signal: Signal) -> Result<()> {
        match self.running.take() {
            Some(running) => running.end(signal).await,
            None => Ok(()),
        }
    }

    pub(super) async fn stop(mut self) -> Result<()> {
        self.end(Signal::Kill).await?;
        self.home.remove();
        Ok(())
    }

    /// Tells where its logs are. The test runner shows this for failed tests only.
    #[expect(clippy::print_stderr, reason = "what is printed this way the test runner captures")]
    pub(super) fn announce_logs(&self) {
        eprintln!("{}: logs in {}", self.label, self.home.path().display());
    }

    /// Where its logs are and how its output ends, for an error message.
    pub(super) fn last_words(&self) -> String {
        let output = fs::read(self.home.output()).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        // Not where in the Java code it happened: with that, the reason would be far above the end.
        let lines: Vec<&str> = output.lines().filter(|line| !line.starts_with("\tat ")).collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("see {}; its output ends:\n{tail}", self.home.path().display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill_now();
        }
        self.home.remove_store();
        if self.home.path().exists() {
            self.announce_logs();
        }
    }
}

/// Whether this start failed because somebody else got a port between our look and Java's.
pub(super) fn is_port_taken(error: &Error) -> bool {
    let text = format!("{error:#}");
    text.contains("BindException") || text.contains("Address already in use")
}
