//! The lite pull consumer: for those who want to ask for messages, and say themselves when they are done with them.
//!
//! What is wanted stands in the [`selection`]: topics, whose queues are shared with the group ([`rebalance`]), or queues
//! that the user names. Each queue has a task that asks for its messages ([`puller`]) and a place where they wait
//! ([`queue`]) until somebody polls; [`messages`] makes a stream of that. [`running`] is what all of this shares.
//! Source: `behaviour.md` section 4.2.

mod builder;
mod error;
mod messages;
mod puller;
mod queue;
mod rebalance;
mod running;
mod running_info;
mod selection;
mod watch_queues;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::OnceCell;
use tokio::time;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::info;

pub use builder::LitePullConsumerBuilder;
pub use error::LitePullError;
pub use messages::Messages;

use self::queue::{AssignedQueue, Delivery};
use self::running::Running;
use self::selection::{Selection, Way};
use self::watch_queues::QueueWatch;
use crate::client::{Home, ServiceState, StateCell};
use crate::config::{ClusterConfig, LitePullConfig, check_topic};
use crate::consumer::allocate::{self, AllocateStrategy};
use crate::consumer::start_offset::unix_ms;
use crate::error::{Error, Result};
use crate::listener::{ExpressionType, Filter};
use crate::message::{MessageExt, MessageQueue};
use crate::remoting::RequestType;
use crate::sql::Selector;

/// A consumer that is asked for messages: it pulls them ahead and holds them until [`poll`](Self::poll) or
/// [`messages`](Self::messages) takes them.
///
/// Made by [`LitePullConsumer::builder`], registered at a [`MqClientManager`](crate::client::MqClientManager), then
/// started; once shut down it cannot be started again. It either [subscribes](Self::subscribe) to topics and shares
/// their queues with the other members of its group, or has queues [assigned](Self::assign) that it shares with nobody.
///
/// There is no retry and no dead letter queue: what becomes of a message that cannot be handled is up to you.
///
/// ```no_run
/// # async fn example() -> rocketmq::Result<()> {
/// use std::time::Duration;
///
/// use rocketmq::LitePullConsumer;
/// use rocketmq::client::MqClientManager;
///
/// let manager = MqClientManager::with_name_servers(["127.0.0.1:9876"])?;
/// let mut consumer = LitePullConsumer::builder("testGroup").build(&manager)?;
/// consumer.subscribe("testTopic", "*").await?;
/// manager.start().await?;
/// loop {
///     for message in consumer.poll(Duration::from_secs(5)).await? {
///         println!("{}", message.body_utf8()?);
///     }
/// }
/// # }
/// ```
///
/// # What counts as consumed
///
/// A message that a poll returned is consumed when the *same handle* polls again: only then has its caller come back.
/// So a message is lost neither when the process dies nor when a task does. With
/// [`auto_commit`](LitePullConfig::auto_commit), the default, how far each queue is consumed is stored from time to time
/// and at shutdown; without it, whenever you say [`commit`](Self::commit). After a restart the group goes on from there,
/// and some messages come again.
///
/// A clone is another handle to the same consumer: another task that polls needs one of its own, and what the slower of
/// two still works on holds back what is stored. What a handle had when it is dropped is given to the others.
pub struct LitePullConsumer {
    inner: Arc<Inner>,
    /// What this handle was given and has not come back for.
    delivered: Vec<Delivery>,
}

struct Inner {
    group: String,
    config: LitePullConfig,
    strategy: Option<Arc<dyn AllocateStrategy>>,
    /// The cluster to connect to; `None` takes the manager's.
    cluster: Option<ClusterConfig>,
    state: StateCell,
    selection: Arc<Mutex<Selection>>,
    watch: Arc<QueueWatch>,
    /// Where clients come from, once the consumer is registered.
    home: OnceLock<Home>,
    running: OnceLock<Arc<Running>>,
    /// Whether it has been stopped; several may ask for it, and some not wait for the end.
    stopped: OnceCell<()>,
}

impl LitePullConsumer {
    /// Begins a consumer of `group`.
    pub fn builder(group: impl Into<String>) -> LitePullConsumerBuilder {
        LitePullConsumerBuilder::new(group.into())
    }

    fn new(
        group: String,
        config: LitePullConfig,
        cluster: Option<ClusterConfig>,
        strategy: Option<Arc<dyn AllocateStrategy>>,
    ) -> Self {
        let inner = Inner {
            group,
            config,
            strategy,
            cluster,
            state: StateCell::default(),
            selection: Arc::default(),
            watch: Arc::default(),
            home: OnceLock::new(),
            running: OnceLock::new(),
            stopped: OnceCell::new(),
        };
        Self { inner: Arc::new(inner), delivered: Vec::new() }
    }

    /// The group, as it was given.
    pub fn group(&self) -> &str {
        &self.inner.group
    }

    /// What the consumer is doing.
    pub fn state(&self) -> ServiceState {
        self.inner.state.get()
    }

    /// Subscribes the messages of `topic` that match `filter`: before the start or after it, then in place of the
    /// filter that the topic has by now. Queues come with the next rebalance, which begins at once.
    ///
    /// What is held already still comes by the old filter; no message that is sent from now on is chosen by it. All members of
    /// a group must subscribe the same.
    ///
    /// # Errors
    ///
    /// [`LitePullError::OtherWay`] where queues are assigned; where the topic or the filter is none, or the consumer is
    /// shut down. While it runs, also where a broker does not filter by this expression: in its own words, and nothing has
    /// changed. Before, that is an error of the start.
    ///
    /// # Cancel safety
    ///
    /// Where the future is dropped, nothing has changed.
    pub async fn subscribe(&self, topic: impl Into<Arc<str>>, filter: impl Into<Filter>) -> Result<()> {
        let (topic, filter) = (topic.into(), filter.into());
        self.check(&topic, &filter)?;
        if let (Some(running), ServiceState::Running) = (self.inner.running.get(), self.state()) {
            running.check_filter(&topic, &filter).await?;
        }
        self.reselect(Way::Subscribe, "subscribe", |selection| selection.want(topic, filter))
    }

    /// Ends the subscription of `topic`: its queues are given to the other members of the group.
    ///
    /// # Errors
    ///
    /// [`LitePullError::OtherWay`] where queues are assigned; where the consumer is shut down.
    pub fn unsubscribe(&self, topic: &str) -> Result<()> {
        self.reselect(Way::Subscribe, "unsubscribe", |selection| selection.forget(topic))
    }

    /// Makes exactly `queues` those of this consumer, before the start or after it; they are shared with nobody.
    ///
    /// [`fetch_message_queues`](Self::fetch_message_queues) tells which ones there are. Those that it has already go on
    /// as they were.
    ///
    /// # Errors
    ///
    /// [`LitePullError::OtherWay`] where topics are subscribed; where the consumer is shut down.
    pub fn assign(&self, queues: impl IntoIterator<Item = MessageQueue>) -> Result<()> {
        let queues: BTreeSet<_> = queues.into_iter().collect();
        self.reselect(Way::Assign, "assign", |selection| selection.assign(queues))
    }

    /// Wants only the messages of `topic` that match `filter`, for queues that are [assigned](Self::assign).
    ///
    /// # Errors
    ///
    /// [`LitePullError::OtherWay`] where topics are subscribed; where the topic or the filter is none, or the consumer
    /// has been started.
    pub fn filter_assigned(&self, topic: impl Into<Arc<str>>, filter: impl Into<Filter>) -> Result<()> {
        let (topic, filter) = (topic.into(), filter.into());
        self.inner.state.expect(ServiceState::CreateJust, self, "filter assigned queues")?;
        self.check(&topic, &filter)?;
        self.reselect(Way::Assign, "filter assigned queues", |selection| selection.want(topic, filter))
    }

    /// Calls `listener` with the queues of `topic` whenever they have become others, because the topic got more of them
    /// or lost some, or a broker came or went. One listener a topic: a second one takes the place of the first.
    ///
    /// The queues are looked at every [`queue_check_interval`](LitePullConfig::queue_check_interval) while the consumer
    /// runs; the first look only remembers them. For consumers whose queues are [assigned](Self::assign): subscriptions
    /// follow by themselves. The listener must not block.
    ///
    /// # Errors
    ///
    /// Where the topic is none.
    pub fn register_queue_change_listener(
        &self,
        topic: impl Into<Arc<str>>,
        listener: impl Fn(&[MessageQueue]) + Send + Sync + 'static,
    ) -> Result<()> {
        let topic = topic.into();
        check_topic(&topic).map_err(|error| Error::consumer(self.group(), error))?;
        self.inner.watch.add(topic, Arc::new(listener));
        Ok(())
    }

    fn check(&self, topic: &str, filter: &Filter) -> Result<()> {
        check_topic(topic).map_err(|error| Error::consumer(self.group(), error))?;
        filter.check().map_err(|error| Error::consumer(self.group(), error))?;
        match filter.expression_type() {
            // Lite pull carries its filter in every pull, where a broker that cannot read one gives all messages.
            ExpressionType::Sql92 => Selector::parse(filter.expression()).map(|_| ()).map_err(|error| {
                Error::consumer(
                    self.group(),
                    format!("sql = {filter:?}: {error}", filter = filter.expression()),
                )
            }),
            ExpressionType::Tag => Ok(()),
        }
    }

    /// Changes the selection, and what the consumer does if it runs.
    fn reselect(&self, way: Way, action: &'static str, change: impl FnOnce(&mut Selection)) -> Result<()> {
        if self.state() != ServiceState::CreateJust {
            self.inner.state.expect(ServiceState::Running, self, action)?;
        }
        {
            let mut selection = self.selection();
            selection.choose(way).map_err(|other| LitePullError::OtherWay {
                group: self.group().to_owned(),
                action,
                way: other.name(),
            })?;
            change(&mut selection);
        }
        if let Some(running) = self.inner.running.get() {
            running.reselect();
        }
        Ok(())
    }

    /// Tells the consumer where its clients come from.
    pub(crate) fn settle(&self, home: Home) -> Result<()> {
        self.inner.state.expect(ServiceState::CreateJust, self, "be registered")?;
        self.inner.home.set(home).map_err(|_| Error::consumer(self.group(), "it is registered already"))
    }

    /// The cluster that it connects to, where it has one of its own.
    pub(crate) fn cluster(&self) -> Option<&ClusterConfig> {
        self.inner.cluster.as_ref()
    }

    /// Starts: asks for routes, makes itself known to the brokers, and begins to pull.
    ///
    /// Nothing needs to be subscribed or assigned yet. A topic that does not exist is a warning, and is looked for all
    /// the time.
    ///
    /// # Errors
    ///
    /// Where no name server answers within `startup_timeout` (unless `startup: wait`), or the consumer is not registered
    /// or was started before.
    pub async fn start(&self) -> Result<()> {
        self.inner.state.change(ServiceState::CreateJust, ServiceState::StartFailed, self, "start")?;
        let home = self
            .inner
            .home
            .get()
            .ok_or_else(|| Error::consumer(self.group(), "it is not registered at a manager"))?;
        let cluster = self.cluster().unwrap_or(&home.cluster);
        allocate::check_room(self.inner.strategy.is_none(), self.inner.config.allocate, cluster)
            .map_err(|reason| Error::consumer(self.group(), reason))?;
        let client = home.clients.acquire_for(RequestType::Stream, cluster)?;
        let (selection, watch) = (Arc::clone(&self.inner.selection), Arc::clone(&self.inner.watch));
        let (config, strategy) = (self.inner.config.clone(), self.inner.strategy.clone());
        let running = Running::new(self.group(), config, Arc::clone(&client), selection, watch, strategy);
        if let Err(error) = running.join().await {
            running.stop(None).await;
            home.clients.release(&client).await;
            return Err(error);
        }
        info!(group = %running.group, client = client.id(), "lite pull consumer started");
        // Only one start gets this far. Who selects something from here on finds it running; what was selected before
        // is seen now.
        self.inner.running.get_or_init(|| running).begin();
        self.inner.state.set(ServiceState::Running);
        Ok(())
    }

    /// Whether the consumer has its routes and knows its share of the queues.
    pub fn is_ready(&self) -> bool {
        self.inner.running.get().is_some_and(|running| *running.balanced().borrow())
    }

    /// Waits until [`is_ready`](Self::is_ready); returns at once where the consumer does not run.
    pub async fn ready(&self) {
        if let Some(running) = self.inner.running.get() {
            let mut balanced = running.balanced();
            tokio::select! {
                () = running.stopping().cancelled() => {}
                // The sender lives as long as `running`.
                _ = balanced.wait_for(|balanced| *balanced) => {}
            }
        }
    }

    /// Messages of one queue, at most [`pull_batch`](LitePullConfig::pull_batch) of them; waits up to `timeout` for some.
    /// Empty if none came. Queues take turns.
    ///
    /// What this handle was given before is consumed from now on: see [`LitePullConsumer`].
    ///
    /// # Errors
    ///
    /// Where the consumer does not run, or is shut down meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped before it is done.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<MessageExt>> {
        let running = Arc::clone(self.running("poll")?);
        self.acknowledge();
        let most = self.inner.config.pull_batch as usize;
        match time::timeout(timeout, running.next_messages(most)).await {
            Ok(Some((delivery, messages))) => {
                self.delivered.push(delivery);
                Ok(messages)
            }
            Ok(None) => Err(self.running("poll").err().unwrap_or_else(|| self.stopped())),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The messages as a stream, which waits for more at its end, and ends when the consumer is shut down.
    ///
    /// A message is consumed when the stream is asked for the next one. So do not ask ahead (`buffered`,
    /// `for_each_concurrent`) with [`auto_commit`](LitePullConfig::auto_commit).
    ///
    /// ```no_run
    /// # async fn example(mut consumer: rocketmq::LitePullConsumer) -> rocketmq::Result<()> {
    /// let mut messages = consumer.messages()?;
    /// while let Some(message) = messages.next().await {
    ///     println!("{}", message.body_utf8()?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Where the consumer does not run.
    pub fn messages(&mut self) -> Result<Messages<'_>> {
        let running = Arc::clone(self.running("give messages")?);
        Ok(Messages::new(self, running))
    }

    /// Waits for one message; `None` once the consumer stops.
    async fn next_message(&mut self, running: &Running) -> Option<MessageExt> {
        self.acknowledge();
        let (delivery, mut messages) = running.next_messages(1).await?;
        self.delivered.push(delivery);
        messages.pop()
    }

    /// The caller has come back: what it was given is consumed.
    fn acknowledge(&mut self) {
        self.delivered.drain(..).for_each(Delivery::acknowledge);
    }

    /// Stores how far all queues are consumed, and waits until the brokers have it. What this handle was given by now
    /// counts as consumed; what others were given and work on does not.
    ///
    /// # Errors
    ///
    /// Where the consumer does not run; the first failure of a broker, the other offsets being stored nevertheless.
    pub async fn commit(&mut self) -> Result<()> {
        let running = Arc::clone(self.running("commit")?);
        self.acknowledge();
        Ok(running.commit().await?)
    }

    /// Stores these offsets for the group, whatever was consumed, and waits until the brokers have them. An offset is
    /// that of the next message to be consumed: one more than that of the last one which was.
    ///
    /// For those who commit message by message, or keep offsets elsewhere, too. Turn
    /// [`auto_commit`](LitePullConfig::auto_commit) off, or it stores over them.
    ///
    /// # Errors
    ///
    /// [`LitePullError::NotAssigned`] where a queue is another member's by now, or [`LitePullError::BadOffset`]: then
    /// nothing is stored. Where the consumer does not run; the first failure of a broker.
    pub async fn commit_offsets(&self, offsets: impl IntoIterator<Item = (MessageQueue, i64)>) -> Result<()> {
        let running = self.running("commit")?;
        let mut assigned = Vec::new();
        for (queue, offset) in offsets {
            if offset < 0 {
                return Err(LitePullError::BadOffset { queue, offset }.into());
            }
            assigned.push((running.assigned(&queue, "commit")?, offset));
        }
        let mut result = Ok(());
        for (queue, offset) in assigned {
            result = result.and(running.store_offset(&queue, offset).await);
        }
        Ok(result?)
    }

    /// The offset that the group would go on from in `queue` after a restart, asked of its broker; `None` where it has
    /// none.
    ///
    /// Brokers say 0 for a new group on a queue that is still young.
    ///
    /// # Errors
    ///
    /// Where the broker does not answer, or the consumer does not run.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        let running = self.running("read offsets")?;
        Ok(running.client.query_offset(&running.group, &running.on_wire(queue)).await?)
    }

    /// The queues that the consumer has now, sorted; none before the first rebalance.
    pub fn assignment(&self) -> Vec<MessageQueue> {
        let running = self.inner.running.get();
        running.map(|running| running.assignment()).unwrap_or_default()
    }

    /// The queues of `topic` that can be read, sorted, asked of a name server.
    ///
    /// # Errors
    ///
    /// Where there is no such topic, no name server answers, or the consumer does not run.
    pub async fn fetch_message_queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        let running = self.running("fetch queues")?;
        Ok(watch_queues::queues_of(&running.client, topic).await?)
    }

    /// Goes on at `offset` in `queue`: what is held of it is thrown away, and polls return what is there. From now on
    /// that is how far the queue is consumed; what was given before and not acknowledged counts no more.
    ///
    /// # Errors
    ///
    /// [`LitePullError::NotAssigned`], [`LitePullError::OutOfRange`]; where the broker does not answer, or the consumer
    /// does not run.
    pub async fn seek(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        let running = self.assigned(queue, "seek in")?.0;
        let wire = running.on_wire(queue);
        let (min, max) =
            tokio::try_join!(running.client.min_offset(&wire), running.client.max_offset(&wire))?;
        if !(min..=max).contains(&offset) {
            return Err(LitePullError::OutOfRange { queue: queue.clone(), offset, min, max }.into());
        }
        self.go_on(queue, offset)
    }

    /// [Seeks](Self::seek) the first message of `queue` that is still there.
    ///
    /// # Errors
    ///
    /// As [`seek`](Self::seek).
    pub async fn seek_to_begin(&self, queue: &MessageQueue) -> Result<()> {
        let running = self.assigned(queue, "seek in")?.0;
        let min = running.client.min_offset(&running.on_wire(queue)).await?;
        self.go_on(queue, min)
    }

    /// [Seeks](Self::seek) the end of `queue`: polls return what is sent from now on.
    ///
    /// # Errors
    ///
    /// As [`seek`](Self::seek).
    pub async fn seek_to_end(&self, queue: &MessageQueue) -> Result<()> {
        let running = self.assigned(queue, "seek in")?.0;
        let max = running.client.max_offset(&running.on_wire(queue)).await?;
        self.go_on(queue, max)
    }

    /// [Seeks](Self::seek) the first message of `queue` that was stored at `time` or later; see
    /// [`offset_for_timestamp`](Self::offset_for_timestamp).
    ///
    /// # Errors
    ///
    /// As [`seek`](Self::seek).
    pub async fn seek_to_timestamp(&self, queue: &MessageQueue, time: SystemTime) -> Result<()> {
        self.assigned(queue, "seek in")?;
        let offset = self.offset_for_timestamp(queue, time).await?;
        self.go_on(queue, offset)
    }

    /// The offset of the first message of `queue` that was stored at `time` or later.
    ///
    /// Where all are older, brokers of 5.x say the end of the queue, those of 4.9 its last message.
    ///
    /// # Errors
    ///
    /// Where the broker does not answer, or the consumer does not run.
    pub async fn offset_for_timestamp(&self, queue: &MessageQueue, time: SystemTime) -> Result<i64> {
        let running = self.running("search offsets")?;
        Ok(running.client.search_offset(&running.on_wire(queue), unix_ms(time)).await?)
    }

    /// Pulls `queues` no more until they are [resumed](Self::resume). Polls still return what is held of them.
    ///
    /// A queue that goes to another member and comes back is paused no more.
    ///
    /// # Errors
    ///
    /// [`LitePullError::NotAssigned`]: then none is paused. Where the consumer does not run.
    pub fn pause<'a>(&self, queues: impl IntoIterator<Item = &'a MessageQueue>) -> Result<()> {
        self.pause_all(queues, "pause", true)
    }

    /// Pulls `queues` again.
    ///
    /// # Errors
    ///
    /// [`LitePullError::NotAssigned`]: then none is resumed. Where the consumer does not run.
    pub fn resume<'a>(&self, queues: impl IntoIterator<Item = &'a MessageQueue>) -> Result<()> {
        self.pause_all(queues, "resume", false)
    }

    fn pause_all<'a>(
        &self,
        queues: impl IntoIterator<Item = &'a MessageQueue>,
        action: &'static str,
        is_paused: bool,
    ) -> Result<()> {
        let running = self.running(action)?;
        let assigned: Result<Vec<_>, _> =
            queues.into_iter().map(|queue| running.assigned(queue, action)).collect();
        assigned?.iter().for_each(|queue| queue.pause(is_paused));
        Ok(())
    }

    /// Stops: pulls no more, stores how far the queues are consumed if it [does so by
    /// itself](LitePullConfig::auto_commit), and says goodbye to the brokers. Polls end with an error.
    ///
    /// What the last poll returned comes again after a restart, unless it was [committed](Self::commit) before: nobody
    /// polled after it. A consumer that does not run is only closed.
    ///
    /// The first call does the work; others wait until that is done.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped leaves the rest undone; the next one does it.
    pub async fn shutdown(&self) {
        self.stop(None).await;
    }

    /// The same; lets `at_work` go before the goodbye.
    pub(crate) async fn stop(&self, at_work: Option<TaskTrackerToken>) {
        self.inner.state.set(ServiceState::ShutdownAlready);
        let Some(running) = self.inner.running.get() else { return };
        let stop = || async move {
            running.stop(at_work).await;
            if let Some(home) = self.inner.home.get() {
                home.clients.release(&running.client).await;
            }
            info!(group = %running.group, "lite pull consumer stopped");
        };
        self.inner.stopped.get_or_init(stop).await;
    }

    fn running(&self, action: &'static str) -> Result<&Arc<Running>> {
        self.inner.state.expect(ServiceState::Running, self, action)?;
        self.inner.running.get().ok_or_else(|| self.stopped())
    }

    fn stopped(&self) -> Error {
        Error::consumer(self.group(), "it has been stopped")
    }

    /// A queue of this consumer while it runs.
    fn assigned(
        &self,
        queue: &MessageQueue,
        action: &'static str,
    ) -> Result<(&Arc<Running>, Arc<AssignedQueue>)> {
        let running = self.running(action)?;
        Ok((running, running.assigned(queue, action)?))
    }

    /// Goes on at `offset` in `queue`, which may have become another member's while brokers were asked.
    fn go_on(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        self.assigned(queue, "seek in")?.1.seek(offset);
        Ok(())
    }

    fn selection(&self) -> MutexGuard<'_, Selection> {
        self.inner.selection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another handle to the same consumer, with nothing delivered to it.
impl Clone for LitePullConsumer {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), delivered: Vec::new() }
    }
}

/// Nobody will come back for what this handle was given: others get it.
impl Drop for LitePullConsumer {
    fn drop(&mut self) {
        if self.delivered.is_empty() {
            return;
        }
        self.delivered.drain(..).for_each(Delivery::give_back);
        if let Some(running) = self.inner.running.get() {
            running.arrived.notify_waiters();
        }
    }
}

impl fmt::Display for LitePullConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lite pull consumer of group {}", self.group())
    }
}

impl fmt::Debug for LitePullConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LitePullConsumer")
            .field("group", &self.group())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
