//! Which queues are ours: asked of brokers and computed here, again and again.
//!
//! Source: `behaviour.md` section 3.4.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time;
use tracing::{debug, info, warn};

use super::Shared;
use super::locks::QueueOrder;
use super::pop::{Assigned, Pop};
use super::process_queue::FlowLimits;
use super::puller::Puller;
use super::queue::OwnedQueue;
use super::share::{MissingTopics, Share, share, share_of_all};
use crate::client::namespace;
use crate::config::{ConsumerConfig, FlowConfig};
use crate::listener::Origin;
use crate::message::MessageQueue;

/// Between two rounds at least: members that come together cause one round, not many.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// After a round that could not be finished.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// After a round in which the lock of a queue was not to be had.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// A queue that was not pulled for so long, and whose task does nothing else, has lost it, and is taken anew.
const PULL_MAX_IDLE: Duration = Duration::from_secs(120);

/// The task that keeps the share of this member right.
pub(super) struct Rebalancer {
    shared: Arc<Shared>,
    missing: MissingTopics,
    /// Whether it has been reported that queues wait for their locks.
    waits_for_locks: bool,
}

/// How a round ended; of several topics, that which ended worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Round {
    /// All queues that are ours are owned.
    Complete,
    /// The consumer is suspended: what is another member's was let go, and nothing was taken.
    Suspended,
    /// Some are still locked by another member, which will let them go, or has died.
    Locked,
    /// Some shares could not be computed.
    Unbalanced,
}

/// The share of one topic could not be computed; the queues stay as they are.
struct Unbalanced;

impl Rebalancer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, missing: MissingTopics::default(), waits_for_locks: false }
    }

    /// Runs until the consumer stops.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let round = tokio::select! {
                () = shared.stopping().cancelled() => return,
                round = self.round() => round,
            };
            self.report_locks(round);
            if matches!(round, Round::Complete | Round::Locked) {
                shared.note_balanced();
            }
            let wait = match round {
                Round::Complete | Round::Suspended => shared.client.config().rebalance_interval,
                Round::Locked => LOCK_RETRY_INTERVAL,
                Round::Unbalanced => RETRY_INTERVAL,
            };
            tokio::select! {
                () = shared.stopping().cancelled() => return,
                () = rest(&shared.wake, wait) => {}
            }
        }
    }

    /// Looks at every topic.
    async fn round(&mut self) -> Round {
        self.shared.leave_unsubscribed();
        let topics: Vec<_> = self.shared.subscriptions.table().topics().cloned().collect();
        let mut worst = Round::Complete;
        let shared = Arc::clone(&self.shared);
        for topic in &topics {
            let round = match &shared.pop {
                Some(pop) => self.take_assigned(pop, topic).await,
                None => match self.share(topic).await {
                    Ok((queues, others)) => self.shared.own(topic, &queues, others).await,
                    Err(Unbalanced) => Round::Unbalanced,
                },
            };
            worst = worst.max(round);
        }
        if let Some(pop) = &shared.pop {
            self.take_leftovers(pop).await;
        }
        worst
    }

    /// Takes what a broker says is ours of `topic`, to be pulled and to be popped.
    async fn take_assigned(&mut self, pop: &Pop, topic: &Arc<str>) -> Round {
        let Shared { group, .. } = &*self.shared;
        let assigned = self.shared.assigned(pop, topic).await;
        self.missing.note(group, topic, &assigned);
        let Ok(assigned) = assigned else { return Round::Unbalanced };
        let round = self.shared.own(topic, &assigned.pulled, true).await;
        if round != Round::Suspended {
            self.shared.pop_from(pop, topic, &assigned);
        }
        round
    }

    /// Pulls what is left in the retry topics of topics that were popped once. Most of them never come to be.
    async fn take_leftovers(&mut self, pop: &Pop) {
        for topic in &pop.leftover_topics() {
            if let Ok(Assigned { pulled, .. }) = self.shared.assigned(pop, topic).await {
                self.shared.own(topic, &pulled, true).await;
            }
        }
    }

    fn report_locks(&mut self, round: Round) {
        let waits = round == Round::Locked;
        if waits && !self.waits_for_locks {
            info!(group = %self.shared.group, "some queues are still locked by other members; those of one that was killed become free after a minute");
        }
        self.waits_for_locks = waits;
    }

    /// The queues of `topic` that are ours, and whether the group has other members.
    async fn share(&mut self, topic: &Arc<str>) -> Result<(Vec<MessageQueue>, bool), Unbalanced> {
        let Shared { client, group, strategy, offsets, .. } = &*self.shared;
        let shared = match offsets.is_local() {
            true => share_of_all(client, topic).await,
            false => share(client, group, topic, strategy.as_ref()).await,
        };
        self.missing.note(group, topic, &shared);
        shared.map(|Share { queues, others }| (queues, others)).map_err(|_| Unbalanced)
    }
}

/// Waits between two rounds: for `wait`, or until one is asked for.
pub(super) async fn rest(wake: &Notify, wait: Duration) {
    time::sleep(MIN_INTERVAL).await;
    tokio::select! {
        () = wake.notified() => {}
        () = time::sleep(wait.saturating_sub(MIN_INTERVAL)) => {}
    }
}

impl Shared {
    /// Makes `queues` what is owned of `topic`, as far as their locks are to be had, where the group needs them. While the
    /// consumer is suspended, it only lets go of what another member has by now, or waits for.
    async fn own(self: &Arc<Self>, topic: &Arc<str>, queues: &[MessageQueue], others: bool) -> Round {
        let wanted: BTreeSet<&MessageQueue> = queues.iter().collect();
        let mut changed = false;
        for owned in self.owned().into_iter().filter(|owned| owned.queue.topic == *topic) {
            let handlers_time = owned.is_delivering().then_some(self.config.consume_timeout);
            let max_idle = max_idle(self.client.config().pull_timeout, handlers_time);
            // One that is closed is not pulled: its topic was left, and is subscribed again.
            let is_stuck =
                max_idle < owned.pulled_at().elapsed() && !owned.with(|messages| messages.is_closed());
            if is_stuck {
                warn!(group = %self.group, queue = %owned.queue, "the queue was not pulled for long, it is taken anew");
            }
            if is_stuck || !wanted.contains(owned.queue.as_ref()) {
                self.release(&owned);
                changed = true;
            }
        }
        let is_suspended = self.is_suspended();
        let missing = if is_suspended { Vec::new() } else { self.missing(queues) };
        let expected = missing.len();
        let found = match &self.order {
            Some(order) => self.lock_new(order, missing).await,
            None => missing.iter().map(|queue| self.new_queue(queue)).collect(),
        };
        let round = match found.len() < expected {
            true => Round::Locked,
            false if is_suspended => Round::Suspended,
            false => Round::Complete,
        };
        for owned in found {
            changed |= self.take(&owned, others);
        }
        // The topic may have been left while brokers were asked.
        self.leave_unsubscribed();
        if changed {
            info!(group = %self.group, %topic, queues = queues.len(), "the share of this member has changed");
            self.share_changed(topic).await;
        }
        round
    }

    /// Does what follows from having other queues of a topic than before.
    pub(super) async fn share_changed(&self, topic: &Arc<str>) {
        *self.flow.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            flow_limits(&self.config, self.owned().len(), self.order.is_some());
        self.announce(topic).await;
    }

    fn missing(&self, queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let table = self.lock_owned();
        queues.iter().filter(|queue| !table.contains_key(*queue)).cloned().collect()
    }

    /// A queue of which nothing is held yet.
    pub(super) fn new_queue(&self, queue: &MessageQueue) -> Arc<OwnedQueue> {
        let queue = Arc::new(queue.clone());
        let origin =
            Arc::new(Origin::new(Arc::clone(&self.group), self.shown(&queue), self.shutdown.clone()));
        let counts = self.stats.of(&queue.topic, std::time::Instant::now());
        Arc::new(OwnedQueue::new(queue, origin, self.order.as_ref().map(|_| QueueOrder::new()), counts))
    }

    /// Starts to pull a queue. `others` may have had it just now.
    fn take(self: &Arc<Self>, owned: &Arc<OwnedQueue>, others: bool) -> bool {
        let mut table = self.lock_owned();
        if self.stopping().is_cancelled() {
            return false;
        }
        let stopping = self.pulling.stopping().child_token();
        table.insert(owned.queue.as_ref().clone(), (Arc::clone(owned), stopping.clone()));
        self.consume_in_order(owned, &stopping);
        let (shared, owned) = (Arc::clone(self), Arc::clone(owned));
        self.pulling.spawn("puller", async move {
            Puller::new(shared, owned, stopping).run(others).await;
        });
        true
    }

    /// Lets a queue go to another member, with the offset stored that it goes on from.
    pub(super) fn release(self: &Arc<Self>, owned: &Arc<OwnedQueue>) {
        if self.order.is_some() {
            return self.leave(owned);
        }
        owned.drop_queue();
        self.forget(owned);
        let (shared, owned) = (Arc::clone(self), Arc::clone(owned));
        self.releases.at(&owned.queue.broker_name).spawn("release", async move {
            shared.persist_last(&owned).await;
            debug!(group = %shared.group, queue = %owned.queue, "the queue was given up");
        });
    }

    /// Stores the offset that the next owner of the queue goes on from.
    pub(super) async fn persist_last(&self, owned: &OwnedQueue) {
        if let Err(error) = owned.persist(&self.offsets).await {
            warn!(group = %self.group, queue = %owned.queue, %error, "the offset of a queue that was given up is not stored, some messages will come twice");
        }
    }

    /// Drops a queue of which nothing that is held counts any more: its offset was corrected, or another member has it.
    pub(super) fn give_up(self: &Arc<Self>, owned: &Arc<OwnedQueue>) {
        owned.drop_queue();
        match self.order {
            Some(_) => self.leave(owned),
            None => drop(self.forget(owned)),
        }
        self.wake.notify_one();
    }

    /// Ends the tasks of a queue that is not to be ours any more; whether it was.
    pub(super) fn forget(&self, owned: &OwnedQueue) -> bool {
        let removed = {
            let mut table = self.lock_owned();
            match table.get(owned.queue.as_ref()) {
                Some((current, _)) if std::ptr::eq(current.as_ref(), owned) => {
                    table.remove(owned.queue.as_ref())
                }
                _ => None,
            }
        };
        if let Some((_, stopping)) = &removed {
            stopping.cancel();
        }
        removed.is_some()
    }

    /// The queue as listeners see it: without the namespace.
    pub(super) fn shown(&self, queue: &Arc<MessageQueue>) -> Arc<MessageQueue> {
        let shown = namespace::strip(Some(self.subscriptions.namespace()), &queue.topic);
        if shown == queue.topic.as_ref() {
            return Arc::clone(queue);
        }
        Arc::new(MessageQueue::new(shown, Arc::clone(&queue.broker_name), queue.queue_id))
    }
}

/// A queue that was not pulled for so long has lost its task. Where that calls listeners, one of which may block, they have
/// their time first.
fn max_idle(pull_timeout: Duration, handlers_time: Option<Duration>) -> Duration {
    PULL_MAX_IDLE.max(pull_timeout * 2) + handlers_time.unwrap_or_default()
}

/// What one of `queues` queues may hold. Limits for all of them are shared evenly. Source: `behaviour.md` section 3.1.
/// `in_order` no message can be far behind the others.
pub(super) fn flow_limits(config: &ConsumerConfig, queues: usize, in_order: bool) -> FlowLimits {
    let FlowConfig { messages_per_queue, mib_per_queue, span, messages_per_topic, mib_per_topic, .. } =
        config.flow;
    let share =
        |all: Option<u32>, each: u32| all.map_or(each as usize, |all| (all as usize / queues.max(1)).max(1));
    FlowLimits {
        messages: share(messages_per_topic, messages_per_queue),
        bytes: share(mib_per_topic, mib_per_queue) << 20,
        span: if in_order { i64::MAX } else { span.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_taken_anew_after_two_minutes_but_not_before_a_handler_has_had_its_time() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert_eq!(max_idle(Duration::from_secs(30), None), minutes(2));
        assert_eq!(max_idle(minutes(2), None), minutes(4));
        assert_eq!(max_idle(Duration::from_secs(30), Some(minutes(15))), minutes(17));
    }

    #[test]
    fn limits_for_all_queues_are_shared_by_those_that_are_owned() {
        let mut config = ConsumerConfig::default();
        let usual = FlowLimits { messages: 1_000, bytes: 100 << 20, span: 2_000 };
        assert_eq!(flow_limits(&config, 8, false), usual);
        assert_eq!(flow_limits(&config, 8, true), FlowLimits { span: i64::MAX, ..usual });
        config.flow.messages_per_topic = Some(20);
        config.flow.mib_per_topic = Some(2);
        assert_eq!(flow_limits(&config, 8, false), FlowLimits { messages: 2, bytes: 1 << 20, span: 2_000 });
        assert_eq!(flow_limits(&config, 0, false).messages, 20);
    }
}
