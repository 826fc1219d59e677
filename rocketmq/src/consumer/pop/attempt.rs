//! Calls a listener with popped messages, keeps others from seeing them meanwhile, and settles what came of it:
//! acknowledged, visible again later, or a dead letter.
//!
//! Unlike the reference client's, a message that failed too often ends in the dead letter queue, never nowhere; and one
//! whose handler takes its time is not delivered again. Source: `behaviour.md` section 4.1.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::held::{Held, Lease, Renewed};
use super::queue::PopQueue;
use crate::config::ConsumerConfig;
use crate::consumer::Shared;
use crate::consumer::consume::{DEAD_LETTER, Ending, SKIPPED, Verdict, verdict};
use crate::consumer::journal::Fate as Noted;
use crate::consumer::puller::{poll_option, until};
use crate::consumer::send_back::MAX_RECONSUME_TIMES;
use crate::consumer::stats::Tally;
use crate::listener::{BadPayload, BoxFuture, DelayLevel, Delivery, Handler, Origin, Outcome};
use crate::message::MessageExt;
use crate::protocol::pop::PopHandle;

/// How long until a message comes again that has come so often before, in seconds. Source: `popDelayLevel`.
const DELAYS: [u64; 16] = [10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
/// What could not be made a dead letter is tried again after this time.
const BURY_AGAIN: Duration = Duration::from_secs(10);

/// What is to become of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is acknowledged.
    Done,
    /// Somebody gets it after this time.
    Later(Duration),
    /// It goes to the dead letter queue.
    Dead,
    /// The listener has not seen it.
    Unseen,
}

/// One call of a listener, and what follows of it.
pub(super) struct Attempt {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<PopQueue>,
    pub(super) acks: mpsc::Sender<PopHandle>,
    pub(super) handler: Handler,
    pub(super) origin: Arc<Origin>,
    /// The messages of the delivery.
    pub(super) held: Vec<Held>,
    pub(super) delivery: Delivery,
}

impl Attempt {
    /// Sees to it that every message ends up somewhere.
    pub(super) async fn run(mut self, _permit: OwnedSemaphorePermit) {
        loop {
            let ending = self.call().await;
            let ending = self.shared.answer(&self.delivery, ending).await;
            let config = &self.shared.config;
            let times: Vec<_> = self.held.iter().map(|held| held.message.reconsume_times()).collect();
            let verdict = verdict(&ending, times.len(), self.delivery.delay_hint(), config);
            let fates = fates(verdict, &times, config);
            self.queue.counts.count_calls(verdict.tally(times.len()));
            if let Some(what) = describe(&fates, verdict) {
                let queue = &self.queue.queue;
                self.shared.report(queue, &self.handler, &self.delivery, &ending, what);
            }
            let bad = match &ending {
                Ending::Outcome(Outcome::BadPayload(bad)) => Some(bad),
                _ => None,
            };
            let mut unseen = Vec::new();
            for (held, fate) in std::mem::take(&mut self.held).into_iter().zip(fates) {
                match fate {
                    Fate::Unseen => unseen.push(held),
                    fate => {
                        let noted = noted(fate, verdict);
                        self.shared.journal.note(&self.delivery, &held.message, &ending, noted);
                        self.settle(held, fate, bad).await;
                    }
                }
            }
            let messages = unseen.iter().map(|held| held.message.clone()).collect();
            let Some(delivery) = Delivery::batch(messages, &self.handler, &self.origin) else { return };
            self.held = unseen;
            self.delivery = delivery;
        }
    }

    /// Calls the listener, and puts off the end of the leases while it works.
    async fn call(&mut self) -> Ending {
        let hooked = self.shared.hooks.before(&self.delivery);
        self.shared.journal.begun(&self.delivery);
        let shown = self.queue.call(&self.delivery);
        let start = Instant::now();
        let ending = self.call_listener().await;
        let took = start.elapsed();
        drop(shown);
        self.shared.hooks.after(hooked, &self.delivery, &ending, took);
        self.shared.journal.ended(&self.delivery);
        self.queue.counts.count_calls(Tally { calls: 1, took, ..Tally::default() });
        ending
    }

    async fn call_listener(&mut self) -> Ending {
        let (handler, delivery) = (self.handler.clone(), self.delivery.clone());
        let call = async move { handler.call(delivery).await };
        let shared = Arc::clone(&self.shared);
        let mut call = pin!(shared.watch(call));
        let mut renewing: Option<BoxFuture<Renewed>> = None;
        loop {
            let renew_at = match renewing {
                None => self.held.iter().filter_map(|held| held.lease.renew_at()).min(),
                Some(_) => None,
            };
            tokio::select! {
                biased;
                ending = &mut call => {
                    // It may have changed the handles, without which nothing can be settled.
                    if let Some(renewing) = renewing {
                        self.take_renewed(renewing.await);
                    }
                    return ending;
                }
                renewed = poll_option(&mut renewing) => {
                    renewing = None;
                    self.take_renewed(renewed);
                }
                () = until(renew_at) => {
                    let leases = self.held.iter().map(|held| held.lease.clone()).collect();
                    renewing = Some(Box::pin(Arc::clone(&self.shared).renew(Arc::clone(&self.queue), leases)));
                }
            }
        }
    }

    fn take_renewed(&mut self, renewed: Renewed) {
        for (at, lease) in renewed {
            if let Some(held) = self.held.get_mut(at) {
                held.lease = lease;
            }
        }
    }

    async fn settle(&self, held: Held, fate: Fate, bad: Option<&BadPayload>) {
        let is_ours = held.lease.is_ours(Instant::now());
        match fate {
            Fate::Done => self.shared.acknowledge_popped(&self.queue, &self.acks, held.lease.handle).await,
            _ if !is_ours => {
                debug!(queue = %self.queue.queue, offset = held.lease.handle.queue_offset, "a failed message comes again by itself: its invisible time is over");
                self.queue.settled(1);
            }
            Fate::Later(time) => self.shared.release_and_settle(&self.queue, &held.lease, time).await,
            Fate::Dead | Fate::Unseen => {
                self.shared.bury_popped(&self.queue, &self.acks, &held.message, &held.lease, bad).await;
            }
        }
    }
}

impl Shared {
    /// Hands a handle to the task that acknowledges.
    pub(super) async fn acknowledge_popped(
        &self,
        queue: &PopQueue,
        acks: &mpsc::Sender<PopHandle>,
        handle: PopHandle,
    ) {
        // The task lives as long as there is somebody who could have something for it.
        if acks.send(handle).await.is_err() {
            queue.settled(1);
        }
    }

    async fn release_and_settle(&self, queue: &PopQueue, lease: &Lease, time: Duration) {
        // Where the broker does not hear it, the message comes again all the same.
        let _ = self.release_popped(queue, lease, time).await;
        queue.settled(1);
    }

    /// Makes a message a dead letter, which says what is `bad` about it, and acknowledges it once a broker has it.
    pub(super) async fn bury_popped(
        &self,
        queue: &PopQueue,
        acks: &mpsc::Sender<PopHandle>,
        message: &MessageExt,
        lease: &Lease,
        bad: Option<&BadPayload>,
    ) {
        match self.send_copy(message, DEAD_LETTER, bad).await {
            Ok(()) => self.acknowledge_popped(queue, acks, lease.handle.clone()).await,
            Err(error) => {
                warn!(
                    group = %self.group, queue = %queue.queue, offset = message.queue_offset(), message_id = %message.message_id(),
                    %error, "a message could not be made a dead letter, it comes again",
                );
                self.release_and_settle(queue, lease, BURY_AGAIN).await;
            }
        }
    }
}

/// The group's verdict, applied to each message. `times` says how often each was tried before.
fn fates(verdict: Verdict, times: &[u32], config: &ConsumerConfig) -> Vec<Fate> {
    let failed = |times: &u32, level| after_failure(*times, level, config);
    match verdict {
        Verdict::Done => vec![Fate::Done; times.len()],
        Verdict::Back { from, level } => {
            let done = times.iter().take(from).map(|_| Fate::Done);
            done.chain(times.iter().skip(from).map(|times| failed(times, level))).collect()
        }
        Verdict::Refuse { index, level } if index < times.len() => {
            let refused = level.map_or(Fate::Done, |level| failed(&times[index], level));
            (0..times.len()).map(|at| if at == index { refused } else { Fate::Unseen }).collect()
        }
        Verdict::Refuse { level, .. } => {
            times.iter().map(|times| failed(times, level.unwrap_or_default())).collect()
        }
    }
}

fn after_failure(times: u32, level: i32, config: &ConsumerConfig) -> Fate {
    let max = config.max_reconsume.unwrap_or(MAX_RECONSUME_TIMES);
    if level == DEAD_LETTER || max <= times { Fate::Dead } else { Fate::Later(delay(times, level)) }
}

/// How long until a message comes again: the time by which a level is known, or longer each time.
fn delay(times: u32, level: i32) -> Duration {
    match u8::try_from(level).ok().and_then(|level| DelayLevel::new(level).ok()) {
        Some(level) => level.default_delay(),
        None => Duration::from_secs(DELAYS[(times as usize).min(DELAYS.len() - 1)]),
    }
}

/// The fate in the words of the journal.
fn noted(fate: Fate, verdict: Verdict) -> Noted {
    match fate {
        Fate::Done if matches!(verdict, Verdict::Refuse { .. }) => Noted::Skipped,
        Fate::Done => Noted::Acknowledged,
        Fate::Later(_) | Fate::Unseen => Noted::Retried,
        Fate::Dead => Noted::DeadLettered,
    }
}

/// What becomes of a delivery that was no success, for people.
fn describe(fates: &[Fate], verdict: Verdict) -> Option<&'static str> {
    let is_later = |fate: &Fate| matches!(fate, Fate::Later(_));
    match verdict {
        Verdict::Done => None,
        Verdict::Refuse { level: None, .. } => Some(SKIPPED),
        _ if fates.iter().any(is_later) => Some("it will be delivered again"),
        _ => Some("it goes to the dead letter queue"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fate::{Dead, Done, Later, Unseen};

    fn seconds(seconds: u64) -> Fate {
        Later(Duration::from_secs(seconds))
    }

    #[test]
    fn what_fails_comes_again_later_each_time_and_is_a_dead_letter_in_the_end() {
        let mut config = ConsumerConfig::default();
        config.max_reconsume = Some(3);
        for (verdict, fates_) in [
            (Verdict::Done, [Done; 4]),
            (Verdict::Back { from: 0, level: 0 }, [seconds(10), seconds(30), seconds(60), Dead]),
            (Verdict::Back { from: 2, level: 0 }, [Done, Done, seconds(60), Dead]),
            (Verdict::Back { from: 0, level: 5 }, [seconds(60), seconds(60), seconds(60), Dead]),
            (Verdict::Back { from: 1, level: DEAD_LETTER }, [Done, Dead, Dead, Dead]),
            (Verdict::Refuse { index: 1, level: Some(0) }, [Unseen, seconds(30), Unseen, Unseen]),
            (Verdict::Refuse { index: 0, level: Some(DEAD_LETTER) }, [Dead, Unseen, Unseen, Unseen]),
            (Verdict::Refuse { index: 2, level: None }, [Unseen, Unseen, Done, Unseen]),
            (Verdict::Refuse { index: 9, level: Some(0) }, [seconds(10), seconds(30), seconds(60), Dead]),
        ] {
            assert_eq!(fates(verdict, &[0, 1, 2, 3], &config), fates_, "{verdict:?}");
        }
    }

    #[test]
    fn the_delay_grows_to_two_hours_unless_a_level_was_asked_for() {
        for (times, level, expected) in
            [(0, 0, 10), (1, 0, 30), (11, 0, 600), (15, 0, 7200), (99, 0, 7200), (7, 1, 1), (0, 18, 7200)]
        {
            assert_eq!(delay(times, level), Duration::from_secs(expected), "{times} {level}");
        }
    }
}
