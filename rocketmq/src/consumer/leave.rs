//! Gives up the queues of topics that are not subscribed any more.
//!
//! Nothing more of them is asked for or handed out. What listeners have is finished and settled as ever, and the offset is
//! stored from which the group goes on once the topic is subscribed again: the Java client does neither, so that messages
//! come twice. Source: `behaviour.md` section 3.2.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time;
use tracing::{debug, warn};

use super::Shared;
use super::pop::Pop;
use super::process_queue::ProcessQueue;
use super::queue::OwnedQueue;

impl Shared {
    /// Begins to give up what is not subscribed, without waiting for listeners.
    pub(super) fn leave_unsubscribed(self: &Arc<Self>) {
        let table = self.subscriptions.table();
        let leftovers = self.pop.as_ref().map(Pop::leftover_topics).unwrap_or_default();
        let mut left: BTreeMap<Arc<str>, Vec<Arc<OwnedQueue>>> = BTreeMap::new();
        for (owned, stopping) in self.lock_owned().values() {
            let topic = &owned.queue.topic;
            let stays = table.wanted(topic).is_some() || leftovers.contains(topic);
            if !stays && !stopping.is_cancelled() {
                owned.with(ProcessQueue::close);
                stopping.cancel();
                left.entry(Arc::clone(topic)).or_default().push(Arc::clone(owned));
            }
        }
        for (topic, queues) in left {
            let shared = Arc::clone(self);
            self.handlers.spawn("leave a topic", async move { shared.leave_topic(&topic, queues).await });
        }
        if let Some(pop) = &self.pop {
            self.leave_unsubscribed_pops(pop);
        }
    }

    /// Lets go of queues that are closed. They stay owned, and are not taken anew, until their offsets are stored.
    async fn leave_topic(self: &Arc<Self>, topic: &Arc<str>, queues: Vec<Arc<OwnedQueue>>) {
        if self.order.is_some() {
            queues.iter().for_each(|owned| self.leave(owned));
        } else if !self.leave_settled(topic, queues).await {
            return;
        }
        self.share_changed(topic).await;
        // The topic may have been subscribed again meanwhile.
        self.wake.notify_one();
    }

    /// Waits until listeners have nothing of the queues any more, and stores the offsets. `false`: the consumer is being
    /// shut down, and does all that itself.
    async fn leave_settled(self: &Arc<Self>, topic: &Arc<str>, queues: Vec<Arc<OwnedQueue>>) -> bool {
        let limit = self.client.config().shutdown_timeout;
        let settled = async {
            for owned in &queues {
                owned.settled().await;
            }
        };
        match self.stopping().run_until_cancelled(time::timeout(limit, settled)).await {
            Some(Ok(())) => {}
            Some(Err(_)) => {
                warn!(group = %self.group, %topic, ?limit, "handlers of a topic that was left did not finish within `shutdown_timeout`; their messages will be delivered again");
            }
            None => return false,
        }
        for owned in queues.iter().filter(|owned| !owned.is_dropped()) {
            owned.drop_queue();
            // Its offset is what it will be: if it comes twice, it is the same.
            if self.stopping().run_until_cancelled(self.persist_last(owned)).await.is_none() {
                return false;
            }
            self.forget(owned);
            debug!(group = %self.group, queue = %owned.queue, "the queue was given up");
        }
        self.offsets.flush().await;
        true
    }
}
