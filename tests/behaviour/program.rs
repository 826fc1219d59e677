//! A program of its own, such as `tests/member.rs`: a member that is killed, or told to stop.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::seen::Seen;
use crate::server::{Server, unique};
use crate::wait;

/// A running program. Dropping it kills it.
pub(crate) struct Program {
    process: Child,
    reader: JoinSet<()>,
    config: PathBuf,
    /// What it says that it has begun with.
    pub(crate) begun: Seen,
}

impl Program {
    /// Starts a program whose listener takes the messages of `topic` for `group`, each of which takes it `pause`. What
    /// it says that it has handled is noted in `seen`.
    pub(crate) fn start(
        server: &Server,
        group: &str,
        topic: &str,
        pause: Duration,
        seen: &Seen,
    ) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_member"));
        command.env("MEMBER_PAUSE_MS", pause.as_millis().to_string());
        Self::spawn(command, server, group, topic, "", seen)
    }

    /// The same program, to which the broker hands out messages one by one, each for `invisible_time`.
    pub(crate) fn start_popping(
        server: &Server,
        group: &str,
        topic: &str,
        pause: Duration,
        invisible_time: Duration,
        seen: &Seen,
    ) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_member"));
        command.env("MEMBER_PAUSE_MS", pause.as_millis().to_string());
        let defaults = format!(", mode: pop, pop: {{ invisible_time: {}ms }}", invisible_time.as_millis());
        Self::spawn(command, server, group, topic, &defaults, seen)
    }

    /// Starts `tests/orderly_member.rs`, which writes what it does into `book`.
    pub(crate) fn start_orderly(server: &Server, group: &str, topic: &str, book: &Path) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orderly_member"));
        command.env("MEMBER_BOOK", book);
        Self::spawn(command, server, group, topic, "", &Seen::default())
    }

    /// Starts `tests/transactional.rs`, whose producer of `group` sends to `topic` what it is [told](Self::tell). What it
    /// says is noted in `seen`.
    pub(crate) fn start_transactional(
        server: &Server,
        group: &str,
        topic: &str,
        ledger: &Path,
        seen: &Seen,
    ) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_transactional"));
        command.env("PROGRAM_LEDGER", ledger).env("PROGRAM_TOPIC", topic).stdin(Stdio::piped());
        let text = format!(
            "name_servers: {}\nproducers:\n  payments: {{ group: {group}, transaction: true, send_timeout: 15s }}\n",
            server.name_server()
        );
        Self::launch(command, &text, seen)
    }

    /// Says these lines to it.
    pub(crate) async fn tell(&mut self, lines: impl IntoIterator<Item = &String>) -> Result<()> {
        let input = self.process.stdin.as_mut().context("it listens")?;
        for line in lines {
            input.write_all(format!("{line}\n").as_bytes()).await?;
        }
        Ok(input.flush().await?)
    }

    /// `defaults` is what the file says of every group beside the usual.
    fn spawn(
        mut command: Command,
        server: &Server,
        group: &str,
        topic: &str,
        defaults: &str,
        seen: &Seen,
    ) -> Result<Self> {
        command.stdin(Stdio::null());
        let text = format!(
            "name_servers: {}\nvars: {{ member.group: {group}, member.topic: {topic} }}\n\
             client: {{ shutdown_timeout: 10s }}\ndefaults: {{ consume_from: first, suspend: 20ms{defaults} }}\n",
            server.name_server()
        );
        Self::launch(command, &text, seen)
    }

    fn launch(mut command: Command, text: &str, seen: &Seen) -> Result<Self> {
        let config = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("member")).with_extension("yaml");
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut process =
            command.env("ROCKETMQ_CONFIG", &config).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("its output is a pipe")?).lines();
        let (seen, begun) = (seen.clone(), Seen::default());
        let begins = begun.clone();
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match line.strip_prefix("begin ") {
                    Some(body) => begins.note_body(body),
                    None => seen.note_body(&line),
                }
            }
        });
        Ok(Self { process, reader, config, begun })
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> Result<u32> {
        self.process.id().context("it has ended by itself")
    }

    /// SIGKILL: nothing in it can react.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.process.kill().await?;
        self.end().await.map(drop)
    }

    /// The same in the middle of its work; `done` is what it has finished. Returns what it had begun with.
    pub(crate) async fn kill_at_work(self, done: &Seen) -> Result<BTreeSet<String>> {
        let begun = self.begun.clone();
        let in_hand = || -> BTreeSet<_> { begun.bodies().difference(&done.bodies()).cloned().collect() };
        wait::until("it has something to do", async || Ok(!in_hand().is_empty())).await?;
        self.kill().await?;
        ensure!(!in_hand().is_empty(), "it was killed when it had nothing");
        Ok(in_hand())
    }

    /// SIGTERM, once; waits for its end, for at most `limit`.
    pub(crate) async fn terminate(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal().await?;
        time::timeout(limit, self.end()).await.with_context(|| format!("it did not end within {limit:?}"))?
    }

    /// SIGTERM until it has ended, for at most `limit`.
    pub(crate) async fn terminate_again_and_again(mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            self.signal().await?;
            if let Ok(ended) = time::timeout(Duration::from_millis(50), self.end()).await {
                return ended;
            }
        }
        bail!("it did not end within {limit:?}")
    }

    async fn signal(&self) -> Result<()> {
        let id = self.id()?;
        // The shell has `kill` built in; this crate forbids `unsafe`.
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await?;
        ensure!(sent.success(), "the signal was not sent");
        Ok(())
    }

    /// Waits for its end, and for the last of its output.
    async fn end(&mut self) -> Result<ExitStatus> {
        let status = self.process.wait().await?;
        while self.reader.join_next().await.is_some() {}
        Ok(status)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Best effort: it is in `target`.
        drop(std::fs::remove_file(&self.config));
    }
}
