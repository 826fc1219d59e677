//! Tells an application which queues its consumer has by now.
//!
//! Source: `behaviour.md` section 3.4 "Announce", `MessageQueueListener`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tracing::{debug, error};

use super::Shared;
use super::allocate::AllocateStrategy;
use crate::message::MessageQueue;
use crate::tasks::panic_message;

/// The queues of a topic that a consumer has are others than before.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct QueueChange<'a> {
    /// The consumer group, as on the wire.
    pub group: &'a str,
    /// The topic; the retry topic of the group, `%RETRY%group`, is one as well.
    pub topic: &'a str,
    /// All queues of the topic that can be read.
    pub all: &'a [MessageQueue],
    /// Those that this consumer has.
    pub owned: &'a [MessageQueue],
}

pub(super) type QueueListener = Arc<dyn Fn(&QueueChange<'_>) + Send + Sync>;

/// What a program brings along about queues: how they are shared, and who wants to hear of it.
#[derive(Clone, Default)]
pub(super) struct OnQueues {
    pub(super) strategy: Option<Arc<dyn AllocateStrategy>>,
    pub(super) listener: Option<QueueListener>,
}

impl fmt::Debug for OnQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnQueues")
            .field("strategy", &self.strategy.as_ref().map(|strategy| strategy.name()))
            .field("listener", &self.listener.is_some())
            .finish()
    }
}

impl Shared {
    /// Tells the listener what is owned of `topic` now.
    pub(super) async fn announce(&self, topic: &Arc<str>) {
        let Some(listener) = &self.queue_listener else { return };
        let all = match self.client.route(topic).await {
            Ok(route) => route.subscribe.iter().map(|queue| self.shown_queue(queue)).collect(),
            Err(error) => {
                debug!(group = %self.group, %topic, %error, "the topic that has lost its queues has no route");
                Vec::new()
            }
        };
        let owned = self.owned().into_iter().filter(|owned| owned.queue.topic == *topic);
        let mut owned: Vec<_> = owned.map(|owned| self.shown_queue(&owned.queue)).collect();
        owned.sort_unstable();
        let topic = crate::client::namespace::strip(Some(self.subscriptions.namespace()), topic);
        let change = QueueChange { group: &self.group, topic, all: &all, owned: &owned };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| listener(&change))) {
            error!(group = %self.group, topic, reason = panic_message(panic.as_ref()), "the listener of queue changes panicked");
        }
    }

    fn shown_queue(&self, queue: &MessageQueue) -> MessageQueue {
        self.shown(&Arc::new(queue.clone())).as_ref().clone()
    }
}
