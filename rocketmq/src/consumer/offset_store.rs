//! Where the offsets of a group are kept: at the brokers, or, of a broadcast group, in a file of each member.
//!
//! Source: `behaviour.md` section 3.10.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tracing::{debug, warn};

use super::local_offsets::LocalOffsets;
use super::stored_offset::{Due, Told};
use crate::client::MqClient;
use crate::message::MessageQueue;
use crate::remoting::RequestError;

/// Where the offsets of a group are kept.
#[derive(Debug)]
pub(crate) enum OffsetStore {
    /// At the brokers, for whichever member has the queue.
    Brokers { client: Arc<MqClient>, group: Arc<str>, firsts: FirstStores },
    /// On this machine, for this member alone.
    Local(LocalOffsets),
}

/// Lets the first offset of a topic reach a broker before the others: a broker that gets several at the same time, and has
/// none of the topic and group, may keep only one of them. Source: `ConsumerOffsetManager.commitOffset`.
#[derive(Debug, Default)]
pub(crate) struct FirstStores(Mutex<HashMap<TopicAtBroker, Arc<OnceCell<()>>>>);

type TopicAtBroker = (Arc<str>, Arc<str>);

impl FirstStores {
    /// Does `store` while others wait, if it is the first one; whatever becomes of it, the others are not.
    async fn alone<F: Future>(&self, queue: &MessageQueue, store: impl FnOnce() -> F) -> Option<F::Output> {
        let key = (Arc::clone(&queue.topic), Arc::clone(&queue.broker_name));
        let first = {
            let mut firsts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(firsts.entry(key).or_default())
        };
        let mut done = None;
        first.get_or_init(async || done = Some(store().await)).await;
        done
    }
}

impl OffsetStore {
    pub(super) fn at_brokers(client: Arc<MqClient>, group: Arc<str>) -> Self {
        Self::Brokers { client, group, firsts: FirstStores::default() }
    }

    /// The offset of a queue, where there is one.
    pub(super) async fn read(&self, queue: &MessageQueue) -> Result<Option<i64>, RequestError> {
        match self {
            Self::Brokers { client, group, .. } => client.query_offset(group, queue).await,
            Self::Local(offsets) => Ok(offsets.get(queue)),
        }
    }

    /// Stores what is due of a queue, or finds out that it need not be stored.
    pub(super) async fn tell(&self, queue: &MessageQueue, due: Due) -> Result<Told, RequestError> {
        match due {
            Due::Moved(offset) => self.write(queue, offset).await,
            Due::Doubted { offset, doubts } => {
                let known = self.read(queue).await?;
                // Another member may be further, if this one was gone for long.
                if known.is_some_and(|known| offset <= known) {
                    return Ok(Told::Known { doubts });
                }
                self.write(queue, offset).await
            }
        }
    }

    /// Stores an offset; a local one with the next [`flush`](Self::flush).
    pub(super) async fn write(&self, queue: &MessageQueue, offset: i64) -> Result<Told, RequestError> {
        let is_to_stay = match self {
            Self::Brokers { client, group, firsts } => {
                let store = || client.update_offset(group, queue, offset);
                match firsts.alone(queue, store).await {
                    Some(first) => first?,
                    None => store().await?,
                }
            }
            Self::Local(offsets) => {
                offsets.put(queue, offset);
                true
            }
        };
        debug!(%queue, offset, is_to_stay, "offset stored");
        // What a slave has is told again once its master comes back, even if nothing has been handled since.
        Ok(if is_to_stay { Told::Stored(offset) } else { Told::AtSlave })
    }

    /// Brings to the disk what is kept on this machine.
    pub(super) async fn flush(&self) {
        if let Self::Local(offsets) = self
            && let Err(error) = offsets.flush().await
        {
            warn!(%error, "the offsets of a broadcast group could not be written, it is tried again");
        }
    }

    /// Makes room for a successor on this machine.
    pub(super) fn close(&self) {
        if let Self::Local(offsets) = self {
            offsets.close();
        }
    }

    /// Whether this member alone decides: it has all queues, and nobody gets a failed message again.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_offset_of_a_topic_is_stored_alone_and_a_failure_of_it_holds_nobody_up() {
        let firsts = FirstStores::default();
        let queue = |topic: &str, id| MessageQueue::new(topic, "b", id);
        let (answer, answered) = oneshot::channel();
        let (one, other) = (queue("t", 0), queue("t", 1));
        let context = &mut Context::from_waker(Waker::noop());
        let mut first = pin!(firsts.alone(&one, || answered));
        assert!(first.as_mut().poll(context).is_pending());
        let mut second = pin!(firsts.alone(&other, async || 2));
        assert!(second.as_mut().poll(context).is_pending(), "it waits for the first");
        assert_eq!(firsts.alone(&queue("another", 0), async || 1).await, Some(1));
        drop(answer);
        assert!(first.await.is_some_and(|answer: Result<(), _>| answer.is_err()));
        assert_eq!(second.await, None);
    }
}
