//! POP consumption: brokers hand out messages one by one, to any member, and want each acknowledged.
//!
//! [`request_mode`] sees to it that brokers can, and know that they shall; [`assignment`] asks them which queues are
//! this member's, and whether their messages are pulled or popped. A [`popper`] asks for the messages of one
//! [`queue`], [`answer`] reads what came, [`attempt`] calls the listener and settles what came of it, [`held`] keeps
//! others from seeing a message meanwhile, [`acks`] tells the broker what is done, [`unreadable`] sees to what is no
//! message. Where a message is pulled, all goes the way of every other group: an operator may change the mode while
//! members run.
//!
//! Source: `behaviour.md` section 4.1, `protocol.md` section 2.11.

mod acks;
mod answer;
mod assignment;
mod attempt;
mod held;
mod popper;
mod queue;
mod request_mode;
mod unreadable;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) use assignment::Assigned;
pub(crate) use queue::PopQueue;

use self::request_mode::ModesSet;
use super::running_info::Clock;
use crate::listener::Delivery;
use crate::message::MessageQueue;
use crate::protocol::body::SubscriptionData;
use crate::protocol::broker_calls::PopQueueInfo;

/// What a consumer has beside the rest where brokers share the queues and may say POP.
#[derive(Debug, Default)]
pub(super) struct Pop {
    /// The queues whose messages are popped here, and what ends their tasks.
    queues: Mutex<HashMap<MessageQueue, (Arc<PopQueue>, CancellationToken)>>,
    /// Retry topics of topics that are pulled now, and were popped once: what is left in them is pulled as well.
    leftovers: Mutex<BTreeMap<Arc<str>, SubscriptionData>>,
    modes: Mutex<ModesSet>,
}

impl Pop {
    /// What is popped from.
    #[cfg(feature = "testing")]
    pub(super) fn queues(&self) -> Vec<Arc<PopQueue>> {
        self.lock_queues().values().map(|(owned, _)| Arc::clone(owned)).collect()
    }

    /// Whether brokers know where the group begins in everything that is popped from.
    pub(super) fn has_begun(&self) -> bool {
        self.lock_queues().values().all(|(owned, _)| owned.has_begun())
    }

    /// The subscriptions of what is left from POP, as heartbeats say them.
    pub(super) fn leftovers(&self) -> Vec<SubscriptionData> {
        self.lock_leftovers().values().cloned().collect()
    }

    /// The topics of what is left from POP.
    pub(super) fn leftover_topics(&self) -> Vec<Arc<str>> {
        self.lock_leftovers().keys().cloned().collect()
    }

    /// What operators see of the queues that are popped from.
    pub(super) fn describe(&self, clock: Clock) -> BTreeMap<MessageQueue, PopQueueInfo> {
        let info = |(owned, _): &(Arc<PopQueue>, CancellationToken)| PopQueueInfo {
            wait_ack_count: owned.unacked(),
            droped: false,
            last_pop_timestamp: clock.unix_ms(owned.popped_at()),
        };
        self.lock_queues().iter().map(|(queue, owned)| (queue.clone(), info(owned))).collect()
    }

    /// What listeners are called with now, and since when.
    pub(super) fn calls(&self) -> Vec<(Instant, Delivery)> {
        self.lock_queues().values().flat_map(|(owned, _)| owned.calls()).collect()
    }

    /// What is popped from of a topic.
    pub(super) fn queues_of(&self, topic: &str) -> Vec<Arc<PopQueue>> {
        let queues = self.lock_queues();
        let of_topic = queues.values().filter(|(owned, _)| *owned.queue.topic == *topic);
        of_topic.map(|(owned, _)| Arc::clone(owned)).collect()
    }

    /// Gives up the pops that wait at brokers, all at the same time; see [`PopQueue::give_up_pop`].
    pub(super) async fn give_up_pops(queues: Vec<Arc<PopQueue>>) {
        let mut ends = JoinSet::new();
        for queue in queues {
            ends.spawn(async move { queue.give_up_pop().await });
        }
        while ends.join_next().await.is_some() {}
    }

    /// Has every task look again at what it waits for.
    pub(super) fn wake(&self) {
        self.lock_queues().values().for_each(|(owned, _)| owned.room.notify_one());
    }

    fn lock_leftovers(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, SubscriptionData>> {
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_queues(&self) -> MutexGuard<'_, HashMap<MessageQueue, (Arc<PopQueue>, CancellationToken)>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
