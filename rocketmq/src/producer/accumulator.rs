//! Automatic batching: messages that are sent at nearly the same time travel together, and each caller gets its own
//! result. Source: `behaviour.md` section 2.5, `ProduceAccumulator`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{self, Instant};

use super::deliver::Target;
use super::in_flight::OnItsWay;
use super::prepare::Item;
use super::running::Running;
use super::stats::Topic;
use super::{SendError, SendResult};
use crate::message::{Message, properties};

/// The batches that are open.
#[derive(Debug, Default)]
pub(super) struct Accumulator {
    open: Mutex<HashMap<Key, Open>>,
    next_id: AtomicU64,
}

/// What messages have in common that travel together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    topic: Arc<str>,
    target: Target,
    /// A broker that stores a batch as one record files it under one tag.
    tag: Option<String>,
    /// `false` for those that do not wait until they are stored.
    wait_store: bool,
}

/// A batch that others may still join.
#[derive(Debug)]
struct Open {
    /// The key may have another batch when the time of this one is over.
    id: u64,
    batch: Batch,
    /// Ends the wait of the task that sends it.
    full: oneshot::Sender<Batch>,
}

/// Messages, and who waits for each of them.
#[derive(Debug)]
struct Batch {
    topic: Arc<Topic>,
    members: Vec<Member>,
    bytes: usize,
    /// The first member's, whose time ends first.
    deadline: Instant,
}

#[derive(Debug)]
struct Member {
    item: Item,
    reply: oneshot::Sender<Result<SendResult, SendError>>,
    on_its_way: OnItsWay,
}

impl Key {
    pub(super) fn of(message: &Message, topic: &Topic, target: Target) -> Self {
        Self {
            topic: Arc::clone(&topic.wire_name),
            target,
            tag: message.get(properties::TAGS).map(str::to_owned),
            wait_store: message.get(properties::WAIT) != Some("false"),
        }
    }
}

impl Running {
    /// Whether `message` may travel with others: one that is delivered at once, to no group again, not so large that it
    /// would be compressed, and neither a request nor a reply.
    pub(super) fn is_batched(&self, message: &Message) -> bool {
        let config = &self.config.auto_batch;
        let max_bytes = self.config.compress_over.min(config.bytes).as_usize();
        // A broker says where a reply can go only in messages that come alone.
        let others = [properties::PRODUCER_GROUP, properties::CORRELATION_ID];
        let mut alone = properties::DELAYS.iter().chain(&others);
        config.enabled
            && message.payload().len() < max_bytes
            && !message.topic().starts_with("%RETRY%")
            && !alone.any(|name| message.get(name).is_some())
    }

    /// Sends a message with the next batch, and waits for what becomes of it.
    pub(super) async fn accumulate(
        self: &Arc<Self>,
        key: Key,
        topic: Arc<Topic>,
        item: Item,
        on_its_way: OnItsWay,
        deadline: Instant,
    ) -> Result<SendResult, SendError> {
        let (reply, result) = oneshot::channel();
        let bytes = item.size();
        let members = vec![Member { item, reply, on_its_way }];
        self.join(key, Batch { topic, members, bytes, deadline });
        // The task that sends a batch ends without an answer only by a panic, which is reported where it happened.
        result.await.unwrap_or_else(|_| {
            Err(SendError::NotRunning { group: self.group.to_string(), state: "has lost its batch" })
        })
    }

    /// Puts a batch of one into the open batch of its key; opens that where there is none.
    fn join(self: &Arc<Self>, key: Key, mut one: Batch) {
        let config = &self.config.auto_batch;
        let mut open = self.accumulator.lock();
        if let Entry::Occupied(mut entry) = open.entry(key.clone()) {
            let batch = &mut entry.get_mut().batch;
            let together = batch.bytes + one.bytes;
            // Where a broker would not take both, the open one leaves without this message.
            let fits = together <= self.config.max_message.as_usize();
            if fits {
                batch.bytes = together;
                batch.members.append(&mut one.members);
            }
            if !fits || config.bytes.as_usize() <= together || config.messages as usize <= batch.members.len()
            {
                entry.remove().leave();
            }
            if fits {
                return;
            }
        }
        let (full, filled) = oneshot::channel();
        let id = self.accumulator.next_id.fetch_add(1, Ordering::Relaxed);
        open.insert(key.clone(), Open { id, batch: one, full });
        drop(open);
        let running = Arc::clone(self);
        self.tasks.spawn("batch", async move {
            if let Some(batch) = running.wait_for_others(&key, id, filled).await {
                running.send_members(key.target, batch).await;
            }
        });
    }

    /// Waits until the batch is full, its time is over, or the producer closes.
    async fn wait_for_others(
        &self,
        key: &Key,
        id: u64,
        mut filled: oneshot::Receiver<Batch>,
    ) -> Option<Batch> {
        tokio::select! {
            batch = &mut filled => return batch.ok(),
            () = time::sleep(self.config.auto_batch.linger) => {}
            () = self.closed.cancelled() => {}
        }
        // It may have been filled just now.
        self.accumulator.take(key, id).or_else(|| filled.try_recv().ok())
    }

    async fn send_members(&self, target: Target, batch: Batch) {
        let Batch { topic, members, deadline, .. } = batch;
        let (items, callers): (Vec<_>, Vec<_>) =
            members.into_iter().map(|member| (member.item, (member.reply, member.on_its_way))).unzip();
        let results = self.send_items(&topic, target, items, deadline).await;
        // Whoever waited may have given up.
        match results {
            Ok(results) => {
                for ((reply, _on_its_way), result) in callers.into_iter().zip(results) {
                    let _ = reply.send(Ok(result));
                }
            }
            Err(error) => {
                for (reply, _on_its_way) in callers {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

impl Accumulator {
    /// Takes a batch out, if it is still open.
    fn take(&self, key: &Key, id: u64) -> Option<Batch> {
        match self.lock().entry(key.clone()) {
            Entry::Occupied(entry) if entry.get().id == id => Some(entry.remove().batch),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Hands the batch to the task that waits for it.
    fn leave(self) {
        // It waits as long as the batch is open.
        let _ = self.full.send(self.batch);
    }
}
