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
use super::process_queue::FlowLimits;
use super::puller::Puller;
use super::queue::OwnedQueue;
use super::share::{MissingTopics, Share, share};
use crate::client::namespace;
use crate::config::{ConsumerConfig, FlowConfig};
use crate::listener::Origin;
use crate::message::MessageQueue;

/// Between two rounds at least: members that come together cause one round, not many.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// After a round that could not be finished.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A queue that was not pulled for so long has lost its task, and is taken anew.
const PULL_MAX_IDLE: Duration = Duration::from_secs(120);

/// The task that keeps the share of this member right.
pub(super) struct Rebalancer {
    shared: Arc<Shared>,
    missing: MissingTopics,
}

/// The share of one topic could not be computed; the queues stay as they are.
struct Unbalanced;

impl Rebalancer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, missing: MissingTopics::default() }
    }

    /// Runs until the consumer stops.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let balanced = tokio::select! {
                () = shared.stopping().cancelled() => return,
                balanced = self.round() => balanced,
            };
            if balanced {
                shared.note_balanced();
            }
            let wait = if balanced { shared.client.config().rebalance_interval } else { RETRY_INTERVAL };
            tokio::select! {
                () = shared.stopping().cancelled() => return,
                () = rest(&shared.wake, wait) => {}
            }
        }
    }

    /// Looks at every topic; whether all shares could be computed.
    async fn round(&mut self) -> bool {
        if self.shared.is_suspended() {
            return false;
        }
        let topics: Vec<_> = self.shared.subscriptions.topics().cloned().collect();
        let mut balanced = true;
        for topic in &topics {
            match self.share(topic).await {
                Ok((queues, others)) => self.shared.own(topic, &queues, others),
                Err(Unbalanced) => balanced = false,
            }
        }
        balanced
    }

    /// The queues of `topic` that are ours, and whether the group has other members.
    async fn share(&mut self, topic: &Arc<str>) -> Result<(Vec<MessageQueue>, bool), Unbalanced> {
        let Shared { client, group, config, .. } = &*self.shared;
        let shared = share(client, group, topic, config.allocate).await;
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
    /// Makes `queues` what is owned of `topic`.
    fn own(self: &Arc<Self>, topic: &Arc<str>, queues: &[MessageQueue], others: bool) {
        let wanted: BTreeSet<&MessageQueue> = queues.iter().collect();
        let mut changed = false;
        for owned in self.owned().into_iter().filter(|owned| owned.queue.topic == *topic) {
            let is_stuck =
                PULL_MAX_IDLE.max(self.client.config().pull_timeout * 2) < owned.pulled_at().elapsed();
            if is_stuck {
                warn!(group = %self.group, queue = %owned.queue, "the queue was not pulled for long, it is taken anew");
            }
            if is_stuck || !wanted.contains(owned.queue.as_ref()) {
                self.release(&owned);
                changed = true;
            }
        }
        for queue in queues {
            changed |= self.take(queue, others);
        }
        if changed {
            let count = self.owned().len();
            info!(group = %self.group, %topic, queues = queues.len(), "the share of this member has changed");
            *self.flow.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                flow_limits(&self.config, count);
        }
    }

    /// Starts to pull a queue, unless it is pulled already. `others` may have had it just now.
    fn take(self: &Arc<Self>, queue: &MessageQueue, others: bool) -> bool {
        let mut table = self.lock_owned();
        if self.stopping().is_cancelled() || table.contains_key(queue) {
            return false;
        }
        let queue = Arc::new(queue.clone());
        let origin =
            Arc::new(Origin::new(Arc::clone(&self.group), self.shown(&queue), self.shutdown.clone()));
        let owned = Arc::new(OwnedQueue::new(Arc::clone(&queue), origin));
        let stopping = self.pulling.stopping().child_token();
        table.insert(queue.as_ref().clone(), (Arc::clone(&owned), stopping.clone()));
        let shared = Arc::clone(self);
        self.pulling.spawn("puller", async move {
            Puller::new(Arc::clone(&shared), Arc::clone(&owned), stopping.clone()).run(others).await;
        });
        true
    }

    /// Lets a queue go to another member, with the offset stored that it goes on from.
    fn release(self: &Arc<Self>, owned: &Arc<OwnedQueue>) {
        self.forget(owned);
        let (shared, owned) = (Arc::clone(self), Arc::clone(owned));
        self.handlers.spawn("release", async move {
            if let Err(error) = owned.persist(&shared.client, &shared.group).await {
                warn!(group = %shared.group, queue = %owned.queue, %error, "the offset of a queue that was given up is not stored, some messages will come twice");
            }
            debug!(group = %shared.group, queue = %owned.queue, "the queue was given up");
        });
    }

    /// Drops a queue whose offset has been corrected, to take it anew.
    pub(super) fn give_up(&self, owned: &OwnedQueue) {
        self.forget(owned);
        self.wake.notify_one();
    }

    fn forget(&self, owned: &OwnedQueue) {
        owned.drop_queue();
        let removed = {
            let mut table = self.lock_owned();
            match table.get(owned.queue.as_ref()) {
                Some((current, _)) if std::ptr::eq(current.as_ref(), owned) => {
                    table.remove(owned.queue.as_ref())
                }
                _ => None,
            }
        };
        if let Some((_, stopping)) = removed {
            stopping.cancel();
        }
    }

    /// The queue as listeners see it: without the namespace.
    fn shown(&self, queue: &Arc<MessageQueue>) -> Arc<MessageQueue> {
        let shown = namespace::strip(Some(self.subscriptions.namespace()), &queue.topic);
        if shown == queue.topic.as_ref() {
            return Arc::clone(queue);
        }
        Arc::new(MessageQueue::new(shown, Arc::clone(&queue.broker_name), queue.queue_id))
    }
}

/// What one of `queues` queues may hold. Limits for all of them are shared evenly. Source: `behaviour.md` section 3.1.
pub(super) fn flow_limits(config: &ConsumerConfig, queues: usize) -> FlowLimits {
    let FlowConfig { messages_per_queue, mib_per_queue, span, messages_per_topic, mib_per_topic, .. } =
        config.flow;
    let share =
        |all: Option<u32>, each: u32| all.map_or(each as usize, |all| (all as usize / queues.max(1)).max(1));
    FlowLimits {
        messages: share(messages_per_topic, messages_per_queue),
        bytes: share(mib_per_topic, mib_per_queue) << 20,
        span: span.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_for_all_queues_are_shared_by_those_that_are_owned() {
        let mut config = ConsumerConfig::default();
        assert_eq!(flow_limits(&config, 8), FlowLimits { messages: 1_000, bytes: 100 << 20, span: 2_000 });
        config.flow.messages_per_topic = Some(20);
        config.flow.mib_per_topic = Some(2);
        assert_eq!(flow_limits(&config, 8), FlowLimits { messages: 2, bytes: 1 << 20, span: 2_000 });
        assert_eq!(flow_limits(&config, 0).messages, 20);
    }
}
