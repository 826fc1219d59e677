//! The end of a consumer: it pulls no more, lets its handlers finish, stores the offsets and says goodbye.
//!
//! While handlers finish, the group goes on. Members that join take some of the queues already, and begin at what is
//! stored: so that is always what is done by now, and what is another member's is told nothing more. The Java client does
//! neither, so that messages come twice, and an older offset takes the place of a newer one. Source: `behaviour.md`
//! section 3.3.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;

use super::Shared;
use super::goodbye::say_goodbye;
use super::queue::OwnedQueue;
use super::rebalance::rest;
use super::share::share;
use crate::message::MessageQueue;

/// How long pullers and scheduled tasks get to end; none of them waits for anything at that point.
const TASKS_END: Duration = Duration::from_secs(1);

impl Shared {
    /// Stops; returns how many handlers were still at work after `limit`. `at_work` is let go once no handler is.
    pub(super) async fn stop(self: &Arc<Self>, limit: Duration, at_work: Option<TaskTrackerToken>) -> usize {
        let began = Instant::now();
        self.shutdown.cancel();
        self.storing.cancel();
        self.pulling.cancel();
        let stuck = self.pulling.join(TASKS_END).await;
        if stuck > 0 {
            warn!(group = %self.group, stuck, "tasks did not end in time");
        }
        let end = async move {
            let abandoned = self.handlers.join(limit.saturating_sub(began.elapsed())).await;
            self.drained.cancel();
            drop(at_work);
            if abandoned > 0 {
                warn!(group = %self.group, abandoned, ?limit, "handlers did not finish within `shutdown_timeout`; their messages will be delivered again");
            }
            self.leave_group().await;
            abandoned
        };
        tokio::select! {
            abandoned = end => abandoned,
            // To the end: an offset that is on its way must not come after a later one.
            never = self.give_way() => match never {},
        }
    }

    /// Keeps what is stored up to date, and lets go of what other members have, until the handlers have ended.
    async fn give_way(self: &Arc<Self>) -> Infallible {
        while !self.drained.is_cancelled() {
            self.persist_all().await;
            self.release_lost().await;
            let every = self.client.config().offset_interval;
            let _ = self.drained.run_until_cancelled(rest(&self.wake, every)).await;
        }
        pending().await
    }

    /// Lets go of the queues that are another member's by now; of those that are consumed in order, once their handlers have
    /// ended: until then nobody else gets their locks.
    async fn release_lost(self: &Arc<Self>) {
        if self.offsets.is_local() {
            return;
        }
        let topics: BTreeSet<_> = self.owned().iter().map(|owned| Arc::clone(&owned.queue.topic)).collect();
        for topic in &topics {
            let share = self.drained.run_until_cancelled(self.share_of(topic)).await;
            if self.drained.is_cancelled() {
                return;
            }
            let Some(Some(share)) = share else { continue };
            let is_lost = |queue: &MessageQueue| queue.topic == *topic && !share.contains(queue);
            let is_idle =
                |owned: &OwnedQueue| owned.order.as_ref().is_none_or(|order| order.worker.is_empty());
            for owned in self.owned().iter().filter(|owned| is_lost(&owned.queue) && is_idle(owned)) {
                self.release(owned);
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

    /// Stores the offsets, frees the locks and says goodbye, within one `request_timeout`.
    async fn leave_group(self: &Arc<Self>) {
        let until = Instant::now() + self.client.config().request_timeout;
        self.order.iter().for_each(|order| order.tasks.cancel());
        if self.offsets.is_local() {
            self.persist_each(self.owned(), "some messages will come twice").await;
        }
        let brokers = if self.offsets.is_local() { BTreeSet::new() } else { self.brokers() };
        say_goodbye(&self.client, &self.group, until, brokers, |broker| Arc::clone(self).settle_at(broker))
            .await;
        // From here on nobody may move the offsets: others own the queues.
        self.owned().iter().for_each(|owned| owned.drop_queue());
        self.offsets.close();
        for tasks in self.order.iter().map(|order| &order.tasks).chain([&self.storing]) {
            let stuck = tasks.join(until.saturating_duration_since(Instant::now())).await;
            if stuck > 0 {
                warn!(group = %self.group, stuck, "tasks did not end in time");
            }
        }
    }

    /// The brokers of which this member has queues, or had.
    fn brokers(&self) -> BTreeSet<Arc<str>> {
        let owned = self.owned().into_iter().chain(self.order.iter().flat_map(|order| order.claimed()));
        let brokers = owned.map(|owned| Arc::clone(&owned.queue.broker_name));
        brokers.chain(self.releases.brokers()).collect()
    }

    /// Stores the last offsets at one broker, and frees the locks that it gave.
    async fn settle_at(self: Arc<Self>, broker: Arc<str>) {
        self.releases.at(&broker).join(self.client.config().request_timeout).await;
        let mut owned = self.owned();
        owned.retain(|owned| owned.queue.broker_name == broker);
        self.persist_each(owned.clone(), "some messages will come twice").await;
        owned.iter().for_each(|owned| owned.drop_queue());
        self.free_locks(&broker).await;
    }
}
