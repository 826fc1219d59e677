//! How far each group has come in each queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The committed offsets of all groups. Those who commit have checked that group, topic and queue exist, so that
/// there are not more entries than those.
#[derive(Debug, Default)]
pub(super) struct Offsets(HashMap<Arc<str>, HashMap<Arc<str>, OfOneTopic>>);

/// By queue.
type OfOneTopic = BTreeMap<i32, i64>;

impl Offsets {
    pub(super) fn committed(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.0.get(group)?.get(topic)?.get(&queue_id).copied()
    }

    /// Takes the offset as it is: a group may go back.
    pub(super) fn commit(&mut self, group: &Arc<str>, topic: &Arc<str>, queue_id: i32, offset: i64) {
        if let Some(known) = self
            .0
            .get_mut(group)
            .and_then(|topics| topics.get_mut(topic))
            .and_then(|queues| queues.get_mut(&queue_id))
        {
            *known = offset;
            return;
        }
        let topics = self.0.entry(Arc::clone(group)).or_default();
        topics.entry(Arc::clone(topic)).or_default().insert(queue_id, offset);
    }
}
