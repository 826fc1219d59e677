//! The kit for the tests of an application (feature `testing`): the real client, with a server and a clock of its own.
//!
//! [`App::builder`] starts what [`run`](crate::run) would start (the listeners of the program, the configuration file, the
//! checks) on an embedded server that belongs to this test, within milliseconds; many run side by side in one process.
//! Routing, decoding, the policy for failures, sending and stopping are the code that runs in production. What takes
//! minutes there takes a call here: [`App::advance`] moves the time by which messages wait.
//!
//! ```standalone_crate
//! use std::time::Duration;
//!
//! use rocketmq::{ConsumeContext, ConsumeResult, Message, MessageExt, Result, testing};
//!
//! #[rocketmq::listener(group = "orders", topic = "order-events", tag = "paid")]
//! async fn on_order(message: MessageExt, context: ConsumeContext) -> Result<()> {
//!     match context.attempt() {
//!         1 => Err(rocketmq::Error::other("the database is not there yet")),
//!         _ => Ok(()),
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] // #[tokio::test] in a test
//! # async fn main() -> Result<()> {
//! # let config = rocketmq::Config::default();
//! let app = testing::App::builder().config_value(config).start().await?;
//!
//! let delivered = app.deliver(Message::new("order-events").tag("paid").body("42")).await;
//! assert_eq!(delivered.only(), ConsumeResult::ReconsumeLater);
//!
//! app.advance(Duration::from_secs(60)).await; // it is delivered again after ten seconds
//! assert_eq!(app.attempts("orders"), 2);
//! assert!(app.dead_letters("orders").is_empty());
//! app.shutdown().await
//! # }
//! ```
//!
//! Put it into the `dev-dependencies` of an application:
//!
//! ```toml
//! [dev-dependencies]
//! rocketmq = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # Without a server
//!
//! A listener stays a plain function, which a test may call: `on_order(message, context).await`. [`Incoming`] makes what
//! it takes.
//!
//! # Time
//!
//! Delays, retries, `consume_timeout`, the pauses of an orderly group and what else messages wait for run by a clock of the
//! test, which goes with the system's and is moved by [`App::advance`]. Connections, answers and heartbeats run by the
//! system's clock, so that moving the other one breaks nothing. Code of yours that sleeps does not notice: let it take its
//! time from your own state, as any code under test. Do not use tokio's paused time (`start_paused`): it jumps
//! whenever a test waits for a socket.
//!
//! # Failures
//!
//! What a test expects and does not find is a panic that says what was there instead. So is anything that the kit waits
//! for longer than [`AppBuilder::limit`]; the text lists what is not settled, and which listener has it.

mod attempt;
mod builder;
mod decided;
mod incoming;
mod settle;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

pub use self::attempt::{Attempt, DeadLetter, Delivered};
pub use self::builder::AppBuilder;
pub use self::incoming::Incoming;
pub use crate::consumer::Fate;

use self::decided::Decided;
use crate::app::Instruments;
use crate::client::namespace;
use crate::error::Result;
use crate::message::{Message, MessageExt};
use crate::producer::{Producer, SendResult};

/// An application in a test. It is one ([`Deref`]): pause a group, look at its health, take its producers.
///
/// Dropping it ends everything at once, as if the process had been killed; [`shutdown`](Self::shutdown) ends it
/// gracefully, as production does.
pub struct App {
    /// `None` once it is shut down.
    app: Option<crate::App>,
    /// What [`Deref`] gives, and all else but the end uses.
    instruments: Instruments,
    limit: Duration,
    patience: Duration,
    decided: Decided,
    /// The ids of what the test itself has sent.
    own: Mutex<HashSet<String>>,
    /// Where broadcast groups keep their offsets, for as long as the test runs.
    folder: PathBuf,
}

impl App {
    /// Begins an application.
    pub fn builder() -> AppBuilder {
        AppBuilder::new()
    }

    fn new(
        app: crate::App,
        instruments: Instruments,
        limit: Duration,
        patience: Duration,
        decided: Decided,
        folder: PathBuf,
    ) -> Self {
        Self { app: Some(app), instruments, limit, patience, decided, own: Mutex::default(), folder }
    }

    /// Sends a message, and returns when it is stored; nobody need have had it yet.
    ///
    /// # Panics
    ///
    /// Where it cannot be sent.
    pub async fn send(&self, message: Message) -> SendResult {
        let topic = message.topic().to_owned();
        match self.default_producer().send(message).await {
            Ok(sent) => {
                self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(sent.message_id.clone());
                sent
            }
            Err(error) => {
                fail(&format!("the message for {topic} was not sent: {}", crate::Error::from(error)))
            }
        }
    }

    /// Sends `value` as JSON.
    ///
    /// # Panics
    ///
    /// Where it cannot be sent.
    pub async fn send_json(&self, topic: impl Into<String>, value: &impl Serialize) -> SendResult {
        self.send(Message::new(topic).json(value)).await
    }

    /// Sends a message and waits until each group that subscribes to it has handled it once: what came of that.
    ///
    /// A message that is to be delivered later has not been handled by anybody yet; [`advance`](Self::advance) to its time.
    ///
    /// # Panics
    ///
    /// Where it cannot be sent, or is not handled within the limit.
    pub async fn deliver(&self, message: Message) -> Delivered {
        let topic = message.topic().to_owned();
        let sent = self.send(message).await;
        let waits = self.app().servers().values().flat_map(crate::embedded::Server::scheduled);
        let waits =
            waits.filter(|(_, message)| message.message_id() == sent.message_id).map(|(left, _)| left);
        let waits = waits.min();
        if waits.is_none() {
            self.until_handled(&sent).await;
        }
        Delivered::new(topic, self.entries(|entry| entry.message.message_id() == sent.message_id), waits)
    }

    /// Waits until everything that was sent to `topic` has been handled by all groups that subscribe to it: what came of
    /// it, in the order of time.
    ///
    /// What waits for its time (a delay, another attempt) is left waiting: [`advance`](Self::advance) moves time. So
    /// is what a paused group has not been given.
    ///
    /// # Panics
    ///
    /// Where that takes longer than the limit.
    pub async fn handled(&self, topic: &str) -> Vec<Attempt> {
        self.until_settled(Some(topic)).await;
        self.entries(|entry| entry.message.topic() == topic)
    }

    /// Waits until nothing is left to do for anybody before time moves: what listeners sent has been handled as well.
    ///
    /// # Panics
    ///
    /// Where that takes longer than the limit.
    pub async fn idle(&self) {
        self.until_settled(None).await;
    }

    /// Moves time forward. Everything that becomes due on the way happens at its moment, one after the other: a message
    /// that is delivered again after 10 s and fails is there again 30 s later.
    ///
    /// Waits at each of these moments, and at the end, until listeners are done; but for those that take longer than
    /// [`AppBuilder::patience`], over which time moves on: how else would they reach their `consume_timeout`.
    ///
    /// # Panics
    ///
    /// Where something but a listener takes longer than the limit.
    pub async fn advance(&self, by: Duration) {
        self.move_on(by).await;
    }

    /// What time it is for the messages of this test: that of the system, and as far ahead as it was moved.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + self.instruments.clock.ahead()
    }

    /// How many times a message was handled by a listener of `group`; messages of a batch count each.
    ///
    /// # Panics
    ///
    /// Where there is no such group.
    pub fn attempts(&self, group: &str) -> usize {
        self.history(group).len()
    }

    /// What came of each of these, in the order of time.
    ///
    /// # Panics
    ///
    /// Where there is no such group.
    pub fn history(&self, group: &str) -> Vec<Attempt> {
        self.check_group(group);
        let wire_name = self.wire_name(group);
        self.entries(|entry| entry.group == wire_name)
    }

    /// The messages that `group` is done with.
    ///
    /// # Panics
    ///
    /// Where there is no such group.
    pub fn acknowledged(&self, group: &str) -> Vec<MessageExt> {
        self.messages_of(group, Fate::Acknowledged)
    }

    /// The messages that `group` gave back to be delivered again: once for each time.
    ///
    /// # Panics
    ///
    /// Where there is no such group.
    pub fn retried(&self, group: &str) -> Vec<MessageExt> {
        self.messages_of(group, Fate::Retried)
    }

    fn messages_of(&self, group: &str, fate: Fate) -> Vec<MessageExt> {
        let attempts = self.history(group).into_iter();
        attempts.filter(|attempt| attempt.fate == fate).map(|attempt| attempt.message).collect()
    }

    /// The messages in the dead letter queue of `group`, as an operator would find them, and why they are there.
    ///
    /// # Panics
    ///
    /// Where there is no such group.
    pub fn dead_letters(&self, group: &str) -> Vec<DeadLetter> {
        let history = self.history(group);
        let topic = format!("%DLQ%{}", self.wire_name(group));
        let messages = self.app().servers().values().flat_map(|server| server.messages(&topic));
        messages.map(|message| DeadLetter::new(message, &history)).collect()
    }

    /// The messages that stand in `topic`, but for those that the test itself sent: what listeners, and producers that
    /// the test took from the application, have sent there.
    ///
    /// What is to be delivered later is [`scheduled`](Self::scheduled) until then.
    pub fn sent(&self, topic: &str) -> Vec<MessageExt> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = self.wire_name(topic);
        let messages = self.app().servers().values().flat_map(|server| server.messages(&topic));
        let messages = messages.filter(|message| !own.contains(message.message_id().as_ref()));
        messages.map(|message| self.shown(message)).collect()
    }

    /// The messages that wait for their time, the next one first, and how long each still waits; those that are to be
    /// delivered again are among them.
    pub fn scheduled(&self) -> Vec<(Duration, MessageExt)> {
        let scheduled = self.app().servers().values().flat_map(crate::embedded::Server::scheduled);
        let mut scheduled: Vec<_> = scheduled.map(|(left, message)| (left, self.shown(message))).collect();
        scheduled.sort_by_key(|(left, _)| *left);
        scheduled
    }

    /// The messages of the transactions that are open: nobody gets them before they are committed.
    ///
    /// What has become of one is sent one way, so that it may stay here for a moment after it was decided;
    /// [`handled`](Self::handled), [`idle`](Self::idle) and [`advance`](Self::advance) wait for that.
    /// [`advance`](Self::advance) by more than six seconds has the server ask the check of their producer, and then
    /// again every 30 seconds, as brokers do.
    pub fn open_transactions(&self) -> Vec<MessageExt> {
        let open = self.app().servers().values().flat_map(crate::embedded::Server::half_messages);
        open.map(|message| self.shown(message)).collect()
    }

    /// The server of the default cluster: to look into it, or to break it.
    ///
    /// # Panics
    ///
    /// Where the default cluster is not used by anybody.
    pub fn server(&self) -> &crate::embedded::Server {
        self.server_of(crate::config::DEFAULT_CLUSTER)
    }

    /// The server that stands for a cluster of the configuration.
    ///
    /// # Panics
    ///
    /// Where there is no such cluster, or nobody uses it.
    pub fn server_of(&self, cluster: &str) -> &crate::embedded::Server {
        let servers = self.app().servers();
        servers.get(cluster).unwrap_or_else(|| {
            let used: Vec<_> = servers.keys().map(String::as_str).collect();
            fail(&format!(
                "no listener and no producer uses a cluster `{cluster}`; used are: {}",
                used.join(", ")
            ))
        })
    }

    /// Stops gracefully, as in production: running listeners may finish, offsets are stored, brokers are told.
    ///
    /// # Errors
    ///
    /// Where listeners had to be abandoned.
    pub async fn shutdown(mut self) -> Result<()> {
        match self.app.take() {
            Some(app) => app.shutdown().await,
            None => Ok(()),
        }
    }

    fn app(&self) -> &crate::App {
        // It is taken by the two that end it, and nobody has `self` after them.
        self.app.as_ref().expect("an application that was not shut down")
    }

    fn default_producer(&self) -> Producer {
        self.app()
            .producer(crate::config::DEFAULT_PRODUCER)
            .unwrap_or_else(|error| fail(&format!("the test cannot send: {error}")))
    }

    fn entries(&self, is_wanted: impl Fn(&crate::consumer::Entry) -> bool) -> Vec<Attempt> {
        let namespace = self.app().namespace();
        let entries = self.instruments.journal.entries(is_wanted).into_iter();
        entries.map(|entry| Attempt::new(entry, namespace.as_deref())).collect()
    }

    /// A test that misspells a group would else find that nothing went wrong in it.
    fn check_group(&self, group: &str) {
        if !self.app().consumers().any(|(_, known, _)| known == group) {
            let known: Vec<_> = self.app().consumers().map(|(_, group, _)| group).collect();
            fail(&format!("there is no group `{group}`; there are: {}", known.join(", ")))
        }
    }

    /// A message as its sender and its listeners know it.
    fn shown(&self, mut message: MessageExt) -> MessageExt {
        message.strip_namespace(&self.app().namespace().unwrap_or_default());
        message
    }

    /// A group or topic as it is on the wire.
    fn wire_name(&self, name: &str) -> String {
        namespace::wrap(self.app().namespace().as_deref(), name).to_string()
    }
}

impl Deref for App {
    type Target = crate::App;

    fn deref(&self) -> &crate::App {
        self.app()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(app) = self.app.take() {
            app.abandon();
            // Whoever still sleeps wakes up, and finds that it is over.
            self.instruments.clock.advance(Duration::MAX);
        }
        // It is there only if a group broadcasts, and holds nothing that anybody wants.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("app", &self.app).finish_non_exhaustive()
    }
}

/// What was expected is not so.
#[expect(clippy::panic, reason = "it is how a test fails")]
#[track_caller]
fn fail(text: &str) -> ! {
    panic!("{text}")
}
