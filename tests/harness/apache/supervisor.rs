use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::wait;

/// A Java process under a small shell that kills it as soon as this process is gone: by the end of
/// a pipe, which comes with every kind of death, SIGKILL included. See `supervisor.sh`.
///
/// The child is the standard library's, not tokio's: a shared server outlives the runtime of the
/// test that started it. Dropping this closes the pipe, so the process is killed then too.
#[derive(Debug)]
pub(super) struct Supervised {
    shell: Child,
    /// The way to send a signal; this process forbids `unsafe`, the shell has `kill`.
    signals: ChildStdin,
}

/// What a process can be told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    /// Ends it between two instructions.
    Kill,
    /// Asks it to end.
    Term,
}

impl Supervised {
    /// Starts `java` with all that it prints going to `output.log` in its home.
    pub(super) fn spawn(java: &Command, home: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", include_str!("supervisor.sh"), "supervisor"]).arg(home);
        command.arg(java.get_program()).args(java.get_args());
        for (key, value) in java.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        // Not our own output: a pipe behind `cargo test` would stay open as long as Java runs.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Not our process group: what Ctrl-C or a hang-up does to us must not end the shell before Java.
        command.process_group(0);
        let mut shell = command.spawn().context("cannot start sh")?;
        let signals = shell.stdin.take().context("the shell has no standard input")?;
        Ok(Self { shell, signals })
    }

    /// The exit code, once Java has ended.
    pub(super) fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.shell.try_wait().context("cannot ask for the state of a child")
    }

    /// Sends the signal and returns when the process is gone.
    pub(super) async fn end(mut self, signal: Signal) -> Result<()> {
        self.send(signal);
        wait::until(Duration::from_secs(60), "the process to end", async || Ok(self.exit_status()?.is_some()))
            .await
    }

    /// As `end` with a kill, for a destructor: it blocks for the few milliseconds that this takes.
    pub(super) fn kill_now(mut self) {
        self.send(Signal::Kill);
        // It can fail only for a child that was waited for already, which is what we want.
        drop(self.shell.wait());
    }

    fn send(&mut self, signal: Signal) {
        let line: &[u8] = match signal {
            Signal::Kill => b"KILL\n",
            Signal::Term => b"TERM\n",
        };
        // It can fail only when nobody reads, because the process has ended.
        drop(self.signals.write_all(line));
    }
}
