//! What came of messages, as tests look at it.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use super::fail;
use crate::client::namespace;
use crate::consumer::{Entry, Fate};
use crate::listener::ConsumeResult;
use crate::message::MessageExt;

/// One call of a listener, for one message.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// The group.
    pub group: String,
    /// The listener, for example `app::on_order`.
    pub listener: String,
    /// The message, as the listener got it.
    pub message: MessageExt,
    /// 1 when the message was delivered for the first time.
    pub attempt: u32,
    /// What the listener decided; of one that failed or was not called, what the policy of its group makes of that.
    pub result: ConsumeResult,
    /// What became of the message.
    pub fate: Fate,
    /// The error with its causes, where there was one; what a panic said; why the message does not decode.
    pub error: Option<String>,
}

impl Attempt {
    pub(super) fn new(entry: Entry, prefix: Option<&str>) -> Self {
        let Entry { group, listener, message, fate, result, error } = entry;
        let group = namespace::strip(prefix, &group).to_owned();
        let attempt = message.reconsume_times().saturating_add(1);
        Self { group, listener, message, attempt, result, fate, error }
    }
}

/// `orders: app::on_order (attempt 2): given back, to be delivered again: the database is away`
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (attempt {}): {}", self.group, self.listener, self.attempt, self.fate)?;
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

/// What came of one message that a test sent: one [`Attempt`] for each group that subscribes to it.
#[derive(Debug, Clone)]
pub struct Delivered {
    topic: String,
    attempts: Vec<Attempt>,
    /// How long it waits before anybody gets it.
    waits: Option<Duration>,
}

impl Delivered {
    pub(super) fn new(topic: String, attempts: Vec<Attempt>, waits: Option<Duration>) -> Self {
        Self { topic, attempts, waits }
    }

    /// All attempts, in the order of time.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// What the one listener decided that got the message.
    ///
    /// # Panics
    ///
    /// Where none got it, or several did.
    #[track_caller]
    pub fn only(&self) -> ConsumeResult {
        self.one().result
    }

    /// The one listener that got the message, for example `app::on_order`.
    ///
    /// # Panics
    ///
    /// Where none got it, or several did.
    #[track_caller]
    pub fn listener(&self) -> &str {
        &self.one().listener
    }

    /// What became of the message in the one group that got it.
    ///
    /// # Panics
    ///
    /// Where none got it, or several did.
    #[track_caller]
    pub fn fate(&self) -> Fate {
        self.one().fate
    }

    /// The error of the one listener that got the message, where it failed.
    ///
    /// # Panics
    ///
    /// Where none got it, or several did.
    #[track_caller]
    pub fn error(&self) -> Option<&str> {
        self.one().error.as_deref()
    }

    /// What came of it in `group`.
    ///
    /// # Panics
    ///
    /// Where that group did not get it.
    #[track_caller]
    pub fn of(&self, group: &str) -> &Attempt {
        match self.attempts.iter().find(|attempt| attempt.group == group) {
            Some(attempt) => attempt,
            None => fail(&format!("group `{group}` did not get the message. {self}")),
        }
    }

    /// Nobody got the message: no subscription fits it, or its time has not come.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    #[track_caller]
    fn one(&self) -> &Attempt {
        match self.attempts.as_slice() {
            [attempt] => attempt,
            [] => fail(&self.to_string()),
            _ => fail(&format!("more than one listener got the message. {self}")),
        }
    }
}

impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = &self.topic;
        if let Some(left) = self.waits {
            let left = Duration::from_millis(left.as_micros().div_ceil(1_000) as u64);
            let left = humantime::format_duration(left);
            return write!(
                f,
                "the message for {topic} waits for its time, another {left}: `advance` moves time"
            );
        }
        if self.attempts.is_empty() {
            return write!(
                f,
                "no listener got the message for {topic}: none subscribes to the topic with its tag"
            );
        }
        write!(f, "of the message for {topic} came:")?;
        self.attempts.iter().try_for_each(|attempt| write!(f, "\n  {attempt}"))
    }
}

/// A message in a dead letter queue. It is one ([`Deref`]).
#[derive(Debug, Clone)]
pub struct DeadLetter {
    message: MessageExt,
    reason: String,
}

impl DeadLetter {
    pub(super) fn new(message: MessageExt, history: &[Attempt]) -> Self {
        let last = history.iter().rfind(|attempt| attempt.message.message_id() == message.message_id());
        let reason = match last {
            Some(Attempt { error: Some(error), attempt: 1, .. }) => error.clone(),
            Some(Attempt { error: Some(error), attempt, .. }) => {
                format!("given up after {attempt} attempts: {error}")
            }
            Some(Attempt { result: ConsumeResult::DeadLetter, .. }) => "its listener said so".to_owned(),
            Some(Attempt { attempt, .. }) => format!("given up after {attempt} attempts"),
            None => "no listener had it".to_owned(),
        };
        Self { message, reason }
    }

    /// The message, as it stands in the queue.
    pub fn message(&self) -> &MessageExt {
        &self.message
    }

    /// Why it is there, for example `bad payload: expected value at line 1 column 1`.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Deref for DeadLetter {
    type Target = MessageExt;

    fn deref(&self) -> &MessageExt {
        &self.message
    }
}
