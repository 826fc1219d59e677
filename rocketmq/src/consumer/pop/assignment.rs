//! Which queues are this member's, as a broker says, and in which mode their messages come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::Pop;
use super::acks::{Acker, WAITING};
use super::popper::Popper;
use super::queue::PopQueue;
use crate::client::namespace;
use crate::config::Allocate;
use crate::consumer::Shared;
use crate::consumer::share::Unshared;
use crate::consumer::subscription::union;
use crate::message::MessageQueue;
use crate::protocol::pop::{MessageRequestMode, retry_topic_v1, retry_topic_v2};
use crate::remoting::Address;

/// A queue that was not popped from for so long has lost its task, and is taken anew.
const POP_MAX_IDLE: Duration = Duration::from_secs(120);

/// The share of this member of one topic.
pub(in crate::consumer) struct Assigned {
    pub(in crate::consumer) pulled: Vec<MessageQueue>,
    pub(in crate::consumer) popped: Vec<MessageQueue>,
}

impl Shared {
    /// Asks a broker of `topic` which of its queues are this member's.
    pub(in crate::consumer) async fn assigned(
        &self,
        pop: &Pop,
        topic: &Arc<str>,
    ) -> Result<Assigned, Unshared> {
        self.client.route(topic).await.map_err(Unshared::NoRoute)?;
        self.keep_modes(pop, topic).await;
        let Some(address) = self.client.any_broker_of(topic) else { return Err(Unshared::Unknown) };
        let ask = || self.client.query_assignment(&address, &self.group, topic, self.strategy_name());
        let asked = match ask().await {
            // It says so, too, of a member that it has not heard of where it has heard of others.
            Ok(Some(all)) if all.is_empty() => match self.is_known_at(&address).await {
                true => ask().await,
                false => Ok(None),
            },
            asked => asked,
        };
        let all = match asked {
            Ok(Some(all)) => all,
            // It has not heard of us, or of the topic: it is new, or was restarted.
            Ok(None) => {
                self.client.heartbeat_soon();
                return Err(Unshared::Unknown);
            }
            Err(error) => {
                debug!(group = %self.group, %topic, %error, "the broker does not say which queues are ours, they stay as they are");
                return Err(Unshared::Unknown);
            }
        };
        let (popped, pulled): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.mode == MessageRequestMode::Pop);
        let queues = |all: Vec<crate::protocol::pop::Assignment>| {
            all.into_iter().map(|one| one.message_queue).collect()
        };
        Ok(Assigned { pulled: queues(pulled), popped: queues(popped) })
    }

    /// Whether the broker at `address` has heard of this member.
    async fn is_known_at(&self, address: &Address) -> bool {
        let members = self.client.consumer_ids_at(address, &self.group).await;
        members.is_ok_and(|members| members.iter().any(|member| member == self.client.id()))
    }

    /// Makes `assigned` what is popped of `topic`, and sees to what is left from the other mode.
    pub(in crate::consumer) fn pop_from(self: &Arc<Self>, pop: &Pop, topic: &Arc<str>, assigned: &Assigned) {
        let wanted: BTreeSet<&MessageQueue> = assigned.popped.iter().collect();
        let max_idle = POP_MAX_IDLE.max(self.client.config().pull_timeout * 2);
        let mut queues = pop.lock_queues();
        // Not before nobody else can change the queues: the topic may have been left while the broker was asked.
        if self.subscriptions.table().wanted(topic).is_none() {
            return;
        }
        self.note_leftovers(pop, topic, assigned);
        let before = queues.len();
        queues.retain(|queue, (owned, stopping)| {
            let is_stuck = max_idle < owned.popped_at().elapsed();
            if is_stuck {
                warn!(group = %self.group, %queue, "nothing was popped for long, the queue is taken anew");
            }
            let stays = queue.topic != *topic || !is_stuck && wanted.contains(queue);
            if !stays {
                stopping.cancel();
            }
            stays
        });
        let mut changed = queues.len() < before;
        for queue in assigned.popped.iter().collect::<BTreeSet<_>>() {
            if queues.contains_key(queue) || self.stopping().is_cancelled() {
                continue;
            }
            let counts = self.stats.of(&queue.topic, Instant::now());
            let owned = Arc::new(PopQueue::new(queue.clone(), counts));
            let stopping = self.stopping().child_token();
            queues.insert(queue.clone(), (Arc::clone(&owned), stopping.clone()));
            let (acks, to_send) = mpsc::channel(WAITING);
            self.releases
                .at(&queue.broker_name)
                .spawn("acknowledge", Acker::new(Arc::clone(self), Arc::clone(&owned), to_send).run());
            self.pulling.spawn("popper", Popper::new(Arc::clone(self), owned, acks, stopping).run());
            changed = true;
        }
        if changed {
            info!(group = %self.group, %topic, queues = assigned.popped.len(), "what this member pops from has changed");
        }
    }

    /// Ends what pops from topics that are not subscribed any more. What of them is not acknowledged waits in their retry
    /// topics until they are subscribed again.
    pub(in crate::consumer) fn leave_unsubscribed_pops(&self, pop: &Pop) {
        let table = self.subscriptions.table();
        pop.lock_queues().retain(|queue, (_, stopping)| {
            let stays = table.wanted(&queue.topic).is_some();
            if !stays {
                stopping.cancel();
            }
            stays
        });
    }

    /// What was popped and not acknowledged waits in a retry topic of its own, which is popped with the topic. Where the
    /// topic is pulled now, so is that.
    fn note_leftovers(&self, pop: &Pop, topic: &Arc<str>, assigned: &Assigned) {
        if namespace::is_retry_topic(topic) {
            return;
        }
        let retry_topics = [retry_topic_v1(&self.group, topic), retry_topic_v2(&self.group, topic)];
        let mut leftovers = pop.lock_leftovers();
        let mut changed = false;
        for retry_topic in retry_topics {
            if assigned.popped.is_empty() && !assigned.pulled.is_empty() {
                let version = self.subscriptions.table().version(topic).unwrap_or_default();
                changed |= !leftovers.contains_key(&retry_topic);
                leftovers.entry(retry_topic).or_insert_with_key(|name| union(name, &[], version));
            } else if !assigned.popped.is_empty() {
                changed |= leftovers.remove(&retry_topic).is_some();
            }
        }
        if changed {
            self.client.heartbeat_soon();
        }
    }

    /// Brokers know two strategies; the configuration allows no other here.
    pub(super) fn strategy_name(&self) -> &'static str {
        match self.config.allocate {
            Allocate::Circle => "AVG_BY_CIRCLE",
            _ => "AVG",
        }
    }
}
