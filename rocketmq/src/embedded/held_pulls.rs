//! Pulls that found nothing and wait for a message. Source: `PullRequestHoldService`.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::ConnectionId;
use super::pulling::Filter;
use crate::protocol::header::PullMessage;
use crate::remoting::Answer;

/// Pulls that may wait at a time; those beyond are answered at once.
const MAX_HELD: usize = 100_000;

/// A pull that waits.
#[derive(Debug)]
pub(super) struct HeldPull {
    pub(super) header: PullMessage,
    pub(super) filter: Arc<Filter>,
    pub(super) connection: ConnectionId,
    pub(super) deadline: Instant,
    pub(super) answer: Answer,
}

/// All pulls that wait, by the queue that they wait for.
#[derive(Debug, Default)]
pub(super) struct HeldPulls {
    by_topic: HashMap<Arc<str>, HashMap<i32, Vec<HeldPull>>>,
    count: usize,
}

impl HeldPulls {
    pub(super) fn is_full(&self) -> bool {
        self.count >= MAX_HELD
    }

    pub(super) fn hold(&mut self, pull: HeldPull) {
        self.count += 1;
        let queues = self.by_topic.entry(Arc::clone(&pull.header.topic)).or_default();
        queues.entry(pull.header.queue_id).or_default().push(pull);
    }

    /// Takes out those who wait for a message in this queue that their filters want.
    pub(super) fn arrived(
        &mut self,
        topic: &str,
        queue_id: i32,
        wants: impl Fn(&Filter) -> bool,
    ) -> Vec<HeldPull> {
        let waiting = self.by_topic.get_mut(topic).and_then(|queues| queues.get_mut(&queue_id));
        let Some(waiting) = waiting else { return Vec::new() };
        let woken: Vec<_> = waiting.extract_if(.., |pull| wants(&pull.filter)).collect();
        self.count -= woken.len();
        woken
    }

    /// Whether a group waits for messages of a queue.
    #[cfg(feature = "testing")]
    pub(super) fn has(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        let waiting = self.by_topic.get(topic).and_then(|queues| queues.get(&queue_id));
        waiting.is_some_and(|waiting| waiting.iter().any(|pull| *pull.header.consumer_group == *group))
    }

    /// Takes out those whose time is up.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<HeldPull> {
        self.take_out(|pull| pull.deadline <= now)
    }

    /// Takes out those who wait for a queue.
    pub(super) fn take_queue(&mut self, topic: &str, queue_id: i32) -> Vec<HeldPull> {
        self.take_out(|pull| pull.header.queue_id == queue_id && *pull.header.topic == *topic)
    }

    /// Forgets those of a connection that is gone.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        self.take_out(|pull| pull.connection == connection);
    }

    fn take_out(&mut self, goes: impl Fn(&HeldPull) -> bool) -> Vec<HeldPull> {
        let mut taken = Vec::new();
        for queues in self.by_topic.values_mut() {
            for waiting in queues.values_mut() {
                taken.extend(waiting.extract_if(.., |pull| goes(pull)));
            }
            queues.retain(|_, waiting| !waiting.is_empty());
        }
        self.by_topic.retain(|_, queues| !queues.is_empty());
        self.count -= taken.len();
        taken
    }

    /// When the next one's time is up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_topic.values().flat_map(HashMap::values).flatten().map(|pull| pull.deadline).min()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
