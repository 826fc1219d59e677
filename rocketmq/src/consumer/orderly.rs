//! Calls the listener of a group that consumes in order, and settles what came of it.
//!
//! Each owned queue has one [`Worker`], which hands over one batch after the other in the order of the offsets. A batch
//! that fails stays at the head of its queue, which pauses: messages behind it wait until it succeeds or is given up.
//! Source: `behaviour.md` section 3.8 "Orderly".

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::Shared;
use super::consume::{DEAD_LETTER, DROPPED, Ending, SKIPPED};
use super::journal::Fate as Noted;
use super::process_queue::Taken;
use super::queue::OwnedQueue;
use super::stats::Tally;
use crate::config::{BadPayload, ConsumerConfig};
use crate::listener::{BadPayload as Bad, ConsumeResult, DelayLevel, Delivery, Handler, Outcome};
use crate::message::MessageExt;
use crate::tasks::catch_panic;

/// The bounds of every pause after a failure, whoever asks for it.
const MIN_SUSPEND: Duration = Duration::from_millis(10);
const MAX_SUSPEND: Duration = Duration::from_secs(30);
/// How long a queue that has had a place for `max_continuous` leaves it to others.
const YIELD_FOR: Duration = Duration::from_millis(10);
/// Batches before the worker lets other tasks of its thread run.
const BURST: u64 = 64;

/// Why nothing is handled at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// The queue is no longer ours, or the consumer stops.
    End,
    /// There is nothing to handle, or no lock: both end with a call.
    UntilWoken,
    /// It is not the turn of the next message, where the group has a `rate_limit`; a call may say that it has another one.
    UntilDue(Instant),
    For(Duration),
}

/// What decides whether the next batch may be handled now.
#[derive(Debug, Clone, Copy)]
struct Facts {
    is_over: bool,
    is_locked: bool,
    has_waiting: bool,
    /// How long the queue has had its place among the handlers of the group.
    busy_for: Duration,
}

/// What is to become of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// Done with, though it was never handled: it does not decode.
    Skipped,
    /// To the dead letter queue.
    Dead,
    /// Again, after the pause; this attempt counts.
    Again,
    /// Again: the listener has not seen it.
    Unseen,
}

/// What is to become of a batch.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// One for each message.
    fates: Vec<Fate>,
    /// How long the queue pauses before it goes on.
    pause: Option<Duration>,
    /// How many messages the next batch may hold, where that is fewer than usual.
    at_most: Option<usize>,
}

/// The task that handles the messages of one queue.
struct Worker {
    shared: Arc<Shared>,
    queue: Arc<OwnedQueue>,
    stopping: CancellationToken,
    at_most: Option<usize>,
}

impl Shared {
    /// Starts the worker of a queue that is owned now, where the group consumes in order.
    pub(super) fn consume_in_order(self: &Arc<Self>, owned: &Arc<OwnedQueue>, stopping: &CancellationToken) {
        let Some(order) = &owned.order else { return };
        let (shared, queue) = (Arc::clone(self), Arc::clone(owned));
        let worker = Worker {
            shared: Arc::clone(self),
            queue: Arc::clone(owned),
            stopping: stopping.clone(),
            at_most: None,
        };
        let watched = async move {
            if let Err(reason) = catch_panic(worker.run()).await {
                error!(group = %shared.group, queue = %queue.queue, reason, "the worker of a queue panicked, the queue is taken anew");
                shared.give_up(&queue);
            }
        };
        self.handlers.spawn("worker", order.worker.track_future(watched));
    }
}

impl Worker {
    /// Runs until the queue is no longer ours or the consumer stops, and then to the end of the batch that it is at.
    async fn run(mut self) {
        let stopping = self.stopping.clone();
        loop {
            let rest = match self.rest(Duration::ZERO) {
                Some(rest) => rest,
                None => {
                    let permit = Arc::clone(&self.shared.permits).acquire_owned();
                    let Some(Ok(permit)) = stopping.run_until_cancelled(permit).await else { return };
                    self.handle(permit).await
                }
            };
            let Some(order) = &self.queue.order else { return };
            let rested = match rest {
                Rest::End => return,
                Rest::UntilWoken => stopping.run_until_cancelled(order.woken.notified()).await,
                Rest::UntilDue(until) => {
                    let due = time::timeout_at(until, order.woken.notified());
                    // Either way it is looked again.
                    stopping.run_until_cancelled(due).await.map(drop)
                }
                Rest::For(time) => stopping.run_until_cancelled(self.shared.clock.sleep(time)).await,
            };
            if rested.is_none() {
                return;
            }
        }
    }

    /// Hands over batch after batch, for as long as that may go on.
    async fn handle(&mut self, _permit: OwnedSemaphorePermit) -> Rest {
        let since = Instant::now();
        for batch in 1_u64.. {
            if let Some(rest) = self.rest(since.elapsed()) {
                return rest;
            }
            if let Some(later) = self.shared.rate_limit.admit() {
                return Rest::UntilDue(later);
            }
            let Some((listener, delivery)) = self.take() else { break };
            self.shared.rate_limit.count_more(delivery.messages().len() - 1);
            let (noted, begun) = (self.shared.hooks.before(&delivery), std::time::Instant::now());
            let call = async { listener.call(delivery.clone()).await };
            self.shared.journal.begun(&delivery);
            let ending = self.shared.watch(call).await;
            let took = begun.elapsed();
            self.shared.hooks.after(noted, &delivery, &ending, took);
            self.shared.journal.ended(&delivery);
            self.queue.counts.count_calls(Tally { calls: 1, took, ..Tally::default() });
            let ending = self.shared.answer(&delivery, ending).await;
            if let Some(rest) = self.settle(&listener, &delivery, &ending).await {
                return rest;
            }
            if batch % BURST == 0 {
                task::yield_now().await;
            }
        }
        Rest::UntilWoken
    }

    fn rest(&self, busy_for: Duration) -> Option<Rest> {
        let facts = Facts {
            is_over: self.stopping.is_cancelled() || self.queue.is_dropped(),
            is_locked: self.queue.is_ours(),
            has_waiting: self.queue.with(|messages| messages.has_waiting()),
            busy_for,
        };
        rest(facts, self.shared.config.max_continuous)
    }

    /// The next batch, and the listener that it is for.
    fn take(&mut self) -> Option<(Handler, Delivery)> {
        let at_most = self.at_most.take().unwrap_or(usize::MAX);
        let batch_of = |listener: &Handler| self.shared.batch_of(listener).min(at_most);
        let now = self.shared.clock.now().into_std();
        let Taken { listener, messages } =
            self.queue.with(|messages| messages.take_in_order(now, batch_of))?;
        let delivery = Delivery::batch(messages, &listener, &self.queue.origin)?;
        Some((listener, delivery))
    }

    /// Sees to it that every message of a batch is done, dead or at its place in the queue again; whether the queue
    /// rests then.
    async fn settle(&mut self, listener: &Handler, delivery: &Delivery, ending: &Ending) -> Option<Rest> {
        let messages = delivery.messages();
        if let Ending::Outcome(Outcome::Done(ConsumeResult::Success)) = ending {
            messages.iter().for_each(|message| self.finish(delivery, message, ending, Noted::Acknowledged));
            self.queue.counts.count_calls(Tally { ok: messages.len() as u64, ..Tally::default() });
            return None;
        }
        let times: Vec<_> = messages.iter().map(MessageExt::reconsume_times).collect();
        let Plan { fates, mut pause, at_most } =
            plan(ending, &times, delivery.delay_hint(), &self.shared.config);
        let what = describe(&fates, pause, self.shared.offsets.is_local());
        self.shared.report(&self.queue.queue, listener, delivery, ending, what);
        let bad = match ending {
            Ending::Outcome(Outcome::BadPayload(bad)) => Some(bad),
            _ => None,
        };
        self.queue.counts.count_calls(tally(&fates, bad.is_some()));
        let mut rest = Vec::new();
        for (message, fate) in messages.iter().zip(fates) {
            if self.queue.is_dropped() {
                debug!(queue = %self.queue.queue, "the queue went to another member, which gets the messages again");
                return Some(Rest::End);
            }
            match fate {
                Fate::Done | Fate::Skipped => self.finish(delivery, message, ending, done(ending)),
                Fate::Dead if self.bury(message, bad).await => {
                    self.finish(delivery, message, ending, self.shared.fate_of(message, DEAD_LETTER));
                }
                Fate::Unseen => rest.push(message.clone()),
                Fate::Again | Fate::Dead => {
                    self.shared.journal.note(delivery, message, ending, Noted::Paused);
                    let mut message = message.clone();
                    message.count_delivery();
                    rest.push(message);
                    pause = pause.or_else(|| Some(suspend(&self.shared.config, None)));
                }
            }
        }
        self.queue.with(|messages| messages.put_back(listener, rest));
        self.at_most = at_most;
        pause.map(Rest::For)
    }

    fn finish(&self, delivery: &Delivery, message: &MessageExt, ending: &Ending, fate: Noted) {
        self.shared.journal.note(delivery, message, ending, fate);
        self.queue.finish(message.queue_offset());
    }

    /// Makes a message a dead letter, which says what is `bad` about it; whether a broker has it.
    async fn bury(&self, message: &MessageExt, bad: Option<&Bad>) -> bool {
        let sent = self.shared.send_copy(message, DEAD_LETTER, bad).await;
        if let Err(error) = &sent {
            warn!(
                group = %self.shared.group, queue = %self.queue.queue, offset = message.queue_offset(), message_id = %message.message_id(),
                %error, "a message could not be made a dead letter, its handler gets it again",
            );
        }
        sent.is_ok()
    }
}

/// In which way a message is done: one that does not decode is passed over.
fn done(ending: &Ending) -> Noted {
    match ending {
        Ending::Outcome(Outcome::BadPayload(_)) => Noted::Skipped,
        _ => Noted::Acknowledged,
    }
}

/// Why the next batch may not be handled now; `None` if it may.
fn rest(facts: Facts, max_continuous: Duration) -> Option<Rest> {
    match facts {
        Facts { is_over: true, .. } => Some(Rest::End),
        Facts { is_locked: false, .. } | Facts { has_waiting: false, .. } => Some(Rest::UntilWoken),
        Facts { busy_for, .. } if max_continuous < busy_for => Some(Rest::For(YIELD_FOR)),
        _ => None,
    }
}

/// The group's policy, applied to how a call ended. `times` says of each message how often it was tried before.
fn plan(ending: &Ending, times: &[u32], hint: Option<DelayLevel>, config: &ConsumerConfig) -> Plan {
    let failed = |done: usize, pause: Option<DelayLevel>| {
        let failed = times.iter().skip(done).map(|times| after_failure(*times, config));
        Plan::new(times.iter().take(done).map(|_| Fate::Done).chain(failed), suspend(config, pause.or(hint)))
    };
    match ending {
        Ending::Outcome(Outcome::Done(result)) => match *result {
            ConsumeResult::Success => failed(times.len(), None),
            ConsumeResult::AckFirst(done) => failed(done, None),
            ConsumeResult::ReconsumeLater => failed(0, None),
            ConsumeResult::ReconsumeAfter(level) => failed(0, Some(level)),
            ConsumeResult::DeadLetter => Plan::new(times.iter().map(|_| Fate::Dead), Duration::ZERO),
        },
        Ending::Outcome(Outcome::BadPayload(bad)) if bad.index() < times.len() => {
            refuse(bad.index(), times, config)
        }
        Ending::Outcome(Outcome::BadPayload(_) | Outcome::Failed(_) | Outcome::Reply(_))
        | Ending::Panicked(_)
        | Ending::TimedOut => failed(0, None),
    }
}

/// The message at `index` does not decode, and the listener has not seen any of the batch.
fn refuse(index: usize, times: &[u32], config: &ConsumerConfig) -> Plan {
    let fate = match config.on_bad_payload {
        BadPayload::DeadLetter => Fate::Dead,
        BadPayload::Skip => Fate::Skipped,
        // Those before it come first: it is tried again, and counted, once it is at the head of the queue.
        BadPayload::Retry if index > 0 => Fate::Unseen,
        BadPayload::Retry => after_failure(times[index], config),
    };
    let fates = (0..times.len()).map(|at| if at == index { fate } else { Fate::Unseen });
    let at_most = (fate == Fate::Unseen).then_some(index);
    Plan { at_most, ..Plan::new(fates, suspend(config, None)) }
}

impl Plan {
    /// The queue pauses for `suspend` if a message is tried again.
    fn new(fates: impl Iterator<Item = Fate>, suspend: Duration) -> Self {
        let fates: Vec<_> = fates.collect();
        let pause = fates.contains(&Fate::Again).then_some(suspend);
        Self { fates, pause, at_most: None }
    }
}

/// A message is given up once it was tried again as often as it may; by default it never is.
fn after_failure(times: u32, config: &ConsumerConfig) -> Fate {
    match config.max_reconsume {
        Some(max) if max <= times => Fate::Dead,
        _ => Fate::Again,
    }
}

/// How long the queue pauses after a failure: as the listener asks, or as the group is configured.
fn suspend(config: &ConsumerConfig, level: Option<DelayLevel>) -> Duration {
    level.map_or(config.suspend, DelayLevel::default_delay).clamp(MIN_SUSPEND, MAX_SUSPEND)
}

/// What counts as handled with success, and as failed, or as bad.
fn tally(fates: &[Fate], is_bad: bool) -> Tally {
    let count = |counts: fn(&Fate) -> bool| fates.iter().filter(|fate| counts(fate)).count() as u64;
    let failed = count(|fate| matches!(fate, Fate::Again | Fate::Dead | Fate::Skipped));
    Tally {
        ok: count(|fate| matches!(fate, Fate::Done)),
        failed,
        bad_payloads: if is_bad { failed } else { 0 },
        ..Tally::default()
    }
}

/// What becomes of a batch, for people.
fn describe(fates: &[Fate], pause: Option<Duration>, is_broadcast: bool) -> &'static str {
    match pause {
        Some(_) => "the queue pauses, and goes on with the same message",
        None if fates.contains(&Fate::Dead) && is_broadcast => DROPPED,
        None if fates.contains(&Fate::Dead) => "it goes to the dead letter queue",
        None if fates.contains(&Fate::Skipped) => SKIPPED,
        None => "those before it are handled first",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fate::{Again, Dead, Done, Skipped, Unseen};

    const SUSPEND: Duration = Duration::from_millis(700);

    fn config() -> ConsumerConfig {
        let mut config = ConsumerConfig::default();
        config.suspend = SUSPEND;
        config
    }

    fn done(result: ConsumeResult) -> Ending {
        Ending::Outcome(Outcome::Done(result))
    }

    #[test]
    fn nothing_is_handled_without_lock_or_message_or_after_the_end_and_long_work_makes_room() {
        const OPEN: Facts =
            Facts { is_over: false, is_locked: true, has_waiting: true, busy_for: Duration::from_secs(60) };
        for (facts, expected) in [
            (OPEN, None),
            (Facts { is_over: true, is_locked: false, ..OPEN }, Some(Rest::End)),
            (Facts { is_locked: false, ..OPEN }, Some(Rest::UntilWoken)),
            (Facts { has_waiting: false, ..OPEN }, Some(Rest::UntilWoken)),
            (Facts { busy_for: Duration::from_secs(61), ..OPEN }, Some(Rest::For(YIELD_FOR))),
        ] {
            assert_eq!(rest(facts, Duration::from_secs(60)), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_failure_holds_up_the_queue_and_what_was_done_before_it_is_done() {
        let minute = DelayLevel::M1;
        let failed = || Ending::Outcome(Outcome::Failed("no".into()));
        for (ending, hint, fates, pause) in [
            (done(ConsumeResult::Success), None, [Done, Done, Done], None),
            (done(ConsumeResult::AckFirst(3)), None, [Done, Done, Done], None),
            (done(ConsumeResult::AckFirst(9)), None, [Done, Done, Done], None),
            (done(ConsumeResult::AckFirst(1)), None, [Done, Again, Again], Some(SUSPEND)),
            (done(ConsumeResult::ReconsumeLater), None, [Again; 3], Some(SUSPEND)),
            (
                done(ConsumeResult::ReconsumeLater),
                Some(DelayLevel::S5),
                [Again; 3],
                Some(Duration::from_secs(5)),
            ),
            (
                done(ConsumeResult::ReconsumeAfter(DelayLevel::S1)),
                None,
                [Again; 3],
                Some(Duration::from_secs(1)),
            ),
            (done(ConsumeResult::ReconsumeAfter(minute)), None, [Again; 3], Some(MAX_SUSPEND)),
            (done(ConsumeResult::DeadLetter), None, [Dead; 3], None),
            (failed(), None, [Again; 3], Some(SUSPEND)),
            (failed(), Some(minute), [Again; 3], Some(MAX_SUSPEND)),
            (Ending::Panicked("no".into()), None, [Again; 3], Some(SUSPEND)),
            (Ending::TimedOut, None, [Again; 3], Some(SUSPEND)),
        ] {
            let expected = Plan { fates: fates.to_vec(), pause, at_most: None };
            assert_eq!(plan(&ending, &[0, 7, 1_000], hint, &config()), expected, "{ending:?}");
        }
    }

    #[test]
    fn a_message_that_was_tried_again_as_often_as_it_may_is_given_up_alone() {
        let mut config = config();
        config.max_reconsume = Some(2);
        let later = done(ConsumeResult::ReconsumeLater);
        for (times, fates, pause) in [
            (&[0, 1][..], &[Again, Again][..], Some(SUSPEND)),
            (&[2, 1], &[Dead, Again], Some(SUSPEND)),
            (&[2, 3], &[Dead, Dead], None),
        ] {
            let expected = Plan { fates: fates.to_vec(), pause, at_most: None };
            assert_eq!(plan(&later, times, None, &config), expected, "{times:?}");
        }
        config.max_reconsume = Some(0);
        assert_eq!(plan(&later, &[0], None, &config).fates, [Dead]);
    }

    #[test]
    fn a_bad_payload_concerns_one_message_and_is_tried_again_in_its_turn() {
        use crate::config::BadPayload::{DeadLetter, Retry, Skip};
        let pause = Some(SUSPEND);
        for (word, index, fates, pause, at_most) in [
            (DeadLetter, 1, [Unseen, Dead, Unseen], None, None),
            (Skip, 1, [Unseen, Skipped, Unseen], None, None),
            (Retry, 2, [Unseen; 3], None, Some(2)),
            (Retry, 0, [Again, Unseen, Unseen], pause, None),
            (DeadLetter, 3, [Again; 3], pause, None),
        ] {
            let mut config = config();
            config.on_bad_payload = word;
            let ending = Ending::Outcome(Outcome::BadPayload(Bad::new("no").at(index)));
            let expected = Plan { fates: fates.to_vec(), pause, at_most };
            assert_eq!(plan(&ending, &[0; 3], None, &config), expected, "{word:?} {index}");
        }
    }

    #[test]
    fn every_pause_is_within_its_bounds() {
        for (configured, used) in [(0, MIN_SUSPEND), (700, SUSPEND), (60_000, MAX_SUSPEND)] {
            let mut config = config();
            config.suspend = Duration::from_millis(configured);
            assert_eq!(suspend(&config, None), used);
        }
    }
}
