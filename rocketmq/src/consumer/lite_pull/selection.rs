//! What a lite pull consumer wants: topics whose queues it shares with its group, or queues of its own choice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::consumer::subscription::union;
use crate::listener::Filter;
use crate::message::MessageQueue;
use crate::protocol::body::SubscriptionData;

/// How it comes by its queues, for life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Subscribe,
    Assign,
}

/// What it wants, by the names that users know.
#[derive(Debug, Default)]
pub(super) struct Selection {
    way: Option<Way>,
    filters: BTreeMap<Arc<str>, Arc<Wanted>>,
    assigned: BTreeSet<MessageQueue>,
}

/// What it wants of one topic.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) filter: Filter,
    version: i64,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Assign => "assign",
        }
    }
}

impl Selection {
    pub(super) fn way(&self) -> Option<Way> {
        self.way
    }

    /// Chooses the way; where it is another one already, that one.
    pub(super) fn choose(&mut self, way: Way) -> Result<(), Way> {
        match *self.way.get_or_insert(way) {
            chosen if chosen == way => Ok(()),
            other => Err(other),
        }
    }

    /// Wants these messages of `topic`.
    pub(super) fn want(&mut self, topic: Arc<str>, filter: Filter) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        // Brokers take a subscription only if it is newer.
        let version = self.filters.get(&topic).map_or(now, |old| now.max(old.version + 1));
        self.filters.insert(topic, Arc::new(Wanted::new(filter, version)));
    }

    /// Wants nothing of `topic` any more.
    pub(super) fn forget(&mut self, topic: &str) {
        self.filters.remove(topic);
    }

    /// Wants exactly these queues.
    pub(super) fn assign(&mut self, queues: BTreeSet<MessageQueue>) {
        self.assigned = queues;
    }

    pub(super) fn assigned(&self) -> &BTreeSet<MessageQueue> {
        &self.assigned
    }

    /// What is wanted of `topic`; nothing was said of the topics of queues that are simply assigned.
    pub(super) fn wanted(&self, topic: &str) -> Option<Arc<Wanted>> {
        self.filters.get(topic).cloned()
    }

    /// The topics of which only some messages are wanted, or of which queues are shared.
    pub(super) fn filters(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Wanted>)> {
        self.filters.iter()
    }

    /// The topics whose queues are shared.
    pub(super) fn subscribed(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Wanted>)> {
        self.filters.iter().filter(|_| self.way == Some(Way::Subscribe))
    }

    /// Every topic that something is wanted of.
    pub(super) fn topics(&self) -> BTreeSet<&Arc<str>> {
        match self.way {
            Some(Way::Assign) => self.assigned.iter().map(|queue| &queue.topic).collect(),
            _ => self.filters.keys().collect(),
        }
    }
}

impl Wanted {
    pub(super) fn new(filter: Filter, version: i64) -> Self {
        Self { filter, version }
    }

    /// Whether nothing else has been wanted since.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.version == other.version
    }

    /// As brokers hear it; `topic` is the one on the wire.
    pub(super) fn data(&self, topic: &str) -> SubscriptionData {
        union(topic, &[&self.filter], self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_that_is_chosen_is_the_only_one() {
        for (first, second) in [(Way::Subscribe, Way::Assign), (Way::Assign, Way::Subscribe)] {
            let mut selection = Selection::default();
            assert_eq!(selection.choose(first), Ok(()));
            assert_eq!(selection.choose(first), Ok(()));
            assert_eq!(selection.choose(second), Err(first));
        }
    }

    #[test]
    fn another_filter_of_a_topic_is_newer_than_the_one_before() {
        let mut selection = Selection::default();
        selection.choose(Way::Subscribe).unwrap();
        let versions = ["a", "b", "c"].map(|tag| {
            selection.want("t".into(), Filter::tag(tag));
            let data = selection.wanted("t").unwrap().data("ns%t");
            assert_eq!((data.topic.as_str(), data.sub_string.as_str()), ("ns%t", tag));
            data.sub_version
        });
        assert!(versions.is_sorted_by(|one, other| one < other), "{versions:?}");
    }

    #[test]
    fn brokers_hear_of_subscriptions_but_not_of_assigned_queues() {
        let mut selection = Selection::default();
        selection.choose(Way::Assign).unwrap();
        selection.want("filtered".into(), Filter::tag("a"));
        selection.assign([MessageQueue::new("t", "b", 0), MessageQueue::new("t", "b", 1)].into());
        assert_eq!(selection.subscribed().count(), 0);
        assert_eq!(selection.topics(), [&"t".into()].into());
    }
}
