//! How the queues of a topic are shared among the members of a group: every member computes alone, from the same two lists,
//! and all agree.
//!
//! A group has one of these by its key `allocate`. With [`PushConsumerBuilder::allocate_strategy`] it gets one made here, or one
//! of your own, which is an [`AllocateStrategy`]. All members of a group need the same one. Source: `behaviour.md` section 3.5,
//! with its worked examples.
//!
//! [`PushConsumerBuilder::allocate_strategy`]: crate::PushConsumerBuilder::allocate_strategy

mod consistent_hash;
mod rooms;

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::sync::Arc;

pub use self::consistent_hash::ConsistentHash;
pub use self::rooms::{MachineRoom, MachineRoomNearby, NamedRooms, RoomResolver};
use crate::client::namespace;
use crate::config::{Allocate, ClusterConfig, FixedQueue};
use crate::message::MessageQueue;

/// Why a strategy does not know a share, in words for people.
pub type AllocateError = Box<dyn StdError + Send + Sync>;

/// A way of sharing the queues of a topic among the members of a group.
///
/// It is asked by every member on its own, again and again. All must come to results that leave no queue out and have none
/// twice: from the arguments alone, without a clock or a chance. It must not block.
///
/// ```
/// use rocketmq::MessageQueue;
/// use rocketmq::allocate::{AllocateError, AllocateStrategy};
///
/// /// Everything to the first member; the others stand by.
/// struct Standby;
///
/// impl AllocateStrategy for Standby {
///     fn name(&self) -> &str {
///         "STANDBY"
///     }
///
///     fn allocate(
///         &self,
///         _group: &str,
///         own: &str,
///         queues: &[MessageQueue],
///         members: &[String],
///     ) -> Result<Vec<MessageQueue>, AllocateError> {
///         Ok(if members.first().is_some_and(|first| first == own) { queues.to_vec() } else { Vec::new() })
///     }
/// }
/// ```
pub trait AllocateStrategy: Send + Sync + 'static {
    /// What operators see, for example `AVG`.
    fn name(&self) -> &str;

    /// The queues of the member with the client id `own`, one of `members`.
    ///
    /// `queues` are all those of one topic, names as on the wire; for a retry topic, `%RETRY%group`, it is asked as well. Both
    /// lists are sorted, `members` as text.
    ///
    /// # Errors
    ///
    /// Where the share cannot be known: the member keeps the queues that it has, and asks again a second later.
    fn allocate(
        &self,
        group: &str,
        own: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Result<Vec<MessageQueue>, AllocateError>;
}

/// Neighbouring queues to each member, the first members having one more where it does not come out even: `averagely`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Averagely;

impl AllocateStrategy for Averagely {
    fn name(&self) -> &str {
        "AVG"
    }

    fn allocate(
        &self,
        _: &str,
        own: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Result<Vec<MessageQueue>, AllocateError> {
        let Some(index) = index_of(own, members) else { return Ok(Vec::new()) };
        let (each, extra) = (queues.len() / members.len(), queues.len() % members.len());
        let start = index * each + index.min(extra);
        let count = each + usize::from(index < extra);
        Ok(queues[start..start + count].to_vec())
    }
}

/// Queues dealt out in turn: `circle`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circle;

impl AllocateStrategy for Circle {
    fn name(&self) -> &str {
        "AVG_BY_CIRCLE"
    }

    fn allocate(
        &self,
        _: &str,
        own: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Result<Vec<MessageQueue>, AllocateError> {
        let Some(index) = index_of(own, members) else { return Ok(Vec::new()) };
        Ok(queues.iter().skip(index).step_by(members.len()).cloned().collect())
    }
}

/// A fixed list, each member having its own: `by_config`.
///
/// Nobody sees to it that the lists of all members are all queues. A queue that is listed and does not exist is waited for.
/// Those of the retry topic are shared [`Averagely`] where they are not listed, since nobody would have failed messages again
/// otherwise; Java's members take none of them.
#[derive(Debug, Clone, Default)]
pub struct ByConfig(BTreeSet<MessageQueue>);

impl ByConfig {
    /// This member has these `queues`, names as on the wire.
    pub fn new(queues: impl IntoIterator<Item = MessageQueue>) -> Self {
        Self(queues.into_iter().collect())
    }
}

impl AllocateStrategy for ByConfig {
    fn name(&self) -> &str {
        "CONFIG"
    }

    fn allocate(
        &self,
        group: &str,
        own: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Result<Vec<MessageQueue>, AllocateError> {
        let listed: Vec<_> = queues.iter().filter(|queue| self.0.contains(queue)).cloned().collect();
        let is_retry = queues.first().is_some_and(|queue| namespace::is_retry_topic(&queue.topic));
        if listed.is_empty() && is_retry {
            return Averagely.allocate(group, own, queues, members);
        }
        Ok(listed)
    }
}

/// The place of a member in the list of all; nowhere while brokers do not list it yet.
fn index_of(own: &str, members: &[String]) -> Option<usize> {
    members.iter().position(|member| member == own)
}

/// What a configuration says.
pub(crate) fn configured(
    allocate: Allocate,
    rooms: &[String],
    queues: &[FixedQueue],
    namespace: Option<&str>,
) -> Arc<dyn AllocateStrategy> {
    match allocate {
        Allocate::Averagely => Arc::new(Averagely),
        Allocate::Circle => Arc::new(Circle),
        Allocate::ConsistentHash => Arc::new(ConsistentHash::default()),
        Allocate::ByConfig => Arc::new(ByConfig::new(queues.iter().map(|queue| {
            let topic = namespace::wrap(namespace, &queue.topic);
            MessageQueue::new(topic, queue.broker.as_str(), i32::try_from(queue.queue).unwrap_or(i32::MAX))
        }))),
        Allocate::MachineRoom => Arc::new(MachineRoom::new(rooms.iter().cloned())),
        Allocate::MachineRoomNearby => Arc::new(MachineRoomNearby::new(Averagely, NamedRooms)),
    }
}

/// That a member whose share depends on its room has one.
///
/// # Errors
///
/// What is missing, for people.
pub(crate) fn check_room(
    is_configured: bool,
    allocate: Allocate,
    cluster: &ClusterConfig,
) -> Result<(), &'static str> {
    match allocate {
        Allocate::MachineRoomNearby if is_configured && cluster.client.unit.is_none() => Err(
            "`allocate: machine_room_nearby` needs `client.unit`, the room of this process, such as `client: { unit: room1 }`",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The queue ids of each member.
    pub(super) fn shares(
        strategy: &dyn AllocateStrategy,
        queues: &[MessageQueue],
        members: &[&str],
    ) -> Vec<Vec<i32>> {
        let members: Vec<_> = members.iter().map(|member| (*member).to_owned()).collect();
        let share = |own: &String| {
            let share = strategy.allocate("g", own, queues, &members).unwrap();
            share.iter().map(|queue| queue.queue_id).collect()
        };
        members.iter().map(share).collect()
    }

    pub(super) fn queues(broker: &str, ids: std::ops::Range<i32>) -> Vec<MessageQueue> {
        ids.map(|id| MessageQueue::new("T", broker, id)).collect()
    }

    pub(super) const MEMBERS: [&str; 4] = ["m0", "m1", "m2", "m3"];

    #[test]
    fn averagely_gives_neighbours() {
        for (count, members, expected) in [
            (8, 3, vec![vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]),
            (10, 4, vec![vec![0, 1, 2], vec![3, 4, 5], vec![6, 7], vec![8, 9]]),
            (4, 4, vec![vec![0], vec![1], vec![2], vec![3]]),
            (2, 3, vec![vec![0], vec![1], vec![]]),
        ] {
            assert_eq!(shares(&Averagely, &queues("b", 0..count), &MEMBERS[..members]), expected);
        }
    }

    #[test]
    fn circle_deals_them_out() {
        for (count, members, expected) in [
            (8, 3, vec![vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]),
            (10, 4, vec![vec![0, 4, 8], vec![1, 5, 9], vec![2, 6], vec![3, 7]]),
            (4, 4, vec![vec![0], vec![1], vec![2], vec![3]]),
            (2, 3, vec![vec![0], vec![1], vec![]]),
        ] {
            assert_eq!(shares(&Circle, &queues("b", 0..count), &MEMBERS[..members]), expected);
        }
    }

    #[test]
    fn a_fixed_list_is_taken_as_it_is_and_retries_are_shared() {
        let listed = ["T/b/1", "T/b/3", "T/b/9", "other/b/0"].map(|queue| queue.parse().unwrap());
        let strategy = configured(Allocate::ByConfig, &[], &listed, None);
        assert_eq!(shares(&*strategy, &queues("b", 0..4), &["m0"]), [[1, 3]]);
        let retries = [MessageQueue::new("%RETRY%g", "b", 0), MessageQueue::new("%RETRY%g", "c", 7)];
        assert_eq!(shares(&*strategy, &retries, &["m0", "m1"]), [[0], [7]]);

        let strategy = configured(Allocate::ByConfig, &[], &listed, Some("ns"));
        assert_eq!(shares(&*strategy, &[MessageQueue::new("ns%T", "b", 3)], &["m0"]), [[3]]);
    }

    #[test]
    fn a_member_that_brokers_do_not_list_yet_gets_nothing() {
        let members = ["other".to_owned()];
        for allocate in [
            Allocate::Averagely,
            Allocate::Circle,
            Allocate::ConsistentHash,
            Allocate::MachineRoom,
            Allocate::MachineRoomNearby,
        ] {
            let strategy = configured(allocate, &["room".to_owned()], &[], None);
            let queues = queues("room@b", 0..4);
            assert!(strategy.allocate("g", "own", &queues, &members).unwrap().is_empty(), "{allocate:?}");
        }
    }
}
