//! The end of a consumer: it pulls no more, lets its handlers finish, stores the offsets and says goodbye.
//!
//! While handlers finish, the group goes on. Members that join take some of the queues already, and begin at what is
//! stored: so that is always what is done by now, and what is another member's is told nothing more. The Java client does
//! neither, so that messages come twice, and an older offset takes the place of a newer one. Source: `behaviour.md`
//! section 3.3.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Shared;
use super::queue::OwnedQueue;
use super::rebalance::rest;
use super::share::share;
use crate::message::MessageQueue;

/// How long pullers and scheduled tasks get to end; none of them waits for anything at that point.
const TASKS_END: Duration = Duration::from_secs(1);

impl Shared {
    /// Stops; returns how many handlers were still at work after `limit`.
    pub(super) async fn stop(self: &Arc<Self>, limit: Duration) -> usize {
        self.shutdown.cancel();
        self.pulling.cancel();
        let stuck = self.pulling.join(TASKS_END).await;
        if stuck > 0 {
            warn!(group = %self.group, stuck, "tasks did not end in time");
        }
        let abandoned = self.wait_for_handlers(limit).await;
        if abandoned > 0 {
            warn!(group = %self.group, abandoned, ?limit, "handlers did not finish within `shutdown_timeout`; their messages will be delivered again");
        }
        self.persist_each("some messages will come twice").await;
        // From here on nobody may move the offsets: others own the queues.
        self.owned().iter().for_each(|owned| owned.drop_queue());
        self.offsets.close();
        self.free_locks(TASKS_END).await;
        self.client.remove_consumer(&self.group).await;
        abandoned
    }

    async fn wait_for_handlers(self: &Arc<Self>, limit: Duration) -> usize {
        let have_ended = CancellationToken::new();
        let wait = async {
            let abandoned = self.handlers.join(limit).await;
            have_ended.cancel();
            abandoned
        };
        let (abandoned, ()) = tokio::join!(wait, self.give_way(&have_ended));
        abandoned
    }

    /// Keeps what is stored up to date, and lets go of what other members have, until the handlers have ended.
    async fn give_way(self: &Arc<Self>, have_ended: &CancellationToken) {
        while !have_ended.is_cancelled() {
            self.persist_all().await;
            self.release_lost(have_ended).await;
            // An offset on its way is waited for: it must not come after a later one.
            let every = self.client.config().offset_interval;
            let _ = have_ended.run_until_cancelled(rest(&self.wake, every)).await;
        }
    }

    /// Lets go of the queues that are another member's by now; of those that are consumed in order, once their handlers have
    /// ended: until then nobody else gets their locks.
    async fn release_lost(&self, have_ended: &CancellationToken) {
        if self.offsets.is_local() {
            return;
        }
        let topics: BTreeSet<_> = self.owned().iter().map(|owned| Arc::clone(&owned.queue.topic)).collect();
        for topic in &topics {
            let Some(share) = have_ended.run_until_cancelled(self.share_of(topic)).await else { return };
            let Some(share) = share else { continue };
            let is_lost = |queue: &MessageQueue| queue.topic == *topic && !share.contains(queue);
            let is_idle =
                |owned: &OwnedQueue| owned.order.as_ref().is_none_or(|order| order.worker.is_empty());
            for owned in self.owned().iter().filter(|owned| is_lost(&owned.queue) && is_idle(owned)) {
                self.forget(owned);
                if owned.order.is_some() {
                    self.depart(owned).await;
                } else {
                    owned.drop_queue();
                    self.persist_last(owned).await;
                    debug!(group = %self.group, queue = %owned.queue, "the queue was given up");
                }
            }
        }
    }

    /// The queues of `topic` that are still this member's, if that is to be known.
    async fn share_of(&self, topic: &Arc<str>) -> Option<Vec<MessageQueue>> {
        match &self.pop {
            Some(pop) => self.assigned(pop, topic).await.ok().map(|assigned| assigned.pulled),
            None => {
                let share = share(&self.client, &self.group, topic, self.strategy.as_ref()).await;
                share.ok().map(|share| share.queues)
            }
        }
    }
}
