//! The task that pops from one [`PopQueue`]: asks for messages, keeps those that wait, and hands them to listeners.
//!
//! It always has one pop on its way while there is room, also while listeners work on what came before. Source:
//! `behaviour.md` section 4.1.

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace, warn};

use super::answer::{self, Contents};
use super::attempt::Attempt;
use super::held::{Held, Lease, Renewed};
use super::queue::PopQueue;
use crate::client::{PopAnswer, namespace};
use crate::config::ConsumeFrom;
use crate::consumer::Shared;
use crate::consumer::puller::{FLOW_CONTROL_DELAY, FULL_DELAY, SUSPENDED_DELAY, poll_option, until};
use crate::consumer::send_back::MAX_RECONSUME_TIMES;
use crate::consumer::subscriptions::Table;
use crate::listener::{BoxFuture, Delivery, Origin};
use crate::message::MessageQueue;
use crate::protocol::ResponseCode;
use crate::protocol::pop::{PopHandle, PopMessage, QueueKey, init_mode};
use crate::remoting::RequestError;

/// So often at least the task shows that it is alive, also while all handlers are busy.
const LOOK_AROUND: Duration = Duration::from_secs(30);

type Popping = BoxFuture<Popped>;

/// What a pop came to.
struct Popped {
    received: Instant,
    took: Duration,
    /// `None` where it was given up before it brought anything.
    answer: Option<Result<PopAnswer, RequestError>>,
}

/// The task of one [`PopQueue`].
pub(super) struct Popper {
    shared: Arc<Shared>,
    queue: Arc<PopQueue>,
    acks: mpsc::Sender<PopHandle>,
    stopping: CancellationToken,
    popping: Option<Popping>,
    /// Messages that no handler was free for yet.
    waiting: VecDeque<Held>,
    /// Those that wait for long, while the end of their leases is put off.
    aged: Vec<Held>,
    renewing: Option<BoxFuture<Renewed>>,
    /// Where messages come from, as listeners see it.
    origins: HashMap<QueueKey, Arc<Origin>>,
    /// Nothing is asked for before.
    resume_at: Option<Instant>,
    /// Nothing is handed over before: the group has a `rate_limit`.
    deliver_at: Option<Instant>,
    /// Whether the last pop failed, so that a broker that is gone is reported once.
    is_failing: bool,
}

impl Popper {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Arc<PopQueue>,
        acks: mpsc::Sender<PopHandle>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            shared,
            queue,
            acks,
            stopping,
            popping: None,
            waiting: VecDeque::new(),
            aged: Vec::new(),
            renewing: None,
            origins: HashMap::new(),
            resume_at: None,
            deliver_at: None,
            is_failing: false,
        }
    }

    /// Runs until the queue is no longer ours or the consumer stops.
    pub(super) async fn run(mut self) {
        debug!(group = %self.shared.group, queue = %self.queue.queue, "popping begins");
        let stopping = self.stopping.clone();
        let mut stopped = pin!(stopping.cancelled());
        loop {
            self.pop_if_possible();
            self.renew_if_due();
            let renew_at = self.renew_at();
            let look_around = Instant::now() + LOOK_AROUND;
            // In this order: what ends the task, what keeps the broker busy, what keeps the handlers busy.
            tokio::select! {
                biased;
                () = &mut stopped => break,
                popped = poll_option(&mut self.popping) => {
                    let table = self.shared.subscriptions.table();
                    if table.wanted(&self.queue.queue.topic).is_none() {
                        // The topic has just been left. What came is not what nobody wants: it is given back.
                        self.popping = Some(Box::pin(ready(popped)));
                        break;
                    }
                    self.popping = None;
                    self.receive(popped, &table);
                }
                renewed = poll_option(&mut self.renewing) => {
                    self.renewing = None;
                    self.take_renewed(renewed);
                }
                () = until(self.resume_at) => self.resume_at = None,
                () = until(self.deliver_at) => self.deliver_at = None,
                () = until(renew_at) => {}
                () = time::sleep_until(look_around) => {}
                () = self.queue.room.notified() => (self.resume_at, self.deliver_at) = (None, None),
                permit = Arc::clone(&self.shared.permits).acquire_owned(), if self.may_deliver() => {
                    match permit {
                        Ok(permit) => self.deliver(permit),
                        // The consumer is being shut down.
                        Err(_) => break,
                    }
                }
            }
        }
        self.leave();
    }

    /// Asks for messages, unless that is on its way, or it is not the time for it.
    fn pop_if_possible(&mut self) {
        if self.popping.is_some() || self.resume_at.is_some() {
            return;
        }
        self.queue.touch();
        let pop = &self.shared.config.pop;
        // What waits here is kept from members that have nothing to do.
        let handlers = (self.shared.config.concurrency * self.shared.config.batch) as usize;
        if self.shared.is_suspended() {
            self.pause(SUSPENDED_DELAY);
        } else if (pop.messages_per_queue as usize) < self.queue.unacked() {
            trace!(group = %self.shared.group, queue = %self.queue.queue, "flow control: too many messages are not acknowledged");
            self.pause(FULL_DELAY);
        } else if self.waiting.len() + self.aged.len() < handlers {
            self.popping = Some(self.pop());
        }
    }

    fn pop(&self) -> Popping {
        let (shared, queue, stopping) =
            (Arc::clone(&self.shared), Arc::clone(&self.queue), self.stopping.clone());
        Box::pin(async move {
            let start = Instant::now();
            let answer = async {
                let line = queue.line(&shared.client).await?;
                // After the line: who subscribes otherwise, or leaves, gives up what is asked over the line of before.
                if stopping.is_cancelled() {
                    return Ok(None);
                }
                let answer = shared.client.pop(&line, &request(&shared, &queue)).await;
                if answer.is_err() && line.is_closed() { Ok(None) } else { answer.map(Some) }
            };
            let answer = answer.await.transpose();
            Popped { received: Instant::now(), took: start.elapsed(), answer }
        })
    }

    /// Takes what a pop brought.
    fn receive(&mut self, popped: Popped, table: &Table) {
        self.queue.touch();
        let Popped { received, took, answer } = popped;
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => return self.pop_failed(&error),
            None => return,
        };
        if std::mem::take(&mut self.is_failing) {
            info!(group = %self.shared.group, queue = %self.queue.queue, "popping works again");
        }
        if self.queue.begin() {
            self.shared.note_begun();
        }
        match answer {
            PopAnswer::Nothing => {}
            PopAnswer::PollingFull => self.pause(self.shared.config.pull_error_delay),
            found @ PopAnswer::Found { .. } => {
                match self.read(found) {
                    Some(contents) => {
                        let before = self.waiting.len();
                        self.keep(table, contents, received);
                        self.queue.counts.count_pull(self.waiting.len() - before, took);
                    }
                    None => self.pause(self.shared.config.pull_error_delay),
                }
                if !self.shared.config.pull_interval.is_zero() && self.resume_at.is_none() {
                    self.pause(self.shared.config.pull_interval);
                }
            }
        }
    }

    fn read(&self, answer: PopAnswer) -> Option<Contents> {
        let PopAnswer::Found { header, body } = answer else { return None };
        let (group, queue) = (&self.shared.group, &self.queue.queue);
        let contents = answer::read(&header, body, &queue.broker_name, group, self.shared.max_body_bytes);
        contents
            .inspect_err(|error| warn!(%group, %queue, error, "the answer to a pop cannot be read, its messages come again"))
            .ok()
    }

    /// Puts messages where listeners get them, and settles those that no listener can have.
    fn keep(&mut self, table: &Table, contents: Contents, received: Instant) {
        let shared = Arc::clone(&self.shared);
        let time = shared.config.pop.invisible_time;
        let max = shared.config.max_reconsume.unwrap_or(MAX_RECONSUME_TIMES);
        self.queue.add(contents.messages.len());
        for (mut message, handle) in contents.messages {
            message.set_broker_name(Arc::clone(&handle.broker_name));
            message.restore_popped_topic(&shared.group);
            let times = message.reconsume_times();
            let listener = match times {
                0 => table.listener(message.topic(), || message.tag()),
                _ => table.listener_of_retried(message.topic(), || message.tag()),
            };
            message.strip_namespace(shared.subscriptions.namespace());
            let lease = Lease::new(handle, received, time);
            let why = match listener {
                Some(_) if !shared.hooks.want(&shared.group, &self.queue.queue, &message) => {
                    self.acknowledge(lease.handle);
                    continue;
                }
                Some(listener) if times <= max => {
                    self.waiting.push_back(Held { message, listener: listener.clone(), lease });
                    continue;
                }
                Some(_) => "a message came again too often: it goes to the dead letter queue",
                None if times > 0 => {
                    "a message that came again has no listener any more: it goes to the dead letter queue"
                }
                // Brokers compare the hashes of tags only.
                None => {
                    self.acknowledge(lease.handle);
                    continue;
                }
            };
            warn!(group = %shared.group, topic = message.topic(), tag = message.tag(), message_id = %message.message_id(), times, "{why}");
            let (shared, queue, acks) = (Arc::clone(&shared), Arc::clone(&self.queue), self.acks.clone());
            shared.handlers.clone().spawn("dead letter", async move {
                shared.bury_popped(&queue, &acks, &message, &lease, None).await;
            });
        }
        for (error, handle) in contents.unreadable {
            shared.set_aside_popped(&self.queue, &self.acks, &error, handle);
        }
    }

    fn acknowledge(&self, handle: PopHandle) {
        if let Err(error) = self.acks.try_send(handle) {
            debug!(group = %self.shared.group, queue = %self.queue.queue, %error, "too much is to be acknowledged, a message that nobody wants will come again");
            self.queue.settled(1);
        }
    }

    fn pop_failed(&mut self, error: &RequestError) {
        let delay = match error.response_code() {
            Some(ResponseCode::FLOW_CONTROL) => FLOW_CONTROL_DELAY,
            Some(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST | ResponseCode::SUBSCRIPTION_NOT_EXIST) => {
                // The broker has forgotten us: it was restarted, or the connection was.
                self.shared.client.heartbeat_soon();
                self.shared.config.pull_error_delay
            }
            _ => self.shared.config.pull_error_delay,
        };
        if std::mem::replace(&mut self.is_failing, true) {
            debug!(group = %self.shared.group, queue = %self.queue.queue, %error, "the pop failed again");
        } else {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            warn!(group = %self.shared.group, queue = %self.queue.queue, %error, cause, retry_in = ?delay, "a pop failed, it is tried until it works");
        }
        self.pause(delay);
    }

    fn pause(&mut self, delay: Duration) {
        self.resume_at = Some(Instant::now() + delay);
    }

    /// When the first lease of those that wait is to be put off.
    fn renew_at(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter(|_| self.renewing.is_none());
        waiting.filter_map(|held| held.lease.renew_at()).min()
    }

    fn renew_if_due(&mut self) {
        let now = Instant::now();
        if self.renewing.is_some() || self.renew_at().is_none_or(|time| now < time) {
            return;
        }
        let is_due = |held: &Held| held.lease.renew_at().is_some_and(|time| time <= now);
        let (aged, waiting): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(is_due);
        self.waiting = waiting.into();
        let leases = aged.iter().map(|held| held.lease.clone()).collect();
        self.aged = aged;
        self.renewing = Some(Box::pin(Arc::clone(&self.shared).renew(Arc::clone(&self.queue), leases)));
    }

    /// Those that could not be kept are forgotten here: they come again, to whom the broker likes.
    fn take_renewed(&mut self, renewed: Renewed) {
        for (at, lease) in renewed {
            if let Some(held) = self.aged.get_mut(at) {
                held.lease = lease;
            }
        }
        let now = Instant::now();
        for held in self.aged.drain(..).rev() {
            if held.lease.is_ours(now) { self.waiting.push_front(held) } else { self.queue.settled(1) }
        }
    }

    fn may_deliver(&self) -> bool {
        self.deliver_at.is_none() && !self.waiting.is_empty()
    }

    /// Hands over messages for as long as handlers are free.
    fn deliver(&mut self, permit: tokio::sync::OwnedSemaphorePermit) {
        let mut permit = permit;
        while self.may_deliver() {
            self.deliver_at = self.shared.rate_limit.admit();
            if self.deliver_at.is_some() {
                return;
            }
            let Some(attempt) = self.next_attempt() else { return };
            self.shared.rate_limit.count_more(attempt.delivery.messages().len() - 1);
            self.shared.handlers.spawn_unboxed("handler", attempt.run(permit));
            permit = match Arc::clone(&self.shared.permits).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => return,
            };
        }
    }

    /// The oldest message, with others of its queue and its listener where that takes a batch.
    fn next_attempt(&mut self) -> Option<Attempt> {
        let first = self.waiting.pop_front()?;
        let at_most = self.shared.batch_of(&first.listener);
        let handler = first.listener.clone();
        let key = |held: &Held| (held.lease.handle.retry, held.lease.handle.queue_id);
        let of = key(&first);
        let mut held = vec![first];
        let mut at = 0;
        while held.len() < at_most && at < self.waiting.len() {
            if key(&self.waiting[at]) == of && self.waiting[at].listener == handler {
                held.extend(self.waiting.remove(at));
            } else {
                at += 1;
            }
        }
        let origin = self.origin(of);
        let messages = held.iter().map(|held| held.message.clone()).collect();
        let delivery = Delivery::batch(messages, &handler, &origin)?;
        Some(Attempt {
            shared: Arc::clone(&self.shared),
            queue: Arc::clone(&self.queue),
            acks: self.acks.clone(),
            handler,
            origin,
            held,
            delivery,
        })
    }

    fn origin(&mut self, key: QueueKey) -> Arc<Origin> {
        let Self { shared, queue, origins, .. } = self;
        let origin = origins.entry(key).or_insert_with(|| {
            let topic = key.0.topic(&shared.group, &queue.queue.topic);
            let shown = namespace::strip(Some(shared.subscriptions.namespace()), &topic);
            let queue = MessageQueue::new(shown, Arc::clone(&queue.queue.broker_name), key.1);
            Arc::new(Origin::new(Arc::clone(&shared.group), Arc::new(queue), shared.shutdown.clone()))
        });
        Arc::clone(origin)
    }

    /// Gives up the pop that waits, and gives back what no handler has seen.
    fn leave(self) {
        let Self { shared, queue, popping, waiting, aged, renewing, .. } = self;
        shared.releases.at(&queue.queue.broker_name).spawn("give back", async move {
            // First, or it might bring again what is given back.
            let popped = async { Some(popping?.await) };
            let ((), popped) = tokio::join!(queue.give_up_pop(), popped);
            let popped = popped.map_or_else(Vec::new, |popped| leases_of(&shared, &queue, popped));
            queue.add(popped.len());
            let mut aged: Vec<_> = aged.into_iter().map(|held| held.lease).collect();
            if let Some(renewing) = renewing {
                for (at, lease) in renewing.await {
                    if let Some(old) = aged.get_mut(at) {
                        *old = lease;
                    }
                }
            }
            let waiting = waiting.into_iter().map(|held| held.lease);
            shared.give_back(queue, aged.into_iter().chain(waiting).chain(popped).collect()).await;
        });
    }
}

/// What a pop brought that no handler will see.
fn leases_of(shared: &Shared, queue: &PopQueue, popped: Popped) -> Vec<Lease> {
    let Popped { received, answer: Some(Ok(PopAnswer::Found { header, body })), .. } = popped else {
        return Vec::new();
    };
    let broker_name = &queue.queue.broker_name;
    let read = answer::read(&header, body, broker_name, &shared.group, shared.max_body_bytes);
    let handles = read.into_iter().flat_map(|contents| contents.messages).map(|(_, handle)| handle);
    handles.map(|handle| Lease::new(handle, received, shared.config.pop.invisible_time)).collect()
}

/// What is asked for now.
fn request(shared: &Shared, queue: &PopQueue) -> PopMessage {
    let config = &shared.config;
    let table = shared.subscriptions.table();
    let wanted = table.wanted(&queue.queue.topic);
    PopMessage {
        consumer_group: Arc::clone(&shared.group),
        topic: Arc::clone(&queue.queue.topic),
        queue_id: queue.queue.queue_id,
        max_msg_nums: config.pop.batch as i32,
        invisible_time: config.pop.invisible_time.as_millis() as i64,
        // The first one is answered at once: nobody is ready before.
        poll_time: match queue.has_begun() {
            true => shared.client.config().pull_suspend.as_millis() as i64,
            false => 0,
        },
        born_time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64,
        init_mode: match config.consume_from {
            ConsumeFrom::First => init_mode::MIN,
            ConsumeFrom::Last | ConsumeFrom::Timestamp(_) => init_mode::MAX,
        },
        exp_type: wanted.map(|wanted| wanted.data.expression_type.clone()),
        exp: wanted.map(|wanted| wanted.data.sub_string.clone()),
        order: Some(false),
        broker_name: Some(Arc::clone(&queue.queue.broker_name)),
    }
}
