//! The push consumer: pulls what a group subscribed to and pushes it to listeners, at least once.
//!
//! The route of a message: [`rebalance`] finds out which queues are ours, a [`puller`] asks for the messages of one,
//! the [`process_queue`] holds them and knows which offset may be stored, [`consume`] calls the listener and settles
//! what came of it, [`send_back`] gives failed ones back to the broker. [`subscription`] says which listener a message
//! is for. Where a group consumes in order, [`locks`] sees to it that nobody else has the queue, and [`orderly`] calls the
//! listener. [`offset_store`] is where the group's offsets are kept: at the brokers, or, of a broadcast group, on this machine
//! ([`local_offsets`]). Where brokers share the queues, and may hand out messages one by one, [`pop`] takes the place of most of it.

pub mod allocate;
mod answer;
mod builder;
mod consume;
mod directly;
mod filter_hook;
mod hook;
#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "the test kit reads it"))]
mod journal;
mod lite_pull;
mod local_offsets;
mod locks;
mod offset_store;
mod orderly;
mod pop;
mod process_queue;
#[cfg(feature = "testing")]
mod progress;
mod puller;
mod queue;
mod queue_listener;
mod rate_limit;
mod rebalance;
mod reset;
mod running_info;
mod send_back;
mod share;
mod sift;
mod start_offset;
mod stats;
mod subscription;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use builder::PushConsumerBuilder;
pub use filter_hook::{FilterHook, Filtering};
pub(crate) use hook::Hooks as ConsumeHooks;
pub use hook::{ConsumeHook, ConsumeStatus, Consumed, Consuming};
#[cfg(feature = "testing")]
pub use journal::Fate;
pub(crate) use journal::Journal;
#[cfg(feature = "testing")]
pub(crate) use journal::{Entry, Open};
pub use lite_pull::{LitePullConsumer, LitePullConsumerBuilder, LitePullError, Messages};
#[cfg(feature = "testing")]
pub(crate) use pop::PopQueue;
#[cfg(feature = "testing")]
pub(crate) use progress::{Progress, QueueProgress};
pub use queue_listener::QueueChange;
pub use stats::ConsumeStats;
pub use subscription::Conflict;
pub(crate) use subscription::{Subscription, conflicts};

use self::allocate::AllocateStrategy;
use self::local_offsets::LocalOffsets;
use self::locks::Order;
use self::offset_store::OffsetStore;
use self::pop::Pop;
use self::process_queue::FlowLimits;
use self::queue::OwnedQueue;
use self::queue_listener::QueueListener;
use self::rate_limit::RateLimit;
use self::rebalance::{Rebalancer, flow_limits};
use self::subscription::Subscriptions;
use crate::client::{Directly, GroupMember, Home, MqClient, Offsets, ServiceState, StateCell, namespace};
use crate::clock::Clock;
use crate::config::{ClusterConfig, ConsumeFrom, ConsumerConfig, Rate};
use crate::error::{Error, Result};
use crate::listener::{Around, Filter, Handler, IntoConsumeResult};
use crate::message::{MessageExt, MessageQueue};
use crate::producer::Replier;
use crate::protocol::body::{self, ConsumeType, ConsumerData, MessageModel, SubscriptionData};
use crate::protocol::broker_calls::ConsumerRunningInfo;
use crate::tasks::Tasks;

/// How long pullers and scheduled tasks get to end; none of them waits for anything at that point.
const TASKS_END: Duration = Duration::from_secs(1);

/// A consumer of one group: the messages of its topics, pushed to listeners.
///
/// A clone is another handle to the same consumer. Made by [`PushConsumer::builder`], registered at a
/// [`MqClientManager`](crate::client::MqClientManager), then started; once shut down it cannot be started again.
#[derive(Clone)]
pub struct PushConsumer {
    inner: Arc<Inner>,
}

struct Inner {
    group: String,
    config: ConsumerConfig,
    way: Way,
    strategy: Option<Arc<dyn AllocateStrategy>>,
    /// The cluster to connect to; `None` takes the manager's.
    cluster: Option<ClusterConfig>,
    hooks: ConsumeHooks,
    state: StateCell,
    wishes: Mutex<Wishes>,
    /// Where clients come from, once the consumer is registered.
    home: OnceLock<Home>,
    running: OnceLock<Arc<Shared>>,
}

/// What the listeners of a group rely on, so that it stands in the code.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    orderly: bool,
    broadcasting: bool,
}

/// What was subscribed before the start.
#[derive(Default)]
struct Wishes {
    subscriptions: Vec<Subscription>,
    /// Topics without a listener of their own: they go to the one for all.
    plain: Vec<(Arc<str>, Filter)>,
    listener: Option<Handler>,
    queue_listener: Option<QueueListener>,
    /// Around that one.
    arounds: Vec<Around>,
}

/// What the tasks of a running consumer share.
pub(crate) struct Shared {
    /// The name on the wire.
    group: Arc<str>,
    config: ConsumerConfig,
    clock: Clock,
    journal: Journal,
    client: Arc<MqClient>,
    offsets: OffsetStore,
    subscriptions: Subscriptions,
    strategy: Arc<dyn AllocateStrategy>,
    queue_listener: Option<QueueListener>,
    /// One for each handler that may run at the same time.
    permits: Arc<Semaphore>,
    owned: Mutex<HashMap<MessageQueue, (Arc<OwnedQueue>, CancellationToken)>>,
    flow: Mutex<FlowLimits>,
    /// Only where the group consumes in order.
    order: Option<Order>,
    /// Only where brokers are asked for the share.
    pop: Option<Pop>,
    rate_limit: RateLimit,
    /// What was stored before is passed over.
    skip_before: Option<SystemTime>,
    suspended: AtomicBool,
    /// Asks for a rebalance.
    wake: Notify,
    /// Whether a round of rebalance was complete.
    is_balanced: AtomicBool,
    /// Whether each queue had its place then, or has had it since; it stays so.
    ready: watch::Sender<bool>,
    /// Pullers and scheduled tasks: ended at the beginning of a shutdown.
    pulling: Tasks,
    /// Handlers and what follows from them: waited for.
    handlers: Tasks,
    /// Told to handlers when the consumer stops.
    shutdown: CancellationToken,
    hooks: ConsumeHooks,
    stats: stats::Topics,
    started_at: SystemTime,
    /// Made for the first reply of a listener.
    replier: OnceLock<Replier>,
    max_body_bytes: usize,
}

impl PushConsumer {
    /// Begins a consumer of `group`.
    pub fn builder(group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder::new(group.into())
    }

    fn new(
        group: String,
        config: ConsumerConfig,
        way: Way,
        cluster: Option<ClusterConfig>,
        wishes: Wishes,
        hooks: ConsumeHooks,
        strategy: Option<Arc<dyn AllocateStrategy>>,
    ) -> Self {
        let inner = Inner {
            group,
            config,
            way,
            strategy,
            cluster,
            hooks,
            state: StateCell::default(),
            wishes: Mutex::new(wishes),
            home: OnceLock::new(),
            running: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The group, as it was given.
    pub fn group(&self) -> &str {
        &self.inner.group
    }

    /// What the consumer is doing.
    pub fn state(&self) -> ServiceState {
        self.inner.state.get()
    }

    /// Subscribes the messages of `topic` that match `filter`, for the listener of
    /// [`register_message_listener`](Self::register_message_listener).
    ///
    /// # Errors
    ///
    /// Where the topic or the filter is none, or the consumer has been started.
    pub fn subscribe(&self, topic: impl Into<Arc<str>>, filter: impl Into<Filter>) -> Result<()> {
        let (topic, filter) = (topic.into(), filter.into());
        self.inner.state.expect(ServiceState::CreateJust, self, "subscribe")?;
        crate::config::check_topic(&topic).map_err(|error| Error::consumer(self.group(), error))?;
        filter.check().map_err(|error| Error::consumer(self.group(), error))?;
        self.wishes().plain.push((topic, filter));
        Ok(())
    }

    /// Registers the one listener for every topic that was subscribed without one: a function from a list of messages
    /// (at most the group's `batch`) to what became of them.
    ///
    /// # Errors
    ///
    /// Where the consumer has been started.
    pub fn register_message_listener<F, Fut>(&self, listener: F) -> Result<()>
    where
        F: Fn(Vec<MessageExt>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoConsumeResult> + Send + 'static,
    {
        self.inner.state.expect(ServiceState::CreateJust, self, "register a listener")?;
        let handler = Handler::from_fn(format!("the listener of {}", self.group()), listener);
        let mut wishes = self.wishes();
        wishes.listener = Some(handler.within(wishes.arounds.clone()));
        Ok(())
    }

    /// Calls `listener` whenever this consumer has got or lost queues of a topic; see
    /// [`PushConsumerBuilder::message_queue_listener`], in whose place it comes.
    ///
    /// # Errors
    ///
    /// Where the consumer has been started.
    pub fn register_message_queue_listener(
        &self,
        listener: impl Fn(&QueueChange<'_>) + Send + Sync + 'static,
    ) -> Result<()> {
        self.inner.state.expect(ServiceState::CreateJust, self, "register a listener of queue changes")?;
        self.wishes().queue_listener = Some(Arc::new(listener));
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
    /// Returns once the brokers know this member. A topic that does not exist is a warning, and is looked for all the
    /// time.
    ///
    /// # Errors
    ///
    /// Where the subscriptions contradict each other, nothing is subscribed, no name server answers within
    /// `startup_timeout` (unless `startup: wait`), or the consumer is not registered or was started before.
    pub async fn start(&self) -> Result<()> {
        self.inner.state.change(ServiceState::CreateJust, ServiceState::StartFailed, self, "start")?;
        let home = self
            .inner
            .home
            .get()
            .ok_or_else(|| Error::consumer(self.group(), "it is not registered at a manager"))?;
        let cluster = self.inner.cluster.as_ref().unwrap_or(&home.cluster);
        self.check()?;
        allocate::check_room(self.inner.strategy.is_none(), self.inner.config.allocate, cluster)
            .map_err(|reason| Error::consumer(self.group(), reason))?;
        let client = home.clients.acquire(cluster)?;
        let offsets = match self.offsets(&client).await {
            Ok(offsets) => offsets,
            Err(error) => {
                home.clients.release(&client).await;
                return Err(error);
            }
        };
        let shared = self.share(Arc::clone(&client), home, offsets);
        let started = shared.start().await;
        if let Err(error) = started {
            shared.stop(Duration::ZERO).await;
            home.clients.release(&client).await;
            return Err(error);
        }
        info!(group = %shared.group, client = client.id(), "consumer started");
        // Only one start gets this far.
        let _ = self.inner.running.set(shared);
        self.inner.state.set(ServiceState::Running);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let fail = |reason: String| Err(Error::consumer(self.group(), reason));
        crate::config::check_group(self.group()).map_err(|error| Error::consumer(self.group(), error))?;
        self.inner.config.check()?;
        let mut wishes = self.wishes();
        if !wishes.plain.is_empty() {
            let Some(listener) = wishes.listener.clone() else {
                return fail(
                    "it has subscriptions, but no listener: call `register_message_listener`".to_owned(),
                );
            };
            let place = listener.name().to_owned();
            let plain: Vec<_> = wishes.plain.drain(..).collect();
            wishes.subscriptions.extend(plain.into_iter().map(|(topic, filter)| Subscription {
                topic,
                filter,
                handler: listener.clone(),
                place: place.clone(),
            }));
        }
        if wishes.subscriptions.is_empty() {
            return fail("it subscribes to nothing: call `subscribe`".to_owned());
        }
        if let Some(conflict) = conflicts(&wishes.subscriptions).into_iter().next() {
            return Err(Error::Conflict { group: self.group().to_owned(), conflict: Box::new(conflict) });
        }
        if let Some(problem) =
            self.inner.config.mode_problem(self.inner.way.orderly, self.inner.way.broadcasting)
        {
            return fail(problem);
        }
        Ok(())
    }

    /// Where the group's offsets are kept.
    async fn offsets(&self, client: &Arc<MqClient>) -> Result<OffsetStore> {
        let group = namespace::wrap(client.config().namespace.as_deref(), self.group());
        if !self.inner.way.broadcasting {
            return Ok(OffsetStore::Brokers { client: Arc::clone(client), group });
        }
        let opened = LocalOffsets::open(client.config(), &group).await;
        opened.map(OffsetStore::Local).map_err(|error| Error::consumer(self.group(), error))
    }

    fn share(&self, client: Arc<MqClient>, home: &Home, offsets: OffsetStore) -> Arc<Shared> {
        let namespace = client.config().namespace.clone();
        let group = namespace::wrap(namespace.as_deref(), self.group());
        let (subscriptions, queue_listener) = {
            let mut wishes = self.wishes();
            (std::mem::take(&mut wishes.subscriptions), wishes.queue_listener.take())
        };
        let subscriptions = Subscriptions::new(subscriptions, &group, namespace.as_deref());
        let subscriptions = if offsets.is_local() { subscriptions.without_retries() } else { subscriptions };
        let config = self.inner.config.clone();
        let strategy = self.inner.strategy.clone().unwrap_or_else(|| {
            allocate::configured(config.allocate, &config.rooms, &config.queues, namespace.as_deref())
        });
        let pulling = client.tasks().child();
        Arc::new(Shared {
            subscriptions,
            strategy,
            queue_listener,
            permits: Arc::new(Semaphore::new(config.concurrency as usize)),
            owned: Mutex::default(),
            flow: Mutex::new(flow_limits(&config, 1, self.inner.way.orderly)),
            order: self.inner.way.orderly.then(|| Order::new(client.tasks().child())),
            pop: config.asks_brokers().then(Pop::default),
            rate_limit: RateLimit::new(config.rate_limit),
            skip_before: config.skip_before.map(|skip| skip.time(SystemTime::now())),
            suspended: AtomicBool::new(false),
            wake: Notify::new(),
            is_balanced: AtomicBool::new(false),
            ready: watch::Sender::new(false),
            pulling,
            handlers: Tasks::default(),
            shutdown: CancellationToken::new(),
            hooks: self.inner.hooks.clone(),
            stats: stats::Topics::default(),
            started_at: SystemTime::now(),
            replier: OnceLock::new(),
            max_body_bytes: client.config().max_frame.as_usize(),
            group,
            config,
            clock: home.clock.clone(),
            journal: home.journal.clone(),
            client,
            offsets,
        })
    }

    /// Pulls no more until [`resume`](Self::resume). What is here already is still handled.
    pub fn suspend(&self) {
        if let Some(shared) = self.inner.running.get() {
            info!(group = %shared.group, "consumer suspended");
            shared.suspended.store(true, Ordering::Relaxed);
        }
    }

    /// Pulls again.
    pub fn resume(&self) {
        if let Some(shared) = self.inner.running.get() {
            info!(group = %shared.group, "consumer resumed");
            shared.suspended.store(false, Ordering::Relaxed);
            for owned in shared.owned() {
                owned.room.notify_one();
            }
            shared.wake_rebalance();
        }
    }

    /// Changes how many messages this member hands over in a time; `None` is no limit. In place of the group's
    /// [`rate_limit`](ConsumerConfig::rate_limit), from now on; without effect on a consumer that does not run.
    pub fn set_rate_limit(&self, rate: Option<Rate>) {
        if let Some(shared) = self.inner.running.get() {
            info!(group = %shared.group, rate = rate.map(tracing::field::display), "the rate limit has changed");
            shared.rate_limit.set(rate);
            for owned in shared.owned() {
                owned.room.notify_one();
                owned.wake_worker();
            }
            shared.pop.iter().for_each(Pop::wake);
        }
    }

    /// What the consumer has pulled and handled, by topic; nothing before it was started.
    ///
    /// Operators see the same by `mqadmin consumerStatus`.
    pub fn stats(&self) -> BTreeMap<String, ConsumeStats> {
        let Some(shared) = self.inner.running.get() else { return BTreeMap::new() };
        let namespace = Some(shared.subscriptions.namespace());
        let shown = |topic: Arc<str>| namespace::strip(namespace, &topic).to_owned();
        shared.stats.stats(Instant::now()).into_iter().map(|(topic, stats)| (shown(topic), stats)).collect()
    }

    /// Whether the consumer has its routes, knows its share of the queues, and has a place to begin at in each of them.
    ///
    /// From then on nothing is missed that is sent to its topics, also with `consume_from: last`. It stays so: a queue that
    /// comes later does not make it less ready.
    pub fn is_ready(&self) -> bool {
        self.inner.running.get().is_some_and(|shared| *shared.ready.borrow())
    }

    /// Waits until [`is_ready`](Self::is_ready); returns at once where the consumer does not run.
    pub async fn ready(&self) {
        if let Some(shared) = self.inner.running.get() {
            // The sender lives as long as `shared`.
            let _ = shared.ready.subscribe().wait_for(|ready| *ready).await;
        }
    }

    /// Stops: pulls no more, lets running handlers finish for at most `shutdown_timeout`, stores the offsets and says
    /// goodbye to the brokers. A consumer that does not run is only closed.
    ///
    /// # Errors
    ///
    /// Where handlers had to be abandoned; their messages are delivered again.
    pub async fn shutdown(&self) -> Result<()> {
        let state = self.inner.state.get();
        self.inner.state.set(ServiceState::ShutdownAlready);
        let (Some(shared), ServiceState::Running) = (self.inner.running.get(), state) else { return Ok(()) };
        let abandoned = shared.stop(shared.client.config().shutdown_timeout).await;
        if let Some(home) = self.inner.home.get() {
            home.clients.release(&shared.client).await;
        }
        info!(group = %shared.group, abandoned, "consumer stopped");
        match abandoned {
            0 => Ok(()),
            handlers => Err(Error::Abandoned { group: self.group().to_owned(), handlers }),
        }
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.inner.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for PushConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the consumer of group {}", self.group())
    }
}

impl std::fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushConsumer")
            .field("group", &self.group())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Shared {
    async fn start(self: &Arc<Self>) -> Result<()> {
        let member: Arc<dyn GroupMember> = Arc::<Self>::clone(self);
        self.client.add_consumer(&self.group, Arc::downgrade(&member));
        self.client.find_routes(&self.group, self.subscriptions.topics()).await?;
        self.check_filters().await?;
        // Brokers refuse the pulls of a group that they do not know.
        self.client.heartbeat_all().await;
        if let Some(pop) = &self.pop {
            self.prepare_brokers(pop).await?;
        }
        let shared = Arc::clone(self);
        self.pulling.spawn_lasting("rebalance", move || Rebalancer::new(Arc::clone(&shared)).run());
        let every = self.client.config().offset_interval;
        self.spawn_periodic("offsets", every, |shared| async move { shared.persist_all().await });
        self.spawn_periodic("statistics", stats::SAMPLE_INTERVAL, |shared| async move {
            shared.stats.sample(Instant::now());
        });
        if self.order.is_some() {
            self.keep_locks();
            return Ok(());
        }
        let every =
            (self.config.consume_timeout / 4).clamp(Duration::from_millis(100), Duration::from_secs(60));
        self.spawn_periodic("clean expired", every, |shared| async move { shared.clean_expired().await });
        Ok(())
    }

    /// Asks the brokers whether they can filter as the listeners want.
    async fn check_filters(&self) -> Result<()> {
        for data in self.subscriptions.data() {
            if let Err(reason) = self.client.check_filter(&self.group, &data).await {
                let listener = self.subscriptions.place(&data.topic).unwrap_or_default();
                return Err(Error::consumer(&self.group, format!("{listener}: {reason}")));
            }
        }
        Ok(())
    }

    /// Stops; returns how many handlers were still at work after `limit`.
    async fn stop(&self, limit: Duration) -> usize {
        self.shutdown.cancel();
        self.pulling.cancel();
        let stuck = self.pulling.join(TASKS_END).await;
        if stuck > 0 {
            warn!(group = %self.group, stuck, "tasks did not end in time");
        }
        let abandoned = self.handlers.join(limit).await;
        if abandoned > 0 {
            warn!(group = %self.group, abandoned, ?limit, "handlers did not finish within `shutdown_timeout`; their messages will be delivered again");
        }
        self.persist_all().await;
        // From here on nobody may move the offsets: others own the queues.
        self.owned().iter().for_each(|owned| owned.drop_queue());
        self.offsets.close();
        self.free_locks(TASKS_END).await;
        self.client.remove_consumer(&self.group).await;
        abandoned
    }

    async fn persist_all(&self) {
        for owned in self.owned() {
            if let Err(error) = owned.persist(&self.offsets).await {
                warn!(group = %self.group, queue = %owned.queue, %error, "the offset could not be stored, it is tried again");
            }
        }
        self.offsets.flush().await;
    }

    fn spawn_periodic<F>(
        self: &Arc<Self>,
        name: &'static str,
        period: Duration,
        work: impl Fn(Arc<Self>) -> F + Copy + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let shared = Arc::clone(self);
        self.pulling.spawn_periodic(name, period, move || work(Arc::clone(&shared)));
    }

    fn subscription_data(&self) -> Vec<SubscriptionData> {
        let leftovers = self.pop.iter().flat_map(Pop::leftovers);
        self.subscriptions.data().into_iter().chain(leftovers).collect()
    }

    fn stopping(&self) -> &CancellationToken {
        self.pulling.stopping()
    }

    fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    fn flow_limits(&self) -> FlowLimits {
        *self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round of rebalance is complete.
    fn note_balanced(&self) {
        self.is_balanced.store(true, Ordering::SeqCst);
        self.note_begun();
    }

    /// A queue may have got its place; to be called after it has.
    fn note_begun(&self) {
        if *self.ready.borrow() || !self.is_balanced.load(Ordering::SeqCst) {
            return;
        }
        let have_begun = self.owned().iter().all(|owned| owned.has_begun());
        if have_begun && self.pop.as_ref().is_none_or(Pop::has_begun) {
            self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
        }
    }

    fn owned(&self) -> Vec<Arc<OwnedQueue>> {
        self.lock_owned().values().map(|(owned, _)| Arc::clone(owned)).collect()
    }

    fn lock_owned(&self) -> MutexGuard<'_, HashMap<MessageQueue, (Arc<OwnedQueue>, CancellationToken)>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupMember for Shared {
    fn consumer_data(&self) -> ConsumerData {
        ConsumerData {
            group_name: self.group.to_string(),
            consume_type: ConsumeType::ConsumePassively,
            message_model: match self.offsets.is_local() {
                true => MessageModel::Broadcasting,
                false => MessageModel::Clustering,
            },
            consume_from_where: match self.config.consume_from {
                ConsumeFrom::Last => body::ConsumeFromWhere::ConsumeFromLastOffset,
                ConsumeFrom::First => body::ConsumeFromWhere::ConsumeFromFirstOffset,
                ConsumeFrom::Timestamp(_) => body::ConsumeFromWhere::ConsumeFromTimestamp,
            },
            subscription_data_set: self.subscription_data(),
            unit_mode: false,
        }
    }

    fn topics(&self) -> Vec<Arc<str>> {
        let leftovers = self.pop.iter().flat_map(Pop::leftover_topics);
        self.subscriptions.topics().cloned().chain(leftovers).collect()
    }

    fn wake_rebalance(&self) {
        self.wake.notify_one();
        // What woke it may be a broker that was restarted, and brokers keep locks in memory only.
        self.order.iter().for_each(Order::renew_soon);
    }

    fn offsets(&self, topic: &str) -> Offsets {
        self.offsets_of(topic)
    }

    fn reset_offsets(self: Arc<Self>, topic: &str, offsets: Offsets) {
        self.reset(topic, offsets);
    }

    fn running_info(&self, with_handlers: bool) -> ConsumerRunningInfo {
        self.describe(with_handlers)
    }

    fn consume_directly(self: Arc<Self>, message: MessageExt) -> Directly {
        self.directly(message)
    }
}
