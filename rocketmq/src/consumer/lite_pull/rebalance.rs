//! Which queues a lite pull consumer has: its share of the topics that it subscribes to, or those that were assigned.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::puller::Puller;
use super::queue::AssignedQueue;
use super::running::Running;
use super::selection::Way;
use crate::client::namespace;
use crate::consumer::rebalance::{RETRY_INTERVAL, rest};
use crate::consumer::share::{MissingTopics, Share, share};
use crate::message::MessageQueue;

/// The task that keeps the share of this member right; there is nothing to do where queues are assigned.
pub(super) struct Rebalancer {
    shared: Arc<Running>,
    missing: MissingTopics,
}

impl Rebalancer {
    pub(super) fn new(shared: Arc<Running>) -> Self {
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
            let wait = if balanced { shared.client.config().rebalance_interval } else { RETRY_INTERVAL };
            tokio::select! {
                () = shared.stopping().cancelled() => return,
                () = rest(&shared.wake, wait) => {}
            }
        }
    }

    /// Looks at every topic; whether all shares could be computed.
    async fn round(&mut self) -> bool {
        let topics = self.shared.subscribed_topics();
        let mut balanced = true;
        for topic in &topics {
            let Running { client, group, strategy, .. } = &*self.shared;
            let shared = share(client, group, topic, strategy.as_ref()).await;
            self.missing.note(group, topic, &shared);
            match shared {
                Ok(Share { queues, others }) => self.shared.own(topic, &queues.into_iter().collect(), others),
                Err(_) => balanced = false,
            }
        }
        // Somebody may have subscribed to another topic meanwhile, and has asked for a round then.
        if balanced && self.shared.subscribed_topics() == topics {
            self.shared.note_balanced();
        }
        balanced
    }
}

impl Running {
    /// Makes `queues` what is owned of `topic`, unless the topic is wanted no more.
    fn own(self: &Arc<Self>, topic: &Arc<str>, queues: &BTreeSet<MessageQueue>, others: bool) {
        if self.subscribed_topics().contains(topic) {
            self.change(|queue| queue.topic == *topic, queues, others);
        }
    }

    /// Makes the queues that are wanted those that are owned, where no other member has a say in it.
    pub(super) fn adopt(self: &Arc<Self>) {
        let way = self.selection().way();
        match way {
            Some(Way::Assign) => {
                let wanted = self.selection().assigned().iter().map(|queue| self.on_wire(queue)).collect();
                self.change(|_| true, &wanted, false);
            }
            _ => {
                let topics = self.subscribed_topics();
                self.change(|queue| !topics.contains(&queue.topic), &BTreeSet::new(), false);
            }
        }
    }

    /// Makes `wanted` those of the queues that are owned which `concerns` is about.
    fn change(
        self: &Arc<Self>,
        concerns: impl Fn(&MessageQueue) -> bool,
        wanted: &BTreeSet<MessageQueue>,
        takeover: bool,
    ) {
        let mut table = self.lock_queues();
        if self.stopping().is_cancelled() {
            return;
        }
        let before = table.len();
        let unwanted: Vec<_> =
            table.keys().filter(|queue| concerns(queue) && !wanted.contains(queue)).cloned().collect();
        let gone: Vec<_> = unwanted.iter().filter_map(|queue| table.remove(queue)).collect();
        let new: Vec<_> = wanted.iter().filter(|queue| !table.contains_key(queue)).cloned().collect();
        if gone.is_empty() && new.is_empty() {
            return;
        }
        for queue in new {
            let assigned = self.take(&queue, takeover);
            table.insert(queue, assigned);
        }
        info!(group = %self.group, before, now = table.len(), "the queues of this member have changed");
        drop(table);
        gone.into_iter().for_each(|queue| self.release(queue));
    }

    /// Starts to pull a queue.
    fn take(self: &Arc<Self>, queue: &MessageQueue, takeover: bool) -> Arc<AssignedQueue> {
        let topic = namespace::strip(Some(self.namespace()), &queue.topic).into();
        let assigned =
            Arc::new(AssignedQueue::new(queue.clone(), topic, self.pulling.stopping().child_token()));
        let (shared, queue) = (Arc::clone(self), Arc::clone(&assigned));
        self.pulling.spawn("lite puller", Puller::new(shared, queue).run(takeover));
        assigned
    }

    /// Lets a queue go, with the offset stored that its next owner goes on from.
    fn release(self: &Arc<Self>, queue: Arc<AssignedQueue>) {
        let due = queue.drop_queue(self.config.auto_commit);
        debug!(group = %self.group, queue = %queue.queue, ?due, "the queue was given up");
        let Some(due) = due else { return };
        let shared = Arc::clone(self);
        self.releases.at(&queue.queue.broker_name).spawn("release", async move {
            if let Err(error) = shared.store_last(&queue, due).await {
                warn!(group = %shared.group, queue = %queue.queue, %error, "the offset of a queue that was given up is not stored, some messages will come twice");
            }
        });
    }
}
