//! The task of one owned queue: asks for messages, holds them, and hands them to listeners.
//!
//! It always has one pull on its way while flow control allows, also while listeners work on what came before. It
//! owns the place in the queue; what handlers share with it stands in [`OwnedQueue`]. Source: `behaviour.md`
//! section 3.7.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::task;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace, warn};

use super::Shared;
use super::consume::{Attempt, Begun, LONG_POLL};
use super::queue::OwnedQueue;
use super::sift::Place;
use super::start_offset::start_offset;
use super::stats::Tally;
use super::subscriptions::Table;
use crate::client::{Access, PullAnswer, PullStatus};
use crate::listener::{BoxFuture, Delivery};
use crate::protocol::header::{PullMessage, pull_flag};
use crate::protocol::{Request, ResponseCode};
use crate::remoting::RequestError;

/// A new owner waits so long before it reads the offset, where there are other members: the one before may not have
/// stored it yet.
pub(super) const TAKEOVER_DELAY: Duration = Duration::from_millis(500);
/// How long a queue that is full is left alone, unless something is done before.
pub(super) const FULL_DELAY: Duration = Duration::from_millis(50);
/// How long a suspended consumer sleeps between two looks.
pub(super) const SUSPENDED_DELAY: Duration = Duration::from_secs(1);
/// After the broker asked for less.
pub(super) const FLOW_CONTROL_DELAY: Duration = Duration::from_millis(20);
/// How often an offset is stored with a pull, at most.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Deliveries before the task looks at its other duties.
const BURST: usize = 64;
/// For how long handlers of a queue get tasks of their own from the start, once they compute for long.
const APART_FOR: Duration = Duration::from_secs(1);
/// So many in a row have to; a single one may only have lost the processor for a while.
const LONG_ONES: u32 = 3;

/// A pull on its way: its answer, and how long that took.
type Pulling = BoxFuture<(Result<PullAnswer, RequestError>, Duration)>;

/// The task of one owned queue.
pub(crate) struct Puller {
    shared: Arc<Shared>,
    queue: Arc<OwnedQueue>,
    stopping: CancellationToken,
    /// Whether listeners are called from here: not in order, where a worker does that.
    delivers: bool,
    next_offset: i64,
    /// When an offset was last stored with a pull.
    committed_at: Instant,
    /// Which of the broker's addresses to ask, as it said last.
    broker_id: i64,
    pulling: Option<Pulling>,
    /// The version of the subscription that it was asked with.
    asked_with: Option<i64>,
    /// Nothing is pulled before.
    resume_at: Option<Instant>,
    /// Nothing is handed over before: the group has a `rate_limit`.
    deliver_at: Option<Instant>,
    /// Where the last answer could not be read any further.
    cut_at: Option<i64>,
    /// Handlers get tasks of their own until then.
    apart_until: Option<Instant>,
    /// Handlers in a row that computed for long.
    long_ones: u32,
    /// Whether the last pull failed, so that a broker that is gone is reported once.
    is_failing: bool,
}

impl Puller {
    pub(crate) fn new(shared: Arc<Shared>, queue: Arc<OwnedQueue>, stopping: CancellationToken) -> Self {
        Self {
            delivers: queue.order.is_none(),
            shared,
            queue,
            stopping,
            next_offset: 0,
            committed_at: Instant::now(),
            broker_id: 0,
            pulling: None,
            asked_with: None,
            resume_at: None,
            deliver_at: None,
            cut_at: None,
            apart_until: None,
            long_ones: 0,
            is_failing: false,
        }
    }

    /// Runs until the queue is no longer ours or the consumer stops. `takeover` says that someone may have had the
    /// queue just now.
    pub(crate) async fn run(mut self, takeover: bool) {
        let stopping = self.stopping.clone();
        let mut stopped = pin!(stopping.cancelled());
        tokio::select! {
            () = &mut stopped => return,
            found = self.find_start(takeover) => self.next_offset = found,
        }
        // To be stored before the first message comes: a group that begins at the end and is stopped before would
        // begin at the end again, and miss what was sent meanwhile.
        self.queue.with(|messages| messages.pulled_to(self.next_offset));
        self.shared.note_begun();
        debug!(group = %self.shared.group, queue = %self.queue.queue, offset = self.next_offset, "pulling begins");
        loop {
            self.pull_if_possible();
            // In this order: what ends the task, what keeps the broker busy, what keeps the handlers busy.
            tokio::select! {
                biased;
                () = &mut stopped => return,
                (answer, took) = poll_option(&mut self.pulling) => {
                    self.pulling = None;
                    if !self.receive(answer, took).await {
                        return;
                    }
                }
                () = until(self.resume_at) => self.resume_at = None,
                () = until(self.deliver_at) => self.deliver_at = None,
                () = self.queue.room.notified() => {
                    (self.resume_at, self.deliver_at) = (None, None);
                    // What waits at the broker was asked for by the expression of before.
                    self.pulling.take_if(|_| self.asked_with != self.shared.version_of(&self.queue));
                }
                permit = Arc::clone(&self.shared.permits).acquire_owned(), if self.may_deliver() => {
                    match permit {
                        Ok(permit) => self.deliver(permit).await,
                        // The consumer is being shut down.
                        Err(_) => return,
                    }
                }
            }
        }
    }

    async fn find_start(&mut self, takeover: bool) -> i64 {
        if takeover {
            time::sleep(TAKEOVER_DELAY).await;
        }
        let mut reported = false;
        loop {
            match start_offset(&self.shared, &self.queue).await {
                Ok(offset) => return offset,
                Err(error) => {
                    if !reported {
                        warn!(group = %self.shared.group, queue = %self.queue.queue, %error, "cannot find out where to begin, it will be tried again");
                        reported = true;
                    }
                    time::sleep(self.shared.config.pull_error_delay).await;
                }
            }
        }
    }

    /// Asks for messages, unless a pull is on its way, or it is not the time for one.
    fn pull_if_possible(&mut self) {
        if self.pulling.is_some() || self.resume_at.is_some() {
            return;
        }
        self.queue.touch();
        if self.shared.is_suspended() {
            self.pause(SUSPENDED_DELAY);
        } else if !self.queue.is_ours() {
            self.pause(self.shared.config.pull_error_delay);
        } else if self.queue.is_full(&self.shared.flow_limits()) {
            trace!(group = %self.shared.group, queue = %self.queue.queue, "flow control: the listeners are behind");
            self.pause(FULL_DELAY);
        } else {
            self.pulling = Some(self.pull());
        }
    }

    fn pull(&mut self) -> Pulling {
        let (shared, queue) = (Arc::clone(&self.shared), Arc::clone(&self.queue));
        let (offset, broker_id) = (self.next_offset, self.broker_id);
        let commit_offset = self.offset_to_commit();
        let table = shared.subscriptions.table();
        self.asked_with = table.version(&queue.queue.topic);
        let pull = async move {
            let MessageQueueRef { topic, broker_name, queue_id } = MessageQueueRef::of(&queue);
            let access = Access::Read { broker_id };
            let address = shared.client.find_broker(PullMessage::CODE, topic, broker_name, access).await?;
            // A slave would not tell its master.
            let is_master =
                shared.client.broker_address(broker_name, Access::Write).as_ref() == Some(&address);
            let commit_offset = commit_offset.filter(|_| is_master);
            let wanted = table.wanted(topic);
            let commit_flag = if commit_offset.is_some() { pull_flag::COMMIT_OFFSET } else { 0 };
            let config = &shared.config;
            let with_subscription = wanted.filter(|_| config.post_subscription);
            let subscription_flag = if with_subscription.is_some() { pull_flag::SUBSCRIPTION } else { 0 };
            let request = PullMessage {
                consumer_group: Arc::clone(&shared.group),
                topic: Arc::clone(topic),
                queue_id,
                queue_offset: offset,
                max_msg_nums: i32::try_from(config.pull_batch).unwrap_or(i32::MAX),
                sys_flag: pull_flag::SUSPEND | commit_flag | subscription_flag,
                commit_offset: commit_offset.unwrap_or_default(),
                suspend_timeout_millis: shared.client.config().pull_suspend.as_millis() as i64,
                subscription: with_subscription.map(|wanted| wanted.data.sub_string.as_str().into()),
                sub_version: wanted.map_or(0, |wanted| wanted.data.sub_version),
                expression_type: wanted.map(|wanted| wanted.data.expression_type.clone()),
                max_msg_bytes: i32::try_from(config.pull_batch_bytes.as_usize()).ok(),
                broker_name: Some(Arc::clone(broker_name)),
            };
            shared.client.pull(&address, &request).await
        };
        Box::pin(async move {
            let begun = Instant::now();
            (pull.await, begun.elapsed())
        })
    }

    /// The offset that is stored with the next pull: at most once a second, so that operators see how far the group is.
    ///
    /// Not with each, as the Java client does. A broker works on pulls and on offsets in any order: a pull that left just
    /// before the queue was given up would put an older offset in the place of the last one.
    fn offset_to_commit(&mut self) -> Option<i64> {
        if self.shared.offsets.is_local() || self.committed_at.elapsed() < COMMIT_INTERVAL {
            return None;
        }
        let offset = self.queue.offset().filter(|offset| *offset > 0)?;
        self.committed_at = Instant::now();
        Some(offset)
    }

    /// Takes what a pull brought; whether the task goes on.
    async fn receive(&mut self, answer: Result<PullAnswer, RequestError>, took: Duration) -> bool {
        self.queue.touch();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.pull_failed(&error);
                return true;
            }
        };
        if std::mem::take(&mut self.is_failing) {
            info!(group = %self.shared.group, queue = %self.queue.queue, "pulling works again");
        }
        if answer.status == PullStatus::OffsetIllegal {
            // Whatever is subscribed, and also where the consumer is suspended: of a reset, brokers tell once only.
            self.start_over(answer.header.next_begin_offset).await;
            return false;
        }
        let table = self.shared.subscriptions.table();
        if self.asked_with != table.version(&self.queue.queue.topic) {
            // Another subscription has come meanwhile, or none. The answer must not count as passed over what it did not bring.
            return true;
        }
        if self.shared.is_suspended() {
            // The place in the queue stays: whoever resumes the consumer has all that came meanwhile.
            return true;
        }
        self.broker_id = answer.header.suggest_which_broker_id;
        let mut next = answer.header.next_begin_offset;
        match answer.status {
            PullStatus::Found => {
                next = self.keep(&table, answer, took);
                self.queue.wake_worker();
                if !self.shared.config.pull_interval.is_zero() {
                    self.pause(self.shared.config.pull_interval);
                }
            }
            PullStatus::NoNewMessage | PullStatus::NoMatchedMessage | PullStatus::OffsetIllegal => {}
        }
        self.next_offset = next;
        self.queue.with(|messages| messages.pulled_to(next));
        true
    }

    /// Puts messages where listeners get them; returns the offset to go on from.
    fn keep(&mut self, table: &Table, answer: PullAnswer, took: Duration) -> i64 {
        let (begin, end) = (self.next_offset, answer.header.next_begin_offset);
        let mut sifted = self.shared.sift(table, &self.queue, answer.body, begin, end);
        let cut_at = sifted.cut_at.take();
        let mut places = sifted.into_places();
        let next = match cut_at {
            None => end,
            Some((offset, error)) if self.cut_at == Some(offset) => {
                // The broker has nothing better: that record is the one that is damaged.
                places.push(Place::Unreadable { offset, error });
                offset + 1
            }
            Some((offset, error)) => {
                warn!(group = %self.shared.group, queue = %self.queue.queue, offset, %error, "an answer cannot be read from here on, it is asked for again");
                self.pause(self.shared.config.pull_error_delay);
                self.cut_at = Some(offset);
                offset
            }
        };
        let kept = self.shared.keep(&self.queue, places);
        self.queue.counts.count_pull(kept, took);
        next
    }

    fn pull_failed(&mut self, error: &RequestError) {
        let delay = match error.response_code() {
            Some(ResponseCode::FLOW_CONTROL) => FLOW_CONTROL_DELAY,
            Some(
                ResponseCode::SUBSCRIPTION_NOT_EXIST
                | ResponseCode::SUBSCRIPTION_NOT_LATEST
                | ResponseCode::FILTER_DATA_NOT_EXIST
                | ResponseCode::FILTER_DATA_NOT_LATEST,
            ) => {
                // The broker has forgotten us: it was restarted, or the connection was.
                self.shared.client.heartbeat_soon();
                self.shared.config.pull_error_delay
            }
            _ => self.shared.config.pull_error_delay,
        };
        // Another address of the broker may do; with none suggested, the master.
        self.broker_id = 0;
        if std::mem::replace(&mut self.is_failing, true) {
            debug!(group = %self.shared.group, queue = %self.queue.queue, %error, "the pull failed again");
        } else {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            warn!(group = %self.shared.group, queue = %self.queue.queue, %error, cause, retry_in = ?delay, "a pull failed, it is tried until it works");
        }
        self.pause(delay);
    }

    /// The offset is not in the queue: messages were deleted, the queue is a new one, or an operator reset the group.
    /// The queue is given up, with the right offset stored, and taken anew.
    async fn start_over(&mut self, offset: i64) {
        let (group, queue) = (&self.shared.group, &self.queue.queue);
        warn!(%group, %queue, from = self.next_offset, to = offset, "the offset is not in the queue, it is corrected");
        // Where somebody else ends this task, he sees to the offset as well.
        let _ = self.stopping.run_until_cancelled(self.shared.go_on_from(&self.queue, offset)).await;
    }

    fn pause(&mut self, delay: Duration) {
        self.resume_at = Some(Instant::now() + delay);
    }

    fn may_deliver(&self) -> bool {
        self.delivers && self.deliver_at.is_none() && self.queue.with(|messages| messages.has_waiting())
    }

    /// Hands over messages for as long as there are some and handlers are free, or for one burst.
    async fn deliver(&mut self, permit: tokio::sync::OwnedSemaphorePermit) {
        let mut tally = Tally::default();
        self.deliver_burst(permit, &mut tally).await;
        self.queue.counts.count_calls(tally);
    }

    async fn deliver_burst(&mut self, permit: tokio::sync::OwnedSemaphorePermit, tally: &mut Tally) {
        // The next pull was just handed to the connection's task, which runs on this thread once we wait and which no
        // other thread may take (tokio's LIFO slot). A handler that blocks must not hold up the whole connection.
        task::yield_now().await;
        // A handler that blocks is at work here: a stop waits for it, as for any other.
        let _at_work = self.shared.handlers.token();
        let queue = Arc::clone(&self.queue);
        let _delivering = queue.deliver();
        if self.stopping.is_cancelled() {
            return;
        }
        let now = self.shared.clock.now().into_std();
        let mut permit = permit;
        for _ in 0..BURST {
            if self.queue.is_dropped() || !self.is_due() {
                return;
            }
            let Some(attempt) = self.next_attempt(now) else { return };
            self.shared.rate_limit.count_more(attempt.delivery.messages().len() - 1);
            let apart = self.apart_until.is_some_and(|until| Instant::now() < until);
            permit = match attempt.begin(permit, apart).await {
                Begun::Finished { permit, messages, took } => {
                    tally.calls += 1;
                    tally.took += took;
                    tally.ok += messages;
                    self.long_ones = if LONG_POLL < took { self.long_ones + 1 } else { 0 };
                    if LONG_POLL < took && self.stopping.is_cancelled() {
                        return;
                    }
                    if self.long_ones == LONG_ONES {
                        self.apart_until = Some(Instant::now() + APART_FOR);
                        self.long_ones = 0;
                    }
                    permit
                }
                Begun::Running => match Arc::clone(&self.shared.permits).try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => return,
                },
            };
        }
    }

    /// Whether the next message may be handed over now, and if not, when to look again.
    fn is_due(&mut self) -> bool {
        if self.shared.rate_limit.is_set() {
            // What is admitted is counted, so that there should be something.
            if !self.may_deliver() {
                return false;
            }
            self.deliver_at = self.shared.rate_limit.admit();
        }
        self.deliver_at.is_none()
    }

    fn next_attempt(&self, now: std::time::Instant) -> Option<Attempt> {
        let taken =
            self.queue.with(|messages| messages.take(now, |listener| self.shared.batch_of(listener)))?;
        let handler = taken.listener;
        let delivery = Delivery::batch(taken.messages, &handler, &self.queue.origin)?;
        Some(Attempt { shared: Arc::clone(&self.shared), queue: Arc::clone(&self.queue), handler, delivery })
    }
}

/// The parts of an owned queue's name.
struct MessageQueueRef<'a> {
    topic: &'a Arc<str>,
    broker_name: &'a Arc<str>,
    queue_id: i32,
}

impl<'a> MessageQueueRef<'a> {
    fn of(queue: &'a OwnedQueue) -> Self {
        let queue = &queue.queue;
        Self { topic: &queue.topic, broker_name: &queue.broker_name, queue_id: queue.queue_id }
    }
}

/// Waits for a future that may not be there.
pub(super) async fn poll_option<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Waits until a time that may never come.
pub(super) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => time::sleep_until(time).await,
        None => pending().await,
    }
}
