//! The push consumer: pulls what a group subscribed to and pushes it to listeners, at least once.
//!
//! What a consumer at work is made of stands in [`running`], how it ends in [`stop`] and [`goodbye`]. The route of a message:
//! [`rebalance`] finds out which queues are ours, a [`puller`] asks for the messages of one, the [`process_queue`]
//! holds them and knows which offset may be stored, [`consume`] calls the listener and settles what came of it,
//! [`send_back`] gives failed ones back to the broker. [`subscriptions`] says which listener a message is for,
//! [`subscribe`] how that changes. Where a group consumes in order, [`locks`] sees to it that nobody else has the
//! queue, and [`orderly`] calls the listener. [`offset_store`] is where the group's offsets are kept: at the brokers,
//! or, of a broadcast group, on this machine ([`local_offsets`]). Where brokers share the queues, and may hand out
//! messages one by one, [`pop`] takes the place of most of it.

pub mod allocate;
mod answer;
mod builder;
mod consume;
mod directly;
mod filter_hook;
mod goodbye;
mod hook;
#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "the test kit reads it"))]
mod journal;
mod leave;
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
mod records;
mod releases;
mod reset;
mod running;
mod running_info;
mod send_back;
mod share;
mod sift;
mod start_offset;
mod stats;
mod stop;
mod stored_offset;
mod subscribe;
mod subscription;
mod subscriptions;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, OnceCell, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::info;

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
pub(crate) use running::Shared;
pub use stats::ConsumeStats;
pub use subscription::Conflict;
pub(crate) use subscription::{Subscription, conflicts};

use self::allocate::AllocateStrategy;
use self::local_offsets::LocalOffsets;
use self::locks::Order;
use self::offset_store::OffsetStore;
use self::pop::Pop;
use self::queue_listener::QueueListener;
use self::rate_limit::RateLimit;
use self::rebalance::flow_limits;
use self::releases::Releases;
use self::subscriptions::Subscriptions;
use crate::client::{GroupMember, Home, MqClient, ServiceState, StateCell, namespace, time_for_handlers};
use crate::config::{ClusterConfig, ConsumerConfig, Rate};
use crate::error::{Error, Result};
use crate::listener::{Around, Filter, Handler, IntoConsumeResult};
use crate::message::MessageExt;
use crate::tasks::Tasks;

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
    /// Whether it has been stopped; several may ask for it, and some not wait for the end.
    stopped: OnceCell<()>,
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
            stopped: OnceCell::new(),
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
            shared.stop(Duration::ZERO, None).await;
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
            return Ok(OffsetStore::at_brokers(Arc::clone(client), group));
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
            storing: client.tasks().child(),
            handlers: Tasks::default(),
            drained: CancellationToken::new(),
            releases: Releases::default(),
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

    /// Pulls no more until [`resume`](Self::resume). What is here already is still handled; with `mode: pop` so is what the
    /// pops bring that wait at the brokers now, for [`pull_suspend`](crate::config::ClientConfig::pull_suspend) at most.
    ///
    /// The consumer keeps its queues, but for those that go to members that join, and is as ready as it was. Without effect on
    /// one that does not run.
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

    /// Whether it was [suspended](Self::suspend).
    pub(crate) fn is_suspended(&self) -> bool {
        self.inner.running.get().is_some_and(|shared| shared.is_suspended())
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

    /// Stops: pulls no more, lets running handlers finish, stores the offsets and says goodbye to the brokers, all within
    /// [`shutdown_timeout`](crate::config::ClientConfig::shutdown_timeout). A consumer that does not run is only closed.
    ///
    /// The first call does the work; others wait until that is done, and return `Ok`.
    ///
    /// # Errors
    ///
    /// Where handlers had to be abandoned; their messages are delivered again.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped leaves the rest undone; the next one does it.
    pub async fn shutdown(&self) -> Result<()> {
        self.stop(None).await
    }

    /// The same; lets `at_work` go once no handler is at work any more.
    pub(crate) async fn stop(&self, at_work: Option<TaskTrackerToken>) -> Result<()> {
        self.inner.state.set(ServiceState::ShutdownAlready);
        let Some(shared) = self.inner.running.get() else { return Ok(()) };
        let mut abandoned = 0;
        let first = &mut abandoned;
        let stop = || async move {
            *first = shared.stop(time_for_handlers(shared.client.config()), at_work).await;
            if let Some(home) = self.inner.home.get() {
                home.clients.release(&shared.client).await;
            }
            info!(group = %shared.group, abandoned = *first, "consumer stopped");
        };
        self.inner.stopped.get_or_init(stop).await;
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
