//! What is popped from: any queue of a broker, or one of them; what its tasks share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::client::MqClient;
use crate::consumer::stats::TopicCounts;
use crate::listener::Delivery;
use crate::message::MessageQueue;
use crate::remoting::{Line, RequestError};

/// Queues whose messages are popped by one task.
#[derive(Debug)]
pub(crate) struct PopQueue {
    /// With −1 in the place of the queue: any queue of the broker.
    pub(crate) queue: Arc<MessageQueue>,
    pub(super) counts: Arc<TopicCounts>,
    /// Messages that were popped, and that the broker still waits for.
    unacked: AtomicUsize,
    /// Told when one is settled.
    pub(super) room: Notify,
    popped_at: Mutex<Instant>,
    has_begun: AtomicBool,
    calls: Mutex<Calls>,
    line: Mutex<Option<Arc<Line>>>,
}

/// The calls of listeners that have not ended, each with its begin: operators ask what handlers are doing.
#[derive(Debug, Default)]
struct Calls {
    next: u64,
    running: HashMap<u64, (Instant, Delivery)>,
}

/// One call of a listener, for as long as this lives.
#[derive(Debug)]
pub(super) struct Call {
    queue: Arc<PopQueue>,
    number: u64,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.queue.lock_calls().running.remove(&self.number);
    }
}

impl PopQueue {
    pub(super) fn new(queue: MessageQueue, counts: Arc<TopicCounts>) -> Self {
        Self {
            queue: Arc::new(queue),
            counts,
            unacked: AtomicUsize::new(0),
            room: Notify::new(),
            popped_at: Mutex::new(Instant::now()),
            has_begun: AtomicBool::new(false),
            calls: Mutex::default(),
            line: Mutex::default(),
        }
    }

    /// The connection for the pops, which is their own: a pop that waits chooses by the expression that it came with, and
    /// brokers know no other way to give one up. That would not only be late: what is stored meanwhile and does not match
    /// the old expression would be passed over for the whole group.
    pub(super) async fn line(&self, client: &MqClient) -> Result<Arc<Line>, RequestError> {
        let address = client.pop_address(&self.queue).await?;
        let mut line = self.lock_line();
        let current = line.take().filter(|line| *line.address() == address && !line.is_closed());
        Ok(Arc::clone(line.insert(current.unwrap_or_else(|| Arc::new(client.pop_line(&address))))))
    }

    /// Gives up the pop that waits at the broker; returns once the broker has forgotten it. What it has brought by then is
    /// kept. One that was asked just now is at work at the broker and could not be given up: it is waited for a moment, also by
    /// those who come while another one gives it up.
    pub(super) async fn give_up_pop(&self) {
        let line = self.lock_line().clone();
        if let Some(line) = line {
            line.close().await;
        }
    }

    fn lock_line(&self) -> MutexGuard<'_, Option<Arc<Line>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn unacked(&self) -> usize {
        self.unacked.load(Ordering::Relaxed)
    }

    /// So many more were popped.
    pub(super) fn add(&self, messages: usize) {
        self.unacked.fetch_add(messages, Ordering::Relaxed);
    }

    /// The broker waits for so many no more, or they are no longer ours.
    pub(super) fn settled(&self, messages: usize) {
        self.unacked.fetch_sub(messages, Ordering::Relaxed);
        self.room.notify_one();
    }

    /// Whether a pop was answered: then the broker knows where the group begins.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst)
    }

    /// Notes that a pop was answered; whether it was the first.
    pub(super) fn begin(&self) -> bool {
        !self.has_begun.swap(true, Ordering::SeqCst)
    }

    /// Notes that the task is at work.
    pub(super) fn touch(&self) {
        *self.popped_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Notes that a listener is called with this.
    pub(super) fn call(self: &Arc<Self>, delivery: &Delivery) -> Call {
        let mut calls = self.lock_calls();
        let number = calls.next;
        calls.next += 1;
        calls.running.insert(number, (Instant::now(), delivery.clone()));
        Call { queue: Arc::clone(self), number }
    }

    /// What listeners are called with now, and since when.
    pub(super) fn calls(&self) -> Vec<(Instant, Delivery)> {
        self.lock_calls().running.values().cloned().collect()
    }

    fn lock_calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn popped_at(&self) -> Instant {
        *self.popped_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::consumer::stats::Topics;
    use crate::protocol::header::GetMaxOffset;
    use crate::remoting::{self, Address};

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn all_who_give_up_a_pop_wait_for_its_end() {
        // It takes connections, and answers nothing.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().into();
        let queue = MessageQueue::new("t", "b", -1);
        let queue = PopQueue::new(queue, Topics::default().of(&"t".into(), Instant::now()));
        let line = Arc::new(remoting::test_client().line(&address));
        *queue.lock_line() = Some(Arc::clone(&line));
        let is_over = AtomicBool::new(false);
        let request = GetMaxOffset { topic: "t".into(), queue_id: 0 };

        let popping = async {
            assert!(line.request(&request, PATIENCE).await.is_err());
            is_over.store(true, Ordering::SeqCst);
        };
        let giving_up = || async {
            queue.give_up_pop().await;
            assert!(is_over.load(Ordering::SeqCst), "the broker has not forgotten it");
        };
        tokio::join!(biased; popping, giving_up(), giving_up());
    }
}
