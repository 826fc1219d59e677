//! One queue that this process owns: what is shared between the task that pulls it and the handlers of its messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time;

use super::locks::QueueOrder;
use super::offset_store::OffsetStore;
use super::process_queue::{FlowLimits, ProcessQueue};
use super::stats::TopicCounts;
use super::stored_offset::StoredOffset;
use crate::listener::{Handler, Origin};
use crate::message::MessageQueue;
use crate::remoting::RequestError;

/// A queue that this process owns, until another member does.
#[derive(Debug)]
pub(crate) struct OwnedQueue {
    pub(crate) queue: Arc<MessageQueue>,
    pub(crate) origin: Arc<Origin>,
    /// Only where the group consumes in order.
    pub(crate) order: Option<QueueOrder>,
    /// What is counted of its topic.
    pub(crate) counts: Arc<TopicCounts>,
    pub(crate) taken_over_at: Instant,
    messages: Mutex<ProcessQueue<Handler>>,
    /// Told when something was done while the queue was full.
    pub(crate) room: Notify,
    is_blocked: AtomicBool,
    /// Whether its puller calls listeners, and pulls nothing as long as one of them blocks.
    is_delivering: AtomicBool,
    /// Set once the queue is no longer ours: what is done from then on counts for nobody.
    is_dropped: AtomicBool,
    stored: Mutex<StoredOffset>,
    /// Held while the broker is told an offset: it works on the requests of a connection in any order, and an older offset
    /// must not come after a newer one.
    storing: AsyncMutex<()>,
    pulled_at: Mutex<Instant>,
}

/// The puller of a queue calls listeners, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Delivering<'a>(&'a AtomicBool);

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl OwnedQueue {
    pub(crate) fn new(
        queue: Arc<MessageQueue>,
        origin: Arc<Origin>,
        order: Option<QueueOrder>,
        counts: Arc<TopicCounts>,
    ) -> Self {
        let now = Instant::now();
        Self {
            queue,
            origin,
            order,
            counts,
            taken_over_at: now,
            messages: Mutex::new(ProcessQueue::new()),
            room: Notify::new(),
            is_blocked: AtomicBool::new(false),
            is_delivering: AtomicBool::new(false),
            is_dropped: AtomicBool::new(false),
            stored: Mutex::default(),
            storing: AsyncMutex::default(),
            pulled_at: Mutex::new(now),
        }
    }

    /// Looks at, or changes, what is held; for a few lines, without waiting.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut ProcessQueue<Handler>) -> T) -> T {
        work(&mut self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Marks a message as done.
    pub(crate) fn finish(&self, offset: i64) -> bool {
        let was_held = self.with(|messages| messages.finish(offset));
        if was_held && self.is_blocked.swap(false, Ordering::AcqRel) {
            self.room.notify_one();
        }
        was_held
    }

    /// Whether no more may be pulled; if so, [`room`](Self::room) tells when it is worth looking again.
    pub(crate) fn is_full(&self, limits: &FlowLimits) -> bool {
        self.with(|messages| {
            let full = messages.is_full(limits);
            self.is_blocked.store(full, Ordering::Release);
            full
        })
    }

    /// Waits until listeners have nothing of it any more; for a queue that was [closed](ProcessQueue::close) and that nobody
    /// pulls.
    pub(crate) async fn settled(&self) {
        loop {
            // Before the look: what is done after it has to be told.
            self.is_blocked.store(true, Ordering::Release);
            if !self.with(|messages| messages.is_busy()) {
                return;
            }
            self.room.notified().await;
        }
    }

    /// Whether this member may pull and handle: its lock is valid, where the group needs one.
    pub(crate) fn is_ours(&self) -> bool {
        self.order.as_ref().is_none_or(|order| order.lock.is_valid(time::Instant::now()))
    }

    /// Notes that the lock is ours since `asked_at`, and tells those who may have waited for it.
    pub(crate) fn renew_lock(&self, asked_at: time::Instant) {
        if let Some(order) = &self.order {
            order.lock.renew(asked_at);
            order.woken.notify_one();
            self.room.notify_one();
        }
    }

    /// Tells the worker of a group that consumes in order that there may be something to do.
    pub(crate) fn wake_worker(&self) {
        if let Some(order) = &self.order {
            order.woken.notify_one();
        }
    }

    /// The queue is no longer ours.
    pub(crate) fn drop_queue(&self) {
        self.is_dropped.store(true, Ordering::Release);
    }

    /// The group goes on from `offset`: what is held, handled or on its way counts no more.
    pub(crate) fn restart_at(&self, offset: i64) {
        self.drop_queue();
        self.with(|messages| messages.freeze(offset));
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.is_dropped.load(Ordering::Acquire)
    }

    /// Notes that its puller calls listeners, for as long as the returned value lives.
    pub(crate) fn deliver(&self) -> Delivering<'_> {
        self.is_delivering.store(true, Ordering::Release);
        Delivering(&self.is_delivering)
    }

    /// Whether its puller calls listeners.
    pub(crate) fn is_delivering(&self) -> bool {
        self.is_delivering.load(Ordering::Acquire)
    }

    /// Notes that a pull is on its way or has come back.
    pub(crate) fn touch(&self) {
        *self.pulled_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(crate) fn pulled_at(&self) -> Instant {
        *self.pulled_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is known where in the queue to begin.
    pub(crate) fn has_begun(&self) -> bool {
        self.offset().is_some()
    }

    /// What the group's offset may be by now.
    pub(crate) fn offset(&self) -> Option<i64> {
        self.with(|messages| messages.offset())
    }

    /// Notes what the broker has stored.
    pub(crate) fn note_stored(&self, offset: i64) {
        self.stored().note(offset);
    }

    /// The broker may have lost what it had stored: it is asked, and told again, with the next [`persist`](Self::persist).
    pub(crate) fn doubt_stored(&self) {
        self.stored().doubt();
    }

    /// Stores the group's offset, if the broker may not have it, and if the queue is surely ours: another member
    /// may be further by now.
    pub(crate) async fn persist(&self, store: &OffsetStore) -> Result<(), RequestError> {
        let _turn = self.storing.lock().await;
        // Not before it is our turn: another offset may have been set until now.
        let offset = self.offset().filter(|_| self.is_ours());
        let Some(offset) = offset else { return Ok(()) };
        let due = self.stored().due(Some(offset));
        if let Some(due) = due {
            let told = store.tell(&self.queue, due).await?;
            self.stored().learn(told);
        }
        Ok(())
    }

    /// Stores this offset, which the queue has been set to.
    pub(crate) async fn store(&self, store: &OffsetStore, offset: i64) -> Result<(), RequestError> {
        let _turn = self.storing.lock().await;
        let told = store.write(&self.queue, offset).await?;
        self.stored().learn(told);
        Ok(())
    }

    fn stored(&self) -> MutexGuard<'_, StoredOffset> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::consumer::stats::Topics;

    #[test]
    fn listeners_are_called_for_as_long_as_somebody_says_so() {
        let queue = Arc::new(MessageQueue::new("t", "b", 0));
        let origin = Arc::new(Origin::new("g".into(), Arc::clone(&queue), CancellationToken::new()));
        let owned = OwnedQueue::new(queue, origin, None, Topics::default().of(&"t".into(), Instant::now()));
        assert!(!owned.is_delivering());
        {
            let _delivering = owned.deliver();
            assert!(owned.is_delivering());
        }
        assert!(!owned.is_delivering());
    }
}
