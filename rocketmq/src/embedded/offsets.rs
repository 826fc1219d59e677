//! How far each group has come in each queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The committed offsets of all groups. Those who commit have checked that group, topic and queue exist, so that
/// there are not more entries than those.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// By group and topic.
    committed: HashMap<Arc<str>, HashMap<Arc<str>, OfOneTopic>>,
    /// Where groups are to go on, until their next pull.
    resets: HashMap<(Arc<str>, Arc<str>, i32), i64>,
}

/// By queue.
type OfOneTopic = BTreeMap<i32, i64>;

impl Offsets {
    pub(super) fn committed(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.committed.get(group)?.get(topic)?.get(&queue_id).copied()
    }

    /// The topics of which a group has committed something.
    pub(super) fn topics_of(&self, group: &str) -> Vec<Arc<str>> {
        self.committed.get(group).into_iter().flat_map(HashMap::keys).cloned().collect()
    }

    /// The groups that have committed something of a topic.
    pub(super) fn groups_of(&self, topic: &str) -> Vec<Arc<str>> {
        let groups = self.committed.iter().filter(|(_, topics)| topics.contains_key(topic));
        groups.map(|(group, _)| Arc::clone(group)).collect()
    }

    /// Lets a group go on from `offset`: its next pull of the queue will learn that.
    pub(super) fn reset(&mut self, group: &Arc<str>, topic: &Arc<str>, queue_id: i32, offset: i64) {
        self.commit(group, topic, queue_id, offset);
        self.resets.insert((Arc::clone(group), Arc::clone(topic), queue_id), offset);
    }

    /// Whether a group has not learnt yet where it is to go on.
    pub(super) fn is_reset(&self, group: &Arc<str>, topic: &Arc<str>, queue_id: i32) -> bool {
        self.resets.contains_key(&(Arc::clone(group), Arc::clone(topic), queue_id))
    }

    /// Where a group is to go on, which it learns now.
    pub(super) fn take_reset(&mut self, group: &Arc<str>, topic: &Arc<str>, queue_id: i32) -> Option<i64> {
        if self.resets.is_empty() {
            return None;
        }
        self.resets.remove(&(Arc::clone(group), Arc::clone(topic), queue_id))
    }

    /// Takes the offset as it is: a group may go back.
    pub(super) fn commit(&mut self, group: &Arc<str>, topic: &Arc<str>, queue_id: i32, offset: i64) {
        if let Some(known) = self
            .committed
            .get_mut(group)
            .and_then(|topics| topics.get_mut(topic))
            .and_then(|queues| queues.get_mut(&queue_id))
        {
            *known = offset;
            return;
        }
        let topics = self.committed.entry(Arc::clone(group)).or_default();
        topics.entry(Arc::clone(topic)).or_default().insert(queue_id, offset);
    }
}
