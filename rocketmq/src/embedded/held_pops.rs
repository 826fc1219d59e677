//! Pops that found nothing and wait for a message. Source: `PopLongPollingService`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::ConnectionId;
use crate::protocol::pop::PopMessage;
use crate::remoting::Answer;

/// Pops that may wait at a time; those beyond are refused.
const MAX_HELD: usize = 100_000;

/// A pop that waits.
#[derive(Debug)]
pub(super) struct HeldPop {
    pub(super) header: PopMessage,
    pub(super) connection: ConnectionId,
    pub(super) deadline: Instant,
    pub(super) answer: Answer,
}

/// All pops that wait: by the topic that was asked for, then by group, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct HeldPops {
    by_topic: HashMap<Arc<str>, HashMap<Arc<str>, VecDeque<HeldPop>>>,
    count: usize,
}

impl HeldPops {
    pub(super) fn is_full(&self) -> bool {
        self.count >= MAX_HELD
    }

    pub(super) fn hold(&mut self, pop: HeldPop) {
        self.count += 1;
        let groups = self.by_topic.entry(Arc::clone(&pop.header.topic)).or_default();
        groups.entry(Arc::clone(&pop.header.consumer_group)).or_default().push_back(pop);
    }

    /// Whether a group waits for messages of a queue, or, with −1, of any queue of a topic.
    #[cfg(feature = "testing")]
    pub(super) fn has(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        let pops = self.by_topic.get(topic).and_then(|groups| groups.get(group));
        pops.is_some_and(|pops| pops.iter().any(|pop| pop.header.queue_id == queue_id))
    }

    /// The groups that wait for messages of a topic.
    pub(super) fn groups(&self, topic: &str) -> Vec<Arc<str>> {
        self.by_topic.get(topic).map(|groups| groups.keys().cloned().collect()).unwrap_or_default()
    }

    /// The topics that a group waits for messages of.
    pub(super) fn topics(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let all = self.by_topic.iter();
        all.flat_map(|(topic, groups)| groups.keys().map(|group| (Arc::clone(topic), Arc::clone(group))))
            .collect()
    }

    /// Takes out those of one group that wait for messages of one topic, the oldest first.
    pub(super) fn take(&mut self, topic: &str, group: &str) -> VecDeque<HeldPop> {
        let Some(groups) = self.by_topic.get_mut(topic) else { return VecDeque::new() };
        let taken = groups.remove(group).unwrap_or_default();
        if groups.is_empty() {
            self.by_topic.remove(topic);
        }
        self.count -= taken.len();
        taken
    }

    /// Takes out those whose time is up.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<HeldPop> {
        self.take_out(|pop| pop.deadline <= now)
    }

    /// Forgets those of a connection that is gone.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        self.take_out(|pop| pop.connection == connection);
    }

    fn take_out(&mut self, goes: impl Fn(&HeldPop) -> bool) -> Vec<HeldPop> {
        let mut taken = Vec::new();
        for groups in self.by_topic.values_mut() {
            for waiting in groups.values_mut() {
                let (gone, stay): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|pop| goes(pop));
                *waiting = stay.into();
                taken.extend(gone);
            }
            groups.retain(|_, waiting| !waiting.is_empty());
        }
        self.by_topic.retain(|_, groups| !groups.is_empty());
        self.count -= taken.len();
        taken
    }

    /// When the next one's time is up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_topic.values().flat_map(HashMap::values).flatten().map(|pop| pop.deadline).min()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
