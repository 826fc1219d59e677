//! The clients, consumers and producers of a process, and what they are doing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::client::{Home, ServiceState, StateCell, Stop};
use crate::clock::Clock;
use crate::config::{ClusterConfig, NameServers};
use crate::consumer::{
    Journal, LitePullConsumer, LitePullConsumerBuilder, PushConsumer, PushConsumerBuilder,
};
use crate::error::{Error, Result};
use crate::producer::{Producer, ProducerBuilder};
use crate::remoting::RpcHook;
use crate::tasks::Boxed;
use crate::trace::Tracer;

/// The consumers and producers of a process, and the clients that they share.
///
/// A clone is another handle to the same manager. Consumers and producers of the same cluster share one client: one
/// connection to each broker, one heartbeat, one table of routes.
///
/// ```no_run
/// # async fn example() -> rocketmq::Result<()> {
/// use rocketmq::client::MqClientManager;
/// use rocketmq::{ConsumeResult, PushConsumer};
///
/// let manager = MqClientManager::with_name_servers(["127.0.0.1:9876"])?;
/// let consumer = PushConsumer::builder("testGroup").create()?;
/// consumer.subscribe("testTopic", "*").await?;
/// consumer.register_message_listener(|messages| async move {
///     println!("{} messages", messages.len());
///     ConsumeResult::Success
/// })?;
/// manager.register_consumer(&consumer)?;
/// manager.start().await?;
/// # manager.shutdown().await }
/// ```
#[derive(Clone)]
pub struct MqClientManager {
    inner: Arc<Inner>,
}

struct Inner {
    home: Home,
    state: StateCell,
    registered: Mutex<Registered>,
}

#[derive(Default)]
struct Registered {
    /// By name servers and group: an instance name does not make a second consumer of a group another one.
    consumers: HashMap<(String, String), PushConsumer>,
    lite_pull_consumers: HashMap<(String, String), LitePullConsumer>,
    producers: HashMap<(String, String), Producer>,
    tracers: Vec<Tracer>,
}

/// Everything that is registered.
struct All {
    consumers: Vec<PushConsumer>,
    lite_pull_consumers: Vec<LitePullConsumer>,
    producers: Vec<Producer>,
    tracers: Vec<Tracer>,
}

impl Registered {
    /// That there is no consumer of this group, of whichever kind; one that was shut down makes room for its successor.
    fn check_consumer(&self, key: &(String, String)) -> Result<()> {
        let push = self.consumers.get(key).map(PushConsumer::state);
        let lite_pull = self.lite_pull_consumers.get(key).map(LitePullConsumer::state);
        match push.into_iter().chain(lite_pull).any(|state| state != ServiceState::ShutdownAlready) {
            true => Err(Error::consumer(
                &key.1,
                "the manager has a consumer of this group already; one is enough, and shares the work among all of its listeners",
            )),
            false => Ok(()),
        }
    }
}

impl MqClientManager {
    /// A manager whose consumers and producers use `cluster`, unless they name another one.
    pub fn new(cluster: ClusterConfig) -> Self {
        Self::with_instruments(cluster, Clock::default(), Journal::default())
    }

    /// The same with a clock that may be moved, and a journal.
    pub(crate) fn with_instruments(cluster: ClusterConfig, clock: Clock, journal: Journal) -> Self {
        let home = Home { clients: Arc::default(), cluster, clock, journal };
        Self { inner: Arc::new(Inner { home, state: StateCell::default(), registered: Mutex::default() }) }
    }

    /// The same for the cluster behind these name servers (`host:port`), with default settings.
    ///
    /// # Errors
    ///
    /// Where an address is none.
    pub fn with_name_servers<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Self> {
        let cluster = ClusterConfig {
            name_servers: NameServers::Addresses(addresses.into_iter().map(Into::into).collect()),
            ..ClusterConfig::default()
        };
        cluster.name_servers.check().map_err(Error::other)?;
        Ok(Self::new(cluster))
    }

    /// The manager of this process, for consumers and producers that name their cluster themselves.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<MqClientManager> = OnceLock::new();
        GLOBAL.get_or_init(|| Self::new(ClusterConfig::default()))
    }

    /// What the manager is doing.
    pub fn state(&self) -> ServiceState {
        self.inner.state.get()
    }

    /// Makes a consumer part of this manager, which [`start`](Self::start) starts.
    ///
    /// # Errors
    ///
    /// Where the manager has a consumer of that group already, or the consumer has been registered or started.
    pub fn register_consumer(&self, consumer: &PushConsumer) -> Result<()> {
        let key = (self.servers_of(consumer.cluster()), consumer.group().to_owned());
        let mut registered = self.registered();
        registered.check_consumer(&key)?;
        consumer.settle(self.inner.home.clone())?;
        registered.consumers.insert(key, consumer.clone());
        Ok(())
    }

    /// Makes a lite pull consumer part of this manager, which [`start`](Self::start) starts.
    ///
    /// # Errors
    ///
    /// Where the manager has a consumer of that group already, or the consumer has been registered or started.
    pub fn register_lite_pull_consumer(&self, consumer: &LitePullConsumer) -> Result<()> {
        let key = (self.servers_of(consumer.cluster()), consumer.group().to_owned());
        let mut registered = self.registered();
        registered.check_consumer(&key)?;
        consumer.settle(self.inner.home.clone())?;
        registered.lite_pull_consumers.insert(key, consumer.clone());
        Ok(())
    }

    /// Makes a producer part of this manager, which [`start`](Self::start) starts.
    ///
    /// # Errors
    ///
    /// Where the manager has a producer of that group already, or the producer has been registered or started.
    pub fn register_producer(&self, producer: &Producer) -> Result<()> {
        let key = (self.servers_of(producer.cluster()), producer.group().to_owned());
        let mut registered = self.registered();
        let taken = registered
            .producers
            .get(&key)
            .is_some_and(|other| other.state() != ServiceState::ShutdownAlready);
        if taken {
            return Err(Error::producer(
                producer.group(),
                "the manager has a producer of this group already; clone that one",
            ));
        }
        producer.settle(self.inner.home.clone())?;
        registered.producers.insert(key, producer.clone());
        Ok(())
    }

    /// Makes a tracer part of this manager, which [`start`](Self::start) starts; its traces go to the manager's cluster.
    ///
    /// # Errors
    ///
    /// Where the tracer has been registered already.
    pub fn register_tracer(&self, tracer: &Tracer) -> Result<()> {
        tracer.settle(self.inner.home.clone())?;
        self.registered().tracers.push(tracer.clone());
        Ok(())
    }

    /// Has every request of this manager's consumers and producers pass `hook`, after those that were registered before.
    ///
    /// # Errors
    ///
    /// Where a consumer or producer has been started: it works without the hook.
    pub fn register_rpc_hook(&self, hook: impl RpcHook) -> Result<()> {
        self.add_rpc_hook(Arc::new(hook))
    }

    pub(crate) fn add_rpc_hook(&self, hook: Arc<dyn RpcHook>) -> Result<()> {
        match self.inner.home.clients.add_hook(hook) {
            true => Ok(()),
            false => Err(Error::other(
                "an RPC hook is registered before the manager, or one of its consumers or producers, is started",
            )),
        }
    }

    /// Starts everything that is registered: first producers, since listeners may send.
    ///
    /// # Errors
    ///
    /// The first one of a consumer or producer; those that were started are stopped again. A manager is started once.
    pub async fn start(&self) -> Result<()> {
        self.inner.state.change(ServiceState::CreateJust, ServiceState::StartFailed, self, "start")?;
        let started = self.start_all().await;
        match started {
            Ok(()) => {
                self.inner.state.set(ServiceState::Running);
                Ok(())
            }
            Err(error) => {
                if let Err(error) = Self::shutdown_together([self]).await {
                    warn!(%error, "what had been started did not stop cleanly");
                }
                self.inner.state.set(ServiceState::StartFailed);
                Err(error)
            }
        }
    }

    /// Starts the producers alone, before [`start`](Self::start): for those that have several managers.
    pub(crate) async fn start_producers(&self) -> Result<()> {
        let All { producers, tracers, .. } = self.all();
        for tracer in tracers.iter().filter(|tracer| tracer.state() == ServiceState::CreateJust) {
            tracer.start().await?;
        }
        for producer in producers.iter().filter(|producer| producer.state() == ServiceState::CreateJust) {
            producer.start().await?;
        }
        Ok(())
    }

    fn start_all(&self) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            self.start_producers().await?;
            let All { consumers, lite_pull_consumers, .. } = self.all();
            for consumer in consumers.iter().filter(|consumer| consumer.state() == ServiceState::CreateJust) {
                consumer.start().await?;
            }
            for consumer in
                lite_pull_consumers.iter().filter(|consumer| consumer.state() == ServiceState::CreateJust)
            {
                consumer.start().await?;
            }
            Ok(())
        })
    }

    /// Stops everything: consumers first, all at the same time, since their handlers may still send; producers once all
    /// handlers have ended, and tracers last. It takes
    /// [`shutdown_timeout`](crate::config::ClientConfig::shutdown_timeout) at most.
    ///
    /// # Errors
    ///
    /// The first one of a consumer; all are stopped nevertheless.
    pub async fn shutdown(&self) -> Result<()> {
        Self::shutdown_together([self]).await
    }

    /// The same for those who have several managers: a handler of one may send by a producer of another.
    pub(crate) fn shutdown_together<'a>(
        managers: impl IntoIterator<Item = &'a Self>,
    ) -> Boxed<'a, Result<()>> {
        let managers: Vec<_> = managers.into_iter().cloned().collect();
        Box::pin(async move {
            let (stop, at_work, mut consumers) = (Stop::begin(), TaskTracker::new(), JoinSet::new());
            for manager in &managers {
                manager.inner.state.set(ServiceState::ShutdownAlready);
                manager.stop_consumers(&mut consumers, &at_work);
            }
            at_work.close();
            let stopped = async {
                let mut result = Ok(());
                while let Some(stopped) = consumers.join_next().await {
                    result = result.and(stopped.unwrap_or_else(|panic| Err(Error::other(panic))));
                }
                result
            };
            let rest = async {
                at_work.wait().await;
                let stop = stop.handled();
                let mut stops = JoinSet::new();
                managers.into_iter().for_each(|manager| {
                    stops.spawn(async move { manager.stop_producers(stop).await });
                });
                report(stops).await;
            };
            // The goodbye of the consumers may wait for a broker, and producers wait for nothing but their handlers.
            tokio::join!(stopped, rest).0
        })
    }

    /// Begins to stop the consumers. Each lets go of what it takes from `at_work` once no handler of it is at work.
    fn stop_consumers(&self, stops: &mut JoinSet<Result<()>>, at_work: &TaskTracker) {
        let All { consumers, lite_pull_consumers, .. } = self.all();
        for consumer in consumers {
            let at_work = Some(at_work.token());
            stops.spawn(async move { consumer.stop(at_work).await });
        }
        for consumer in lite_pull_consumers {
            let at_work = Some(at_work.token());
            stops.spawn(async move {
                consumer.stop(at_work).await;
                Ok(())
            });
        }
    }

    async fn stop_producers(self, stop: Stop) {
        let All { producers, tracers, .. } = self.all();
        let (mut stops, sending) = (JoinSet::new(), TaskTracker::new());
        for producer in producers {
            let token = Some(sending.token());
            stops.spawn(async move { producer.stop(stop, token).await });
        }
        sending.close();
        sending.wait().await;
        // Last, as they tell of all that the others did.
        for tracer in tracers {
            stops.spawn(async move { tracer.shutdown(stop).await });
        }
        report(stops).await;
    }

    /// The namespace that goes before topics and groups.
    #[cfg(feature = "embedded")]
    pub(crate) fn namespace(&self) -> Option<String> {
        self.inner.home.cluster.client.namespace.clone()
    }

    /// Ends the tasks of all clients as if the process had been killed.
    #[cfg(feature = "testing")]
    pub(crate) fn abandon(&self) {
        self.inner.home.clients.abandon();
    }

    fn all(&self) -> All {
        let registered = self.registered();
        All {
            consumers: registered.consumers.values().cloned().collect(),
            lite_pull_consumers: registered.lite_pull_consumers.values().cloned().collect(),
            producers: registered.producers.values().cloned().collect(),
            tracers: registered.tracers.clone(),
        }
    }

    fn servers_of(&self, cluster: Option<&ClusterConfig>) -> String {
        cluster.unwrap_or(&self.inner.home.cluster).name_servers.to_string()
    }

    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.inner.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn report(mut stops: JoinSet<()>) {
    while let Some(stopped) = stops.join_next().await {
        if let Err(panic) = stopped {
            warn!(%panic, "a producer did not stop cleanly");
        }
    }
}

impl fmt::Display for MqClientManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the manager of {}", self.inner.home.cluster.name_servers)
    }
}

impl fmt::Debug for MqClientManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqClientManager")
            .field("name_servers", &self.inner.home.cluster.name_servers)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl PushConsumerBuilder {
    /// Makes the consumer and registers it at `manager`.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create) and of [`MqClientManager::register_consumer`].
    pub fn build(self, manager: &MqClientManager) -> Result<PushConsumer> {
        let consumer = self.create()?;
        manager.register_consumer(&consumer)?;
        Ok(consumer)
    }
}

impl LitePullConsumerBuilder {
    /// Makes the consumer and registers it at `manager`.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create) and of [`MqClientManager::register_lite_pull_consumer`].
    pub fn build(self, manager: &MqClientManager) -> Result<LitePullConsumer> {
        let consumer = self.create()?;
        manager.register_lite_pull_consumer(&consumer)?;
        Ok(consumer)
    }
}

impl ProducerBuilder {
    /// Makes the producer and registers it at `manager`.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create) and of [`MqClientManager::register_producer`].
    pub fn build(self, manager: &MqClientManager) -> Result<Producer> {
        let producer = self.create()?;
        manager.register_producer(&producer)?;
        Ok(producer)
    }
}
