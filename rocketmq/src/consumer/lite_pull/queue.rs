//! One queue that a lite pull consumer has: what its task shares with those who poll, seek and commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::consumer::process_queue::{FlowLimits, Held, ProcessQueue};
use crate::consumer::stored_offset::{Due, StoredOffset, Told};
use crate::message::{MessageExt, MessageQueue};

/// A queue that this consumer has, until it is another member's or is assigned no more.
#[derive(Debug)]
pub(super) struct AssignedQueue {
    /// As it is on the wire.
    pub(super) queue: MessageQueue,
    /// Its topic as users know it.
    pub(super) topic: Arc<str>,
    state: Mutex<State>,
    /// Told when the task must look again at once, whatever it is doing.
    pub(super) interrupt: Notify,
    /// Told when something was consumed while the queue was full.
    pub(super) room: Notify,
    /// Held while the broker is told an offset: it works on the requests of a connection in any order, and an older offset
    /// must not come after a newer one.
    pub(super) storing: AsyncMutex<()>,
    /// Ends the task.
    pub(super) stopping: CancellationToken,
}

#[derive(Debug)]
struct State {
    messages: ProcessQueue<()>,
    /// Grows when the place in the queue is changed: pulls and deliveries of an earlier epoch count no more.
    epoch: u64,
    /// Where the next pull begins; `None` before that was found out.
    next_pull: Option<i64>,
    is_paused: bool,
    /// Whether the queue was full when it was looked at last.
    is_blocked: bool,
    is_dropped: bool,
    stored: StoredOffset,
}

/// What the task of a queue has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Find out where to begin.
    Begin { epoch: u64 },
    /// Ask for messages.
    Pull { epoch: u64, offset: i64 },
    /// Nothing, while so much is held.
    Full,
    /// Nothing, until somebody resumes the queue.
    Paused,
}

/// What one poll got.
#[derive(Debug)]
pub(super) struct Delivery {
    queue: Arc<AssignedQueue>,
    epoch: u64,
    pub(super) offsets: Vec<i64>,
}

impl Delivery {
    /// The caller has come back: the messages are consumed.
    pub(super) fn acknowledge(self) {
        let consumed = |state: &mut State| {
            for offset in &self.offsets {
                state.messages.finish(*offset);
            }
            std::mem::take(&mut state.is_blocked)
        };
        if self.queue.in_epoch(self.epoch, consumed).unwrap_or_default() {
            self.queue.room.notify_one();
        }
    }

    /// The caller is gone: the messages wait for another one.
    pub(super) fn give_back(self) {
        self.queue.in_epoch(self.epoch, |state| {
            for offset in &self.offsets {
                state.messages.give_again(*offset, ());
            }
        });
    }
}

impl AssignedQueue {
    pub(super) fn new(queue: MessageQueue, topic: Arc<str>, stopping: CancellationToken) -> Self {
        let state = State {
            messages: ProcessQueue::new(),
            epoch: 0,
            next_pull: None,
            is_paused: false,
            is_blocked: false,
            is_dropped: false,
            stored: StoredOffset::default(),
        };
        let (interrupt, room, storing) = (Notify::new(), Notify::new(), AsyncMutex::default());
        Self { queue, topic, state: Mutex::new(state), interrupt, room, storing, stopping }
    }

    /// What the task has to do next; `is_full` says that the consumer as a whole holds enough.
    pub(super) fn step(&self, limits: &FlowLimits, is_full: bool) -> Step {
        let mut state = self.lock();
        state.is_blocked = false;
        let epoch = state.epoch;
        if state.is_paused {
            return Step::Paused;
        }
        let Some(offset) = state.next_pull else { return Step::Begin { epoch } };
        state.is_blocked = is_full || state.messages.is_full(limits);
        if state.is_blocked { Step::Full } else { Step::Pull { epoch, offset } }
    }

    /// Begins at `offset`, unless somebody has chosen another place meanwhile.
    pub(super) fn begin(&self, epoch: u64, offset: i64, stored: Option<i64>) {
        self.in_epoch(epoch, |state| {
            stored.into_iter().for_each(|stored| state.stored.note(stored));
            state.go_on(offset);
        });
    }

    /// Takes what a pull brought, unless it was for another place; whether it did.
    pub(super) fn keep(&self, epoch: u64, messages: Vec<MessageExt>, next: i64) -> bool {
        let kept = self.in_epoch(epoch, |state| {
            for message in messages {
                state.messages.put(message, ());
            }
            state.go_on(next);
        });
        kept.is_some()
    }

    /// Goes on from where the broker says, because the offset of the last pull is not in the queue. What is held is
    /// not lost: where the way leads back, to the first message that is not consumed at the latest.
    pub(super) fn correct(&self, epoch: u64, next: i64) {
        self.in_epoch(epoch, |state| {
            if state.next_pull.is_some_and(|asked| asked <= next) {
                return state.go_on(next);
            }
            let first = state.messages.offset().unwrap_or(next);
            state.start_over(first.min(next));
        });
    }

    /// Takes up to `most` of the messages that wait.
    pub(super) fn take(self: &Arc<Self>, most: usize) -> Option<(Delivery, Vec<MessageExt>)> {
        let mut state = self.lock();
        if state.is_dropped {
            return None;
        }
        let taken = state.messages.take(Instant::now(), |_| most)?;
        let offsets = taken.messages.iter().map(MessageExt::queue_offset).collect();
        let delivery = Delivery { queue: Arc::clone(self), epoch: state.epoch, offsets };
        Some((delivery, taken.messages))
    }

    /// Goes on at `offset`; what is held of the queue is thrown away.
    pub(super) fn seek(&self, offset: i64) {
        self.lock().start_over(offset);
        self.interrupt.notify_one();
    }

    /// Stops pulling, or goes on with it. What is held is delivered nevertheless.
    pub(super) fn pause(&self, is_paused: bool) {
        self.lock().is_paused = is_paused;
        self.interrupt.notify_one();
    }

    /// How many messages are held.
    pub(super) fn held(&self) -> usize {
        self.lock().messages.held()
    }

    /// How far the queue is consumed.
    pub(super) fn offset(&self) -> Option<i64> {
        self.lock().messages.offset()
    }

    /// What is held, in numbers.
    pub(super) fn summary(&self) -> Held {
        self.lock().messages.summary()
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.lock().is_dropped
    }

    /// What the broker is to be told: where `consumed` is to be stored, how far the queue is consumed, if the broker does not
    /// know that yet; and what it was told before, if it may have lost that.
    pub(super) fn due(&self, consumed: bool) -> Option<Due> {
        let state = self.lock();
        if state.is_dropped { None } else { state.due(consumed) }
    }

    /// What has come of telling the broker.
    pub(super) fn learn(&self, told: Told) {
        self.lock().stored.learn(told);
    }

    /// The broker may have lost what it had stored.
    pub(super) fn doubt_stored(&self) {
        self.lock().stored.doubt();
    }

    /// The queue is no longer ours; what its broker is still to be told, as [`due`](Self::due) says it. Acknowledgements come
    /// too late from now on.
    pub(super) fn drop_queue(&self, consumed: bool) -> Option<Due> {
        self.stopping.cancel();
        let mut state = self.lock();
        state.is_dropped = true;
        state.due(consumed)
    }

    /// Changes the state, unless it has become that of another epoch, or the queue is another member's.
    fn in_epoch<T>(&self, epoch: u64, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.lock();
        let is_current = state.epoch == epoch && !state.is_dropped;
        is_current.then(|| change(&mut state))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn go_on(&mut self, offset: i64) {
        self.next_pull = Some(offset);
        self.messages.pulled_to(offset);
    }

    fn start_over(&mut self, offset: i64) {
        self.epoch += 1;
        self.messages = ProcessQueue::new();
        self.go_on(offset);
    }

    fn due(&self, consumed: bool) -> Option<Due> {
        self.stored.due(self.messages.offset().filter(|_| consumed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::process_queue::tests::message;

    const LIMITS: FlowLimits = FlowLimits { messages: 3, bytes: 1000, span: 10 };

    /// A queue that begins at `offset` and has pulled up to `next`.
    fn queue(offset: i64, next: i64) -> Arc<AssignedQueue> {
        let queue = MessageQueue::new("t", "b", 0);
        let queue = Arc::new(AssignedQueue::new(queue, "t".into(), CancellationToken::new()));
        queue.begin(0, offset, None);
        assert!(queue.keep(0, (offset..next).map(message).collect(), next));
        queue
    }

    fn offsets(taken: Option<&(Delivery, Vec<MessageExt>)>) -> Vec<i64> {
        taken.map(|(delivery, _)| delivery.offsets.clone()).unwrap_or_default()
    }

    #[test]
    fn what_is_delivered_is_stored_once_its_caller_has_come_back() {
        let queue = queue(5, 9);
        let first = queue.take(2);
        assert_eq!(offsets(first.as_ref()), [5, 6]);
        assert_eq!(queue.due(true), Some(Due::Moved(5)), "delivered is not consumed");
        first.unwrap().0.acknowledge();
        assert_eq!(queue.due(true), Some(Due::Moved(7)));
        queue.learn(Told::Stored(7));
        assert_eq!(queue.due(true), Some(Due::Doubted { offset: 7, doubts: 1 }), "the first one");
        queue.learn(Told::Known { doubts: 1 });
        assert_eq!(queue.due(true), None);
    }

    #[test]
    fn who_commits_by_hand_has_told_again_what_he_committed() {
        let queue = queue(0, 4);
        queue.take(4).unwrap().0.acknowledge();
        queue.learn(Told::Stored(2));
        queue.learn(Told::Known { doubts: 1 });
        assert_eq!(queue.due(false), None);
        queue.doubt_stored();
        assert_eq!(queue.due(true), Some(Due::Moved(4)));
        assert_eq!(queue.due(false), Some(Due::Doubted { offset: 2, doubts: 2 }));
        queue.learn(Told::Known { doubts: 2 });
        assert_eq!(queue.due(false), None);
    }

    #[test]
    fn of_two_who_poll_the_slower_one_holds_back_what_is_stored() {
        let queue = queue(0, 4);
        let (slow, fast) = (queue.take(2).unwrap().0, queue.take(2).unwrap().0);
        fast.acknowledge();
        assert_eq!(queue.due(true), Some(Due::Moved(0)));
        slow.acknowledge();
        assert_eq!(queue.due(true), Some(Due::Moved(4)));
    }

    #[test]
    fn what_nobody_came_back_for_is_delivered_to_another() {
        let queue = queue(0, 3);
        queue.take(2).unwrap().0.give_back();
        assert_eq!(offsets(queue.take(9).as_ref()), [0, 1, 2]);
    }

    #[test]
    fn a_pull_and_a_delivery_from_before_a_seek_count_no_more() {
        let queue = queue(0, 3);
        let before = queue.take(1).unwrap().0;
        assert_eq!(queue.step(&LIMITS, false), Step::Pull { epoch: 0, offset: 3 });
        queue.seek(1);
        assert!(!queue.keep(0, vec![message(3)], 4));
        before.acknowledge();
        assert_eq!(offsets(queue.take(9).as_ref()), [] as [i64; 0]);
        assert_eq!(queue.due(true), Some(Due::Moved(1)));
        assert_eq!(queue.step(&LIMITS, false), Step::Pull { epoch: 1, offset: 1 });
        assert!(queue.keep(1, vec![message(1)], 2));
        assert_eq!(offsets(queue.take(9).as_ref()), [1]);
    }

    #[test]
    fn a_correction_forwards_keeps_what_is_held_and_one_backwards_loses_nothing() {
        let forwards = queue(0, 3);
        forwards.correct(0, 100);
        assert_eq!(forwards.step(&LIMITS, false), Step::Pull { epoch: 0, offset: 100 });
        assert_eq!(offsets(forwards.take(9).as_ref()), [0, 1, 2]);

        for (next, begins) in [(1, 0), (0, 0)] {
            let backwards = queue(0, 3);
            backwards.correct(0, next);
            assert_eq!(backwards.step(&LIMITS, false), Step::Pull { epoch: 1, offset: begins });
        }
        let consumed = queue(0, 3);
        consumed.take(9).unwrap().0.acknowledge();
        consumed.correct(0, 1);
        assert_eq!(consumed.step(&LIMITS, false), Step::Pull { epoch: 1, offset: 1 });
    }

    #[test]
    fn a_paused_queue_is_not_pulled_but_what_it_holds_is_delivered() {
        let queue = queue(0, 2);
        queue.pause(true);
        assert_eq!(queue.step(&LIMITS, false), Step::Paused);
        assert_eq!(offsets(queue.take(9).as_ref()), [0, 1]);
        queue.pause(false);
        assert_eq!(queue.step(&LIMITS, false), Step::Pull { epoch: 0, offset: 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_waits_until_something_is_consumed() {
        let queue = queue(0, 4);
        assert_eq!(queue.step(&LIMITS, false), Step::Full);
        let delivery = queue.take(1).unwrap().0;
        assert_eq!(queue.step(&LIMITS, false), Step::Full, "delivered is not consumed");
        delivery.acknowledge();
        queue.room.notified().await;
        assert_eq!(queue.step(&LIMITS, false), Step::Pull { epoch: 0, offset: 4 });
        assert_eq!(queue.step(&LIMITS, true), Step::Full);
    }

    #[test]
    fn a_queue_that_went_away_delivers_nothing_and_is_stored_once_more() {
        let queue = queue(0, 4);
        let first = queue.take(1).unwrap().0;
        let second = queue.take(1).unwrap().0;
        first.acknowledge();
        assert_eq!(queue.drop_queue(true), Some(Due::Moved(1)));
        second.acknowledge();
        assert!(queue.take(1).is_none());
        assert_eq!(queue.due(true), None);
        assert!(!queue.keep(0, vec![message(4)], 5));
    }
}
