//! Calls a listener and settles what came of it: done, sent back, dead letter, or once more here.
//!
//! A message is done only when its handler said so or the broker has taken it back. Source: `behaviour.md`
//! section 3.8.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, error, warn};

use super::Shared;
use super::hook::Call;
use super::journal::Fate;
use super::queue::OwnedQueue;
use super::stats::Tally;
use crate::config::{self, ConsumerConfig, RetryDelay};
use crate::listener::{BadPayload, BoxFuture, ConsumeResult, DelayLevel, Delivery, Handler, Outcome, Shape};
use crate::message::{MessageExt, MessageQueue};
use crate::tasks::{catch_panic, panic_message};

/// What could neither be handled nor sent back is given to its listener again after this time.
const RETRY_HERE: Duration = Duration::from_secs(5);
/// So often a broker may refuse to make an unreadable record a dead letter.
const MAX_REFUSALS: u32 = 3;
/// A handler that computes for so long without awaiting keeps the other messages of its queue waiting.
pub(super) const LONG_POLL: Duration = Duration::from_millis(1);
/// Straight to the dead letter queue.
pub(super) const DEAD_LETTER: i32 = -1;
/// The delay of a message whose handler took too long: 10 seconds. Source: `cleanExpiredMsg`.
const TIMED_OUT_LEVEL: i32 = 3;
/// What becomes of a message, for people.
pub(super) const SKIPPED: &str = "it is skipped, as `on_bad_payload` says";
pub(super) const DROPPED: &str =
    "it is dropped, as broadcast groups have neither retries nor a dead letter queue";

/// How a call ended; the policy turns it into a [`Verdict`].
#[derive(Debug)]
pub(super) enum Ending {
    Outcome(Outcome),
    Panicked(String),
    TimedOut,
}

/// What is to become of the messages of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All are done.
    Done,
    /// Those from this one on go back to the broker, with this delay level; those before it are done.
    Back { from: usize, level: i32 },
    /// This one goes back, or is passed over; the listener has not seen the others yet.
    Refuse { index: usize, level: Option<i32> },
}

impl Verdict {
    /// What counts as handled with success, and as failed, of so many messages.
    pub(super) fn tally(self, messages: usize) -> Tally {
        let (ok, failed, bad) = match self {
            Self::Done => (messages, 0, 0),
            Self::Back { from, .. } => (from, messages.saturating_sub(from), 0),
            Self::Refuse { .. } => (0, 1, 1),
        };
        Tally { ok: ok as u64, failed: failed as u64, bad_payloads: bad, ..Tally::default() }
    }
}

/// How a delivery went on after the first look.
pub(crate) enum Begun {
    /// It is all over. The permit is free for the next one.
    Finished { permit: OwnedSemaphorePermit, messages: u64, took: Duration },
    /// A task of its own sees to the rest.
    Running,
}

/// One call of a listener, and the permit without which there is none.
pub(crate) struct Attempt {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: Arc<OwnedQueue>,
    pub(crate) handler: Handler,
    pub(crate) delivery: Delivery,
}

impl Attempt {
    /// Calls the listener, and looks once whether it is done already: most handlers that need not wait for anything
    /// are, and then no task is needed. Whatever takes longer gets a task of its own, so that no message waits for
    /// another one. `apart` starts that task before the first look: for handlers that compute for long.
    pub(crate) async fn begin(self, permit: OwnedSemaphorePermit, apart: bool) -> Begun {
        let call = self.shared.hooks.before(&self.delivery);
        self.shared.journal.begun(&self.delivery);
        let start = Instant::now();
        let mut future = match catch_unwind(AssertUnwindSafe(|| self.handler.call(self.delivery.clone()))) {
            Ok(future) => future,
            Err(panic) => {
                return self.settle_apart(
                    Ending::Panicked(panic_message(panic.as_ref())),
                    call,
                    start,
                    permit,
                );
            }
        };
        if apart {
            return self.run_apart(future, call, start, permit);
        }
        let first_look =
            poll_fn(|context| Poll::Ready(catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)))));
        match first_look.await {
            Ok(Poll::Ready(Outcome::Done(ConsumeResult::Success))) => {
                let took = start.elapsed();
                self.shared.hooks.succeeded(call, &self.delivery, took);
                self.finish_all(&Ending::Outcome(ConsumeResult::Success.into()));
                Begun::Finished { permit, messages: self.delivery.messages().len() as u64, took }
            }
            Ok(Poll::Ready(outcome)) => self.settle_apart(Ending::Outcome(outcome), call, start, permit),
            Ok(Poll::Pending) => self.run_apart(future, call, start, permit),
            Err(panic) => {
                self.settle_apart(Ending::Panicked(panic_message(panic.as_ref())), call, start, permit)
            }
        }
    }

    fn run_apart(
        self,
        future: BoxFuture<Outcome>,
        call: Call,
        start: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Begun {
        let handlers = self.shared.handlers.clone();
        handlers.spawn_unboxed("handler", async move {
            let ending = self.shared.watch(future).await;
            self.ended(call, &ending, start.elapsed());
            self.settle(ending, permit).await;
        });
        Begun::Running
    }

    fn settle_apart(self, ending: Ending, call: Call, start: Instant, permit: OwnedSemaphorePermit) -> Begun {
        self.ended(call, &ending, start.elapsed());
        let handlers = self.shared.handlers.clone();
        handlers.spawn("settle", self.settle(ending, permit));
        Begun::Running
    }

    /// Tells hooks and statistics of the end of a call.
    fn ended(&self, call: Call, ending: &Ending, took: Duration) {
        self.shared.hooks.after(call, &self.delivery, ending, took);
        self.shared.journal.ended(&self.delivery);
        self.queue.counts.count_calls(Tally { calls: 1, took, ..Tally::default() });
    }

    fn finish_all(&self, ending: &Ending) {
        for message in self.delivery.messages() {
            self.finish(message, ending, Fate::Acknowledged);
        }
    }

    fn finish(&self, message: &MessageExt, ending: &Ending, fate: Fate) {
        let is_held = || self.queue.with(|held| held.holds(message.queue_offset()));
        if self.shared.journal.is_kept() && is_held() {
            self.shared.journal.note(&self.delivery, message, ending, fate);
        }
        self.queue.finish(message.queue_offset());
    }

    /// Sees to it that every message ends up somewhere: the handler had it, or the broker has it back, or the handler
    /// gets it again, here.
    async fn settle(mut self, mut ending: Ending, permit: OwnedSemaphorePermit) {
        let mut permit = Some(permit);
        loop {
            ending = self.shared.answer(&self.delivery, ending).await;
            let messages = self.delivery.messages();
            let verdict = verdict(&ending, messages.len(), self.delivery.delay_hint(), &self.shared.config);
            self.report(&ending, verdict);
            if self.queue.is_dropped() {
                debug!(queue = %self.queue.queue, "the queue went to another member, which gets the messages again");
                return;
            }
            let mut rest: Vec<MessageExt> = Vec::new();
            let mut again_at_once = false;
            self.queue.counts.count_calls(verdict.tally(messages.len()));
            match verdict {
                Verdict::Done => return self.finish_all(&ending),
                Verdict::Back { from, level } => {
                    for (at, message) in messages.iter().enumerate() {
                        if at < from {
                            self.finish(message, &ending, Fate::Acknowledged);
                        } else if self.give_back(message, level).await {
                            self.finish(message, &ending, self.shared.fate_of(message, level));
                        } else {
                            rest.push(message.clone());
                        }
                    }
                }
                Verdict::Refuse { index, level } => {
                    for (at, message) in messages.iter().enumerate() {
                        match level {
                            _ if at != index => rest.push(message.clone()),
                            None => self.finish(message, &ending, Fate::Skipped),
                            Some(level) if self.refuse(message, level, &ending).await => {
                                self.finish(message, &ending, self.shared.fate_of(message, level));
                            }
                            Some(_) => rest.push(message.clone()),
                        }
                    }
                    again_at_once = rest.len() < messages.len();
                }
            }
            if !again_at_once {
                for message in &mut rest {
                    self.shared.journal.note(&self.delivery, message, &ending, Fate::Paused);
                    message.count_delivery();
                }
            }
            let Some(delivery) = Delivery::batch(rest, &self.handler, &self.queue.origin) else { return };
            self.delivery = delivery;
            if !again_at_once {
                // Others may be handled meanwhile.
                permit = None;
                tokio::select! {
                    () = self.shared.stopping().cancelled() => return,
                    () = self.shared.clock.sleep(RETRY_HERE) => {}
                }
            }
            // `clean_expired` may have sent them back meanwhile.
            let is_held = |message: &MessageExt| self.queue.with(|held| held.holds(message.queue_offset()));
            if self.queue.is_dropped() || !self.delivery.messages().iter().any(is_held) {
                return;
            }
            if permit.is_none() {
                match Arc::clone(&self.shared.permits).acquire_owned().await {
                    Ok(acquired) => permit = Some(acquired),
                    Err(_) => return,
                }
            }
            self.shared.journal.begun(&self.delivery);
            let delivery = self.delivery.clone();
            let handler = self.handler.clone();
            let (call, start) = (self.shared.hooks.before(&delivery), Instant::now());
            ending = self.shared.watch(async move { handler.call(delivery).await }).await;
            self.ended(call, &ending, start.elapsed());
        }
    }

    async fn give_back(&self, message: &MessageExt, level: i32) -> bool {
        // The broker may have it already: `clean_expired` was faster.
        !self.queue.with(|messages| messages.holds(message.queue_offset()))
            || self.shared.send_back(&self.queue, message, level).await
    }

    /// Gives a message back that does not decode; as a dead letter, at once or after its last try, it says why.
    async fn refuse(&self, message: &MessageExt, level: i32, ending: &Ending) -> bool {
        match ending {
            Ending::Outcome(Outcome::BadPayload(bad))
                if self.shared.fate_of(message, level) == Fate::DeadLettered =>
            {
                !self.queue.with(|messages| messages.holds(message.queue_offset()))
                    || self.shared.refuse(&self.queue, message, bad).await
            }
            _ => self.give_back(message, level).await,
        }
    }

    fn report(&self, ending: &Ending, verdict: Verdict) {
        let what = match verdict {
            Verdict::Done => return,
            Verdict::Refuse { level: None, .. } => SKIPPED,
            _ if self.shared.offsets.is_local() => DROPPED,
            Verdict::Back { level: DEAD_LETTER, .. } | Verdict::Refuse { level: Some(DEAD_LETTER), .. } => {
                "it goes to the dead letter queue"
            }
            Verdict::Back { .. } | Verdict::Refuse { .. } => "it will be delivered again",
        };
        self.shared.report(&self.queue.queue, &self.handler, &self.delivery, ending, what);
    }
}

/// The group's policy, applied to how a call ended.
pub(super) fn verdict(
    ending: &Ending,
    messages: usize,
    hint: Option<DelayLevel>,
    config: &ConsumerConfig,
) -> Verdict {
    let later = hint.map_or_else(|| retry_level(config), |level| i32::from(level.get()));
    let all = |level| Verdict::Back { from: 0, level };
    match ending {
        Ending::Outcome(Outcome::Done(result)) => match *result {
            ConsumeResult::Success => Verdict::Done,
            ConsumeResult::AckFirst(done) if messages <= done => Verdict::Done,
            ConsumeResult::AckFirst(done) => Verdict::Back { from: done, level: later },
            ConsumeResult::ReconsumeLater => all(later),
            ConsumeResult::ReconsumeAfter(level) => all(i32::from(level.get())),
            ConsumeResult::DeadLetter => all(DEAD_LETTER),
        },
        Ending::Outcome(Outcome::BadPayload(bad)) => refuse(bad, config),
        // A reply that is still here was not sent.
        Ending::Outcome(Outcome::Failed(_) | Outcome::Reply(_)) | Ending::Panicked(_) => all(later),
        Ending::TimedOut => all(TIMED_OUT_LEVEL),
    }
}

fn refuse(bad: &BadPayload, config: &ConsumerConfig) -> Verdict {
    let level = match config.on_bad_payload {
        config::BadPayload::DeadLetter => Some(DEAD_LETTER),
        config::BadPayload::Retry => Some(retry_level(config)),
        config::BadPayload::Skip => None,
    };
    Verdict::Refuse { index: bad.index(), level }
}

/// 0 leaves the delay to the broker.
fn retry_level(config: &ConsumerConfig) -> i32 {
    match config.retry_delay {
        RetryDelay::Broker => 0,
        RetryDelay::Level(level) => i32::from(level),
    }
}

impl Shared {
    /// Waits for the end of a call, and stops it after `consume_timeout`.
    pub(super) async fn watch(&self, future: impl Future<Output = Outcome>) -> Ending {
        match self.clock.timeout(self.config.consume_timeout, catch_panic(future)).await {
            Some(Ok(outcome)) => Ending::Outcome(outcome),
            Some(Err(reason)) => Ending::Panicked(reason),
            None => Ending::TimedOut,
        }
    }

    /// What becomes of a message that is given back: brokers decide by how often it was.
    pub(super) fn fate_of(&self, message: &MessageExt, level: i32) -> Fate {
        if self.offsets.is_local() {
            return Fate::Dropped;
        }
        let is_last =
            self.max_reconsume_times() <= i32::try_from(message.reconsume_times()).unwrap_or(i32::MAX);
        if level == DEAD_LETTER || is_last { Fate::DeadLettered } else { Fate::Retried }
    }

    /// How many messages a listener takes at once.
    pub(super) fn batch_of(&self, listener: &Handler) -> usize {
        match listener.shape() {
            Shape::Batch => self.config.batch as usize,
            _ => 1,
        }
    }

    /// Says how a call ended that was no success, and `what` becomes of the messages.
    pub(super) fn report(
        &self,
        queue: &MessageQueue,
        handler: &Handler,
        delivery: &Delivery,
        ending: &Ending,
        what: &str,
    ) {
        let (group, message) = (&self.group, delivery.message());
        let (listener, topic, offset) = (handler.name(), message.topic(), message.queue_offset());
        let (message_id, attempt) = (message.message_id(), message.reconsume_times() + 1);
        match ending {
            Ending::Outcome(Outcome::Failed(error)) => {
                warn!(%group, topic, %queue, offset, %message_id, listener, attempt, %error, "a handler failed: {what}");
            }
            Ending::Outcome(Outcome::BadPayload(error)) => {
                let bad = delivery.messages().get(error.index());
                let message_id = bad.map(MessageExt::message_id).unwrap_or(message_id);
                warn!(%group, topic, %queue, offset, %message_id, listener, attempt, %error, "a message cannot be decoded: {what}");
            }
            Ending::Outcome(Outcome::Done(result)) => {
                debug!(%group, topic, %queue, offset, %message_id, listener, attempt, ?result, "a handler declined: {what}");
            }
            // It was answered before.
            Ending::Outcome(Outcome::Reply(_)) => {}
            Ending::Panicked(reason) => {
                error!(%group, topic, %queue, offset, %message_id, listener, attempt, reason, "a handler panicked: {what}");
            }
            Ending::TimedOut => {
                let limit = self.config.consume_timeout;
                warn!(%group, topic, %queue, offset, %message_id, listener, attempt, ?limit, "a handler took longer than `consume_timeout` and was stopped: {what}");
            }
        }
    }

    /// Makes a message that no listener takes a dead letter. It holds the group's offset until it is there.
    pub(super) async fn bury(&self, queue: &OwnedQueue, message: &MessageExt) {
        while !queue.is_dropped() && !self.send_back(queue, message, DEAD_LETTER).await {
            if !self.rest_here().await {
                return;
            }
        }
        if !queue.is_dropped() {
            queue.finish(message.queue_offset());
        }
    }

    /// A record that is no message can never be handled: it goes to the dead letter queue as it is, and holds the
    /// group's offset until it is there, or its broker has said several times that it cannot do that.
    pub(super) async fn bury_raw(&self, queue: &OwnedQueue, offset: i64, commit_log_offset: i64) {
        let mut refusals = 0;
        while !queue.is_dropped() {
            let Err(error) = self.send_back_raw(&queue.queue, commit_log_offset).await else { break };
            refusals += u32::from(error.response_code().is_some());
            if MAX_REFUSALS <= refusals {
                error!(group = %self.group, queue = %queue.queue, offset, commit_log_offset, %error, "an unreadable message cannot be made a dead letter, it is passed over");
                break;
            }
            warn!(group = %self.group, queue = %queue.queue, offset, commit_log_offset, %error, "an unreadable message could not be made a dead letter, it will be tried again");
            if !self.rest_here().await {
                return;
            }
        }
        if !queue.is_dropped() {
            queue.finish(offset);
        }
    }

    /// Waits before another try; whether there is to be one.
    async fn rest_here(&self) -> bool {
        tokio::select! {
            () = self.stopping().cancelled() => false,
            () = self.clock.sleep(RETRY_HERE) => true,
        }
    }

    /// Sends back what handlers have had for longer than they may: those that block their thread, which nothing can
    /// stop. What they say later counts no more.
    pub(crate) async fn clean_expired(&self) {
        // Handlers that wait are stopped when their time is over; what is left a little later is not one of those.
        let timeout = self.config.consume_timeout + Duration::from_secs(1);
        for queue in self.owned() {
            for message in queue.with(|messages| messages.expired(self.clock.now().into_std(), timeout)) {
                warn!(
                    group = %self.group, queue = %queue.queue, offset = message.queue_offset(), message_id = %message.message_id(),
                    "a handler blocks its thread for longer than `consume_timeout`; the message is sent back",
                );
                if self.send_back(&queue, &message, TIMED_OUT_LEVEL).await {
                    queue.finish(message.queue_offset());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_the_group_decides() {
        let broker = ConsumerConfig::default();
        let mut fixed = ConsumerConfig::default();
        fixed.retry_delay = RetryDelay::Level(5);
        let done = |result| Ending::Outcome(Outcome::Done(result));
        let back = |from, level| Verdict::Back { from, level };
        let minute = DelayLevel::new(5).unwrap();
        for (ending, hint, config, expected) in [
            (done(ConsumeResult::Success), None, &broker, Verdict::Done),
            (done(ConsumeResult::AckFirst(3)), None, &broker, Verdict::Done),
            (done(ConsumeResult::AckFirst(1)), None, &broker, back(1, 0)),
            (done(ConsumeResult::ReconsumeLater), None, &fixed, back(0, 5)),
            (done(ConsumeResult::ReconsumeLater), DelayLevel::new(2).ok(), &fixed, back(0, 2)),
            (done(ConsumeResult::ReconsumeAfter(minute)), None, &broker, back(0, 5)),
            (done(ConsumeResult::DeadLetter), None, &fixed, back(0, -1)),
            (Ending::Outcome(Outcome::Failed("no".into())), None, &broker, back(0, 0)),
            (Ending::Panicked("no".into()), None, &fixed, back(0, 5)),
            (Ending::TimedOut, None, &broker, back(0, 3)),
        ] {
            assert_eq!(verdict(&ending, 3, hint, config), expected, "{ending:?}");
        }
    }

    #[test]
    fn a_bad_payload_concerns_one_message_only() {
        for (word, level) in [
            (config::BadPayload::DeadLetter, Some(-1)),
            (config::BadPayload::Retry, Some(0)),
            (config::BadPayload::Skip, None),
        ] {
            let mut config = ConsumerConfig::default();
            config.on_bad_payload = word;
            let ending = Ending::Outcome(Outcome::BadPayload(BadPayload::new("no").at(1)));
            assert_eq!(verdict(&ending, 3, None, &config), Verdict::Refuse { index: 1, level });
        }
    }
}
