//! What this process holds of one queue: pulled, waiting for a listener, or being handled.
//!
//! It decides what the group's offset may be: that of the first message which is not done. Source: `behaviour.md`
//! section 3.6. Plain values: time is an argument, and nothing here waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::message::MessageExt;

/// The messages of one queue, by offset. `L` says which listener one is for.
#[derive(Debug)]
pub(crate) struct ProcessQueue<L> {
    slots: VecDeque<Slot<L>>,
    /// All slots before this one have been started.
    cursor: usize,
    /// Messages that are not done.
    held: usize,
    /// Bytes of their bodies.
    bytes: usize,
    /// Where the next pull begins: the offset once everything is done. −1 before that is known.
    next_begin: i64,
    /// Whether the offset was set and moves no more: [`freeze`](Self::freeze).
    is_frozen: bool,
    /// Whether nothing is handed out any more: [`close`](Self::close).
    is_closed: bool,
    /// When messages were taken for a listener, the last time.
    taken_at: Option<Instant>,
}

#[derive(Debug)]
struct Slot<L> {
    offset: i64,
    progress: Progress<L>,
}

#[derive(Debug)]
enum Progress<L> {
    Waiting {
        message: MessageExt,
        listener: L,
    },
    Started {
        message: MessageExt,
        since: Instant,
    },
    /// A record that is no message; it is not done before the broker has taken it back.
    Unreadable,
    Done,
}

/// How much of a queue may be held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// Between the first and the last offset that is held.
    pub(crate) span: i64,
}

/// What is held, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// The first and the last offset; `None` where nothing is held.
    pub(crate) span: Option<(i64, i64)>,
    pub(crate) taken_at: Option<Instant>,
}

/// A message that a listener has had since then.
#[derive(Debug)]
pub(crate) struct AtWork {
    pub(crate) message: MessageExt,
    pub(crate) since: Instant,
}

/// What a listener is given at once.
#[derive(Debug)]
pub(crate) struct Taken<L> {
    pub(crate) listener: L,
    pub(crate) messages: Vec<MessageExt>,
}

impl<L: Clone + PartialEq> ProcessQueue<L> {
    pub(crate) fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            cursor: 0,
            held: 0,
            bytes: 0,
            next_begin: -1,
            is_frozen: false,
            is_closed: false,
            taken_at: None,
        }
    }

    /// Adds a message for `listener`. One that is here already, or was done before, is not added again.
    pub(crate) fn put(&mut self, message: MessageExt, listener: L) {
        let (offset, bytes) = (message.queue_offset(), message.body_len());
        if self.push(offset, Progress::Waiting { message, listener }) {
            self.bytes += bytes;
        }
    }

    /// Adds the place of a record that is no message, so that the offset does not pass it.
    pub(crate) fn put_unreadable(&mut self, offset: i64) {
        self.push(offset, Progress::Unreadable);
    }

    fn push(&mut self, offset: i64, progress: Progress<L>) -> bool {
        // What was pulled before is done where it is not here.
        let is_behind = self.slots.back().map_or(self.next_begin <= offset, |last| last.offset < offset);
        let is_new = is_behind && !self.is_frozen;
        if is_new {
            self.slots.push_back(Slot { offset, progress });
            self.held += 1;
        }
        is_new
    }

    /// Notes where the next pull begins. Offsets before it that are not here were not wanted.
    pub(crate) fn pulled_to(&mut self, next_begin: i64) {
        if !self.is_frozen {
            self.next_begin = self.next_begin.max(next_begin);
        }
    }

    /// Sets the offset, be it back or ahead, throws away what is held, and takes in nothing any more: whatever handlers
    /// or pulls that are still at work bring now, the offset stays.
    pub(crate) fn freeze(&mut self, offset: i64) {
        let taken_at = self.taken_at;
        *self = Self { next_begin: offset, is_frozen: true, taken_at, ..Self::new() };
    }

    /// Hands out nothing any more. What listeners have is settled as ever, and the offset does not pass what waits.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether it was [closed](Self::close).
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether anything is not done that is more than to wait: listeners have it, or it becomes a dead letter.
    pub(crate) fn is_busy(&self) -> bool {
        let is_busy = |slot: &Slot<L>| !matches!(slot.progress, Progress::Waiting { .. } | Progress::Done);
        self.slots.iter().any(is_busy)
    }

    /// Whether a message waits for its listener.
    pub(crate) fn has_waiting(&mut self) -> bool {
        self.skip_started();
        self.cursor < self.slots.len() && !self.is_closed
    }

    /// Takes the first message that waits, and with it, for a listener of batches, others for the same listener.
    ///
    /// `batch` says how many a listener takes at once.
    pub(crate) fn take(&mut self, now: Instant, batch: impl Fn(&L) -> usize) -> Option<Taken<L>> {
        self.take_of(now, batch, false)
    }

    /// The same without passing over messages for other listeners: what is taken is a part of the queue as it stands.
    pub(crate) fn take_in_order(&mut self, now: Instant, batch: impl Fn(&L) -> usize) -> Option<Taken<L>> {
        self.take_of(now, batch, true)
    }

    fn take_of(&mut self, now: Instant, batch: impl Fn(&L) -> usize, in_order: bool) -> Option<Taken<L>> {
        if !self.has_waiting() {
            return None;
        }
        let mut taken: Option<Taken<L>> = None;
        let mut most = 1;
        for slot in self.slots.range_mut(self.cursor..) {
            match (&slot.progress, &taken) {
                (Progress::Waiting { listener, .. }, Some(taken))
                    if taken.listener != *listener && in_order =>
                {
                    break;
                }
                (Progress::Waiting { listener, .. }, Some(taken)) if taken.listener != *listener => continue,
                (Progress::Waiting { .. }, Some(_)) => {}
                (Progress::Waiting { listener, .. }, None) => most = batch(listener).max(1),
                _ => continue,
            }
            let Progress::Waiting { message, listener } =
                std::mem::replace(&mut slot.progress, Progress::Done)
            else {
                continue;
            };
            let taken = taken.get_or_insert_with(|| Taken { listener, messages: Vec::with_capacity(1) });
            taken.messages.push(message.clone());
            slot.progress = Progress::Started { message, since: now };
            self.taken_at = Some(now);
            if taken.messages.len() == most {
                break;
            }
        }
        taken
    }

    fn skip_started(&mut self) {
        while self
            .slots
            .get(self.cursor)
            .is_some_and(|slot| !matches!(slot.progress, Progress::Waiting { .. }))
        {
            self.cursor += 1;
        }
    }

    /// Lets a message that was taken wait again, for `listener`.
    pub(crate) fn give_again(&mut self, offset: i64, listener: L) {
        let Some(at) = self.find(offset) else { return };
        let progress = &mut self.slots[at].progress;
        *progress = match std::mem::replace(progress, Progress::Done) {
            Progress::Started { message, .. } => Progress::Waiting { message, listener },
            other => other,
        };
        self.cursor = self.cursor.min(at);
    }

    /// Lets messages that were taken wait again, for the same listener.
    pub(crate) fn put_back(&mut self, listener: &L, messages: Vec<MessageExt>) {
        for message in messages {
            let Some(at) = self.find(message.queue_offset()) else { continue };
            if matches!(self.slots[at].progress, Progress::Started { .. }) {
                self.slots[at].progress = Progress::Waiting { message, listener: listener.clone() };
                self.cursor = self.cursor.min(at);
            }
        }
    }

    /// Marks a message as done: handled, or taken back by the broker. Whether it was held until now.
    pub(crate) fn finish(&mut self, offset: i64) -> bool {
        let Some(at) = self.find(offset) else { return false };
        match std::mem::replace(&mut self.slots[at].progress, Progress::Done) {
            Progress::Done => return false,
            Progress::Waiting { message, .. } | Progress::Started { message, .. } => {
                self.bytes -= message.body_len();
            }
            Progress::Unreadable => {}
        }
        self.held -= 1;
        while self.slots.front().is_some_and(|slot| matches!(slot.progress, Progress::Done)) {
            self.slots.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
        true
    }

    /// Whether the message is still to be done.
    pub(crate) fn holds(&self, offset: i64) -> bool {
        self.find(offset).is_some_and(|at| !matches!(self.slots[at].progress, Progress::Done))
    }

    /// Everything before this offset was pulled; −1 before anything was.
    #[cfg(feature = "testing")]
    pub(crate) fn pulled_up_to(&self) -> i64 {
        self.next_begin
    }

    /// The offsets that are still to be done.
    #[cfg(feature = "testing")]
    pub(crate) fn unfinished(&self) -> Vec<i64> {
        let slots = self.slots.iter().filter(|slot| !matches!(slot.progress, Progress::Done));
        slots.map(|slot| slot.offset).collect()
    }

    fn find(&self, offset: i64) -> Option<usize> {
        let first = self.slots.front()?.offset;
        // Offsets are nearly always without gaps, so that the place can be computed.
        let guess = usize::try_from(offset - first).ok()?;
        match self.slots.get(guess) {
            Some(slot) if slot.offset == offset => Some(guess),
            _ => self.slots.binary_search_by_key(&offset, |slot| slot.offset).ok(),
        }
    }

    /// The offset that may be stored for the group: everything before it is done. `None` while nothing is known.
    pub(crate) fn offset(&self) -> Option<i64> {
        match self.slots.front() {
            Some(first) => Some(first.offset),
            None => Some(self.next_begin).filter(|offset| *offset >= 0),
        }
    }

    /// Whether no more may be pulled for now. Source: `behaviour.md` section 3.7.
    pub(crate) fn is_full(&self, limits: &FlowLimits) -> bool {
        limits.messages < self.held || limits.bytes < self.bytes || limits.span < self.span()
    }

    fn span(&self) -> i64 {
        match (self.slots.front(), self.slots.back()) {
            (Some(first), Some(last)) => last.offset - first.offset,
            _ => 0,
        }
    }

    /// The messages that a listener has had for longer than `timeout`.
    pub(crate) fn expired(&self, now: Instant, timeout: Duration) -> Vec<MessageExt> {
        let started = self.slots.iter().filter_map(|slot| match &slot.progress {
            Progress::Started { message, since } => Some((message, *since)),
            _ => None,
        });
        let expired = started.filter(|(_, since)| timeout < now.saturating_duration_since(*since));
        expired.map(|(message, _)| message.clone()).collect()
    }

    /// How many messages are not done.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// What is held, in numbers.
    pub(crate) fn summary(&self) -> Held {
        let span = self.slots.front().zip(self.slots.back()).map(|(first, last)| (first.offset, last.offset));
        Held { messages: self.held, bytes: self.bytes, span, taken_at: self.taken_at }
    }

    /// What listeners have at the moment.
    pub(crate) fn at_work(&self) -> Vec<AtWork> {
        let started = self.slots.iter().filter_map(|slot| match &slot.progress {
            Progress::Started { message, since } => Some(AtWork { message: message.clone(), since: *since }),
            _ => None,
        });
        started.collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::stored::{Record, decode};

    const LIMITS: FlowLimits = FlowLimits { messages: 3, bytes: 100, span: 10 };

    pub(in crate::consumer) fn message(offset: i64) -> MessageExt {
        let loopback = "127.0.0.1:1".parse().unwrap();
        let record = Record {
            queue_id: 0,
            flag: 0,
            queue_offset: offset,
            commit_log_offset: offset,
            sys_flag: 0,
            born_timestamp_ms: 0,
            born_host: loopback,
            store_timestamp_ms: 0,
            store_host: loopback,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"0123456789",
            topic: "t",
            properties: "",
        };
        decode(record.encode(), 100).unwrap()
    }

    fn queue(offsets: impl IntoIterator<Item = i64>) -> ProcessQueue<u8> {
        let mut queue = ProcessQueue::new();
        for offset in offsets {
            queue.put(message(offset), 0);
            queue.pulled_to(offset + 1);
        }
        queue
    }

    fn offsets(taken: Option<Taken<u8>>) -> Vec<i64> {
        taken.map(|taken| taken.messages.iter().map(MessageExt::queue_offset).collect()).unwrap_or_default()
    }

    #[test]
    fn a_frozen_offset_stays_whatever_comes_late() {
        for target in [2, 100] {
            let mut queue = queue(5..9);
            queue.take(Instant::now(), |_| 1).unwrap();
            queue.freeze(target);
            assert!(!queue.finish(5), "handled too late");
            queue.put(message(9), 0);
            queue.put_unreadable(10);
            queue.pulled_to(200);
            assert_eq!((queue.offset(), queue.held(), queue.has_waiting()), (Some(target), 0, false));
        }
    }

    #[test]
    fn what_is_held_and_at_work_is_known() {
        let mut queue = queue(5..9);
        assert_eq!(queue.summary(), Held { messages: 4, bytes: 40, span: Some((5, 8)), taken_at: None });
        let now = Instant::now();
        queue.take(now, |_| 1).unwrap();
        let at_work: Vec<_> =
            queue.at_work().iter().map(|one| (one.message.queue_offset(), one.since)).collect();
        assert_eq!((at_work, queue.summary().taken_at), (vec![(5, now)], Some(now)));
        assert_eq!(ProcessQueue::<u8>::new().summary(), Held::default());
    }

    #[test]
    fn the_offset_is_that_of_the_first_message_not_done() {
        let mut queue = queue(5..9);
        for (done, offset) in [(6, 5), (5, 7), (8, 7), (7, 9)] {
            assert!(queue.finish(done));
            assert_eq!(queue.offset(), Some(offset), "after {done}");
        }
        assert!(!queue.finish(7), "done is done");
    }

    #[test]
    fn nothing_is_known_before_the_first_pull_and_unwanted_messages_are_passed() {
        let mut queue = ProcessQueue::new();
        assert_eq!(queue.offset(), None);
        queue.pulled_to(40);
        assert_eq!(queue.offset(), Some(40));
        queue.put(message(45), 0);
        queue.pulled_to(50);
        assert_eq!(queue.offset(), Some(45));
        queue.finish(45);
        assert_eq!(queue.offset(), Some(50));
    }

    #[test]
    fn what_was_pulled_and_done_before_is_not_taken_in_again() {
        let mut queue = queue(5..7);
        queue.finish(5);
        queue.finish(6);
        queue.put(message(6), 0);
        queue.put_unreadable(5);
        assert_eq!((queue.held(), queue.offset()), (0, Some(7)));
        queue.put(message(7), 0);
        assert_eq!((queue.held(), queue.offset()), (1, Some(7)));
    }

    #[test]
    fn a_message_is_taken_once_in_its_order() {
        let mut queue = queue(0..3);
        let now = Instant::now();
        assert_eq!(offsets(queue.take(now, |_| 1)), [0]);
        queue.finish(0);
        assert_eq!(offsets(queue.take(now, |_| 1)), [1]);
        queue.put(message(3), 0);
        queue.put(message(3), 0);
        assert_eq!(offsets(queue.take(now, |_| 10)), [2, 3]);
        assert!(!queue.has_waiting());
        assert_eq!(queue.held(), 3);
    }

    #[test]
    fn a_batch_holds_messages_of_one_listener_and_leaves_the_others() {
        let mut queue = ProcessQueue::new();
        for (offset, listener) in [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)] {
            queue.put(message(offset), listener);
        }
        let now = Instant::now();
        let batch = |listener: &u8| if *listener == 0 { 2 } else { 1 };
        assert_eq!(offsets(queue.take(now, batch)), [0, 2]);
        assert_eq!(offsets(queue.take(now, batch)), [1]);
        assert_eq!(offsets(queue.take(now, batch)), [3]);
        assert_eq!(offsets(queue.take(now, batch)), [4]);
    }

    #[test]
    fn what_is_given_again_is_taken_again_and_what_is_done_is_not() {
        let mut queue = queue(0..4);
        let now = Instant::now();
        assert_eq!(offsets(queue.take(now, |_| 3)), [0, 1, 2]);
        queue.finish(1);
        for offset in [0, 1, 2, 9] {
            queue.give_again(offset, 0);
        }
        assert_eq!(queue.offset(), Some(0));
        assert_eq!(offsets(queue.take(now, |_| 9)), [0, 2, 3]);
    }

    #[test]
    fn in_order_a_batch_ends_where_another_listener_begins() {
        let mut queue = ProcessQueue::new();
        for (offset, listener) in [(0, 0), (1, 0), (2, 1), (3, 0)] {
            queue.put(message(offset), listener);
        }
        queue.put_unreadable(4);
        queue.put(message(5), 0);
        let now = Instant::now();
        for expected in [&[0, 1][..], &[2], &[3, 5], &[]] {
            assert_eq!(offsets(queue.take_in_order(now, |_| 9)), expected);
        }
    }

    #[test]
    fn what_is_put_back_is_taken_again_first_and_in_its_order() {
        let mut queue = queue(0..4);
        let now = Instant::now();
        let mut taken = queue.take_in_order(now, |_| 3).unwrap().messages;
        queue.finish(0);
        let mut rest = taken.split_off(1);
        rest[0].count_delivery();
        queue.put_back(&7, rest);
        assert_eq!(queue.offset(), Some(1));
        let again = queue.take_in_order(now, |_| 9).unwrap();
        assert_eq!(again.listener, 7);
        let times: Vec<_> = again
            .messages
            .iter()
            .map(|message| (message.queue_offset(), message.reconsume_times()))
            .collect();
        assert_eq!(times, [(1, 1), (2, 0)]);
        queue.finish(1);
        queue.put_back(&7, again.messages);
        assert_eq!(offsets(queue.take_in_order(now, |_| 1)), [2], "what is done stays done");
        assert_eq!(queue.held(), 2);
    }

    #[test]
    fn each_limit_stops_the_pull() {
        assert!(!queue(0..3).is_full(&LIMITS));
        assert!(queue(0..4).is_full(&LIMITS), "messages");
        assert!(queue([0, 11]).is_full(&LIMITS), "span");
        let mut few = queue(0..3);
        assert!(few.is_full(&FlowLimits { bytes: 29, ..LIMITS }), "bytes");
        few.finish(1);
        assert!(!few.is_full(&FlowLimits { bytes: 29, ..LIMITS }));
    }

    #[test]
    fn once_closed_nothing_is_handed_out_and_what_waits_holds_the_offset() {
        let mut queue = queue(0..3);
        let now = Instant::now();
        assert_eq!(offsets(queue.take(now, |_| 1)), [0]);
        queue.put_unreadable(3);
        queue.close();
        assert!(queue.is_closed() && queue.is_busy() && !queue.has_waiting());
        assert_eq!(offsets(queue.take(now, |_| 9)), [] as [i64; 0]);
        assert!(queue.finish(0) && queue.is_busy() && queue.finish(3));
        assert_eq!((queue.is_busy(), queue.offset(), queue.held()), (false, Some(1), 2));
    }

    #[test]
    fn an_unreadable_record_holds_the_offset_and_is_given_to_nobody() {
        let mut queue = queue([0]);
        queue.put_unreadable(1);
        queue.put(message(2), 0);
        let now = Instant::now();
        assert_eq!(offsets(queue.take(now, |_| 9)), [0, 2]);
        queue.finish(0);
        queue.finish(2);
        assert_eq!(queue.offset(), Some(1));
        queue.finish(1);
        assert!(!queue.holds(1));
    }

    #[test]
    fn what_a_listener_has_had_too_long_is_found() {
        let mut queue = queue(0..2);
        let start = Instant::now();
        queue.take(start, |_| 1);
        let timeout = Duration::from_secs(1);
        assert_eq!(queue.expired(start + timeout, timeout).len(), 0);
        assert_eq!(queue.expired(start + timeout * 2, timeout).len(), 1);
    }
}
