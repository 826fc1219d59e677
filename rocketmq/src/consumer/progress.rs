//! How far a consumer is, queue by queue: for the test kit, which waits until everything is settled.

use std::sync::Arc;

use super::pop::{Pop, PopQueue};
use super::{PushConsumer, Shared};
use crate::message::MessageQueue;

/// How far a consumer is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The group on the wire.
    pub(crate) group: Arc<str>,
    /// Every topic on the wire that it takes messages from, retry topic included.
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) is_suspended: bool,
    pub(crate) is_orderly: bool,
    pub(crate) queues: Vec<QueueProgress>,
    /// What it pops from, where it does.
    pub(crate) popped: Vec<Arc<PopQueue>>,
}

/// How far it is in one queue.
#[derive(Debug)]
pub(crate) struct QueueProgress {
    /// On the wire.
    pub(crate) queue: Arc<MessageQueue>,
    /// As listeners see it.
    pub(crate) shown: Arc<MessageQueue>,
    /// Everything before this offset was pulled.
    pub(crate) pulled_to: i64,
    /// The offsets that were pulled and are not done.
    pub(crate) unfinished: Vec<i64>,
}

impl PushConsumer {
    /// How far it is; `None` where it does not run.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let shared = self.inner.running.get()?;
        Some(Progress {
            group: Arc::clone(&shared.group),
            topics: shared.subscriptions.table().topics().cloned().collect(),
            is_suspended: shared.is_suspended(),
            is_orderly: shared.order.is_some(),
            queues: shared.queues(),
            popped: shared.pop.as_ref().map(Pop::queues).unwrap_or_default(),
        })
    }

    /// Ends as if the process had been killed: nothing is stored, nobody is told.
    pub(crate) fn abandon(&self) {
        if let Some(shared) = self.inner.running.get() {
            shared.shutdown.cancel();
            shared.owned().iter().for_each(|owned| owned.drop_queue());
            shared.handlers.cancel();
            // All other tasks of the consumer are children of these.
            shared.client.tasks().cancel();
        }
    }
}

impl Shared {
    fn queues(&self) -> Vec<QueueProgress> {
        let of = |owned: Arc<super::queue::OwnedQueue>| {
            let (pulled_to, unfinished) = owned.with(|held| (held.pulled_up_to(), held.unfinished()));
            QueueProgress {
                queue: Arc::clone(&owned.queue),
                shown: Arc::clone(owned.origin.queue()),
                pulled_to,
                unfinished,
            }
        };
        self.owned().into_iter().map(of).collect()
    }
}
