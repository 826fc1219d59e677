//! Questions of brokers, and their answers: a bounded number at a time, each in a task of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, warn};

use super::decision::Decision;
use super::{CheckHandler, Transaction};
use crate::client::{Question, TransactionChecker};
use crate::config::CheckConfig;
use crate::error::Error;
use crate::message::MessageExt;
use crate::producer::running::Running;
use crate::remoting::Address;

/// The open transactions of a producer: those that it has begun, and those that brokers ask about.
#[derive(Debug)]
pub(in crate::producer) struct Checks {
    /// Let go at the end: what it holds may hold the producer.
    handler: Mutex<Option<CheckHandler>>,
    /// What is being found out, with the last question about it: a broker that asks again has moved its half message,
    /// and an answer to the earlier question would leave the moved one open.
    asked: Mutex<HashMap<Key, Question>>,
    /// One for each question that is looked into or waits for its turn.
    places: Arc<Semaphore>,
    /// One for each that may be looked into at the same time.
    turns: Semaphore,
    limit: Duration,
    open: TaskTracker,
}

/// One transaction: its broker, and its message id there.
type Key = (Address, String);

impl Checks {
    pub(in crate::producer) fn new(handler: Option<CheckHandler>, config: &CheckConfig) -> Self {
        let (turns, waiting) = (config.concurrency as usize, config.queue as usize);
        Self {
            handler: Mutex::new(handler),
            asked: Mutex::default(),
            places: Arc::new(Semaphore::new(turns + waiting)),
            turns: Semaphore::new(turns),
            limit: config.timeout,
            open: TaskTracker::new(),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.handler().is_some()
    }

    /// Says that something is under way, for as long as it lives.
    pub(super) fn open(&self) -> TaskTrackerToken {
        self.open.token()
    }

    /// Waits until nothing is under way, for at most `limit`; returns how much still is. Nothing new begins meanwhile.
    pub(in crate::producer) async fn drained(&self, limit: Duration) -> usize {
        self.open.close();
        // Whether it was in time shows in the number that is left.
        let _ = time::timeout(limit, self.open.wait()).await;
        self.open.len()
    }

    /// Asks nobody any more.
    pub(in crate::producer) fn forget(&self) {
        self.handler().take();
    }

    /// Notes a question; `false` where one about the same transaction is being looked into.
    fn note(&self, key: Key, question: Question) -> bool {
        self.asked().insert(key, question).is_none()
    }

    fn handler(&self) -> MutexGuard<'_, Option<CheckHandler>> {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Key, Question>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is looked into. It is forgotten when that ends, however it ends.
struct Asked {
    running: Arc<Running>,
    /// `None` once it is taken.
    key: Option<Key>,
}

impl Asked {
    /// The last question about the transaction. One that comes from now on is looked into anew.
    fn take(&mut self) -> Option<Question> {
        let key = self.key.take()?;
        self.running.checks.asked().remove(&key)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.take();
    }
}

impl TransactionChecker for Running {
    fn check(self: Arc<Self>, question: Question) {
        let (address, message) = (Arc::clone(&question.address), question.message.clone());
        let message_id = message.message_id().into_owned();
        let handler = self.checks.handler().clone().filter(|_| !self.closed.is_cancelled());
        let Some(handler) = handler else {
            return debug!(group = %self.group, %address, message_id, "the producer stops, the broker has to ask another one");
        };
        let Ok(place) = Arc::clone(&self.checks.places).try_acquire_owned() else {
            return warn!(
                group = %self.group, %address, message_id, topic = message.topic(),
                "as many checks run and wait as may (`check.concurrency`, `check.queue`): this one is not run, the broker will ask again",
            );
        };
        let key = (address, message_id);
        if !self.checks.note(key.clone(), question) {
            return;
        }
        let asked = Asked { running: Arc::clone(&self), key: Some(key) };
        let open = self.checks.open();
        self.tasks.clone().spawn("transaction check", async move {
            self.answer(&handler, message, asked).await;
            drop((open, place));
        });
    }
}

impl Running {
    async fn answer(&self, handler: &CheckHandler, message: MessageExt, mut asked: Asked) {
        let _turn = tokio::select! {
            biased;
            () = self.closed.cancelled() => return,
            turn = self.checks.turns.acquire() => turn,
        };
        let check = Decision::of(handler.call(message));
        let decision = tokio::select! {
            () = self.tasks.stopping().cancelled() => return,
            decided = time::timeout(self.checks.limit, check) => decided.unwrap_or_else(|_| {
                Decision::unknown(format!("the check was not done after {:?} (`check.timeout`)", self.checks.limit))
            }),
        };
        let Some(question) = asked.take() else { return };
        let (group, address) = (&self.group, &question.address);
        let (topic, message_id) = (question.message.topic(), question.message.message_id());
        match (decision.transaction, &decision.reason) {
            (Transaction::Unknown, Some(reason)) => {
                warn!(%group, topic, %message_id, check = handler.place(), reason, "a check failed: the transaction stays open, the broker will ask again");
            }
            (transaction, _) => debug!(%group, topic, %message_id, %transaction, "a check has decided"),
        }
        if let Err(error) = self.end_checked(&question, &decision).await {
            warn!(%group, topic, %message_id, %address, %error, cause = %Error::chain(&error), "the broker did not hear what has become of a transaction, it will ask again");
        }
    }
}
