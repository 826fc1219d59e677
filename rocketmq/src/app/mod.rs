//! The application: from a file and annotated functions to running consumers, and back to a clean end.
//!
//! [`run`] is all that most programs need. [`plan`] turns configuration and listeners into groups, or into a list of
//! everything that is wrong with them, before anything is connected; [`App`] starts what was planned and stops it.

mod builder;
mod checks;
mod instruments;
mod listener;
mod parts;
mod plan;
mod signals;
#[cfg(feature = "health")]
mod status_page;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::OnceCell;
use tracing::{info, warn};

pub use builder::AppBuilder;
#[cfg(feature = "testing")]
pub(crate) use instruments::Instruments;
pub use listener::Listener;

#[cfg(not(feature = "testing"))]
use self::instruments::Instruments;
use self::parts::{Member, Parts};
use self::plan::{Plan, PlannedGroup};
use crate::client::{MqClientManager, ServiceState};
use crate::config::{Config, DEFAULT_CLUSTER, LoadedConfig, Sources};
use crate::consumer::{ConsumeStats, PushConsumer};
use crate::error::{Error, Result};
use crate::producer::{Hooks, Producer, Producers};
use crate::remoting::RpcHooks;
use crate::tasks::Boxed;
use crate::trace::Tracer;

/// Reads `rocketmq.yaml`, starts a consumer for every group of annotated listeners, and runs until SIGINT or SIGTERM;
/// then stops gracefully.
///
/// The same as `App::builder().run()`. A program that does something else as well takes
/// [`start`](AppBuilder::start) instead, and stops by [`App::shutdown`].
///
/// # Errors
///
/// Everything that is wrong with the configuration and the listeners, at once, before anything is connected; no name
/// server within `startup_timeout`; handlers that did not finish within `shutdown_timeout`.
pub async fn run() -> Result<()> {
    App::builder().run().await
}

/// Checks a configuration file against the listeners and checks of this program, without a network.
///
/// Shared state is not looked at: it is given to the builder.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn check(path: impl AsRef<Path>) -> Result<()> {
    let draft = Sources { file: Some(path.as_ref().to_owned()), ..Sources::from_process() }.draft()?;
    plan::check(draft)?;
    Ok(())
}

/// A running application: its consumers, its producers, and the way to stop them. A clone is another handle to the same one.
///
/// For a program that is nothing else, [`run`] is all: it starts, waits for SIGINT or SIGTERM, stops. One that also serves
/// HTTP, or has a `main` of its own for another reason, calls [`start`](AppBuilder::start), gives clones to whoever
/// sends or asks for the [`health`](Self::health), and calls [`shutdown`](Self::shutdown) when everything that uses the
/// producers has ended: `examples/inside_axum.rs`. Signals are its own business then.
///
/// Dropping the handles stops nothing: consumers go on for as long as the runtime does, and nobody can stop them any more. (An
/// embedded server goes with the last handle.) A process that ends without `shutdown` loses no message, but those that were being
/// handled are delivered again, and other members wait until the brokers miss this one.
#[derive(Clone)]
pub struct App {
    running: Arc<Running>,
}

/// What the handles share.
struct Running {
    managers: BTreeMap<String, MqClientManager>,
    parts: Parts,
    /// By the names of the clusters that they write to; none without `trace.enabled`.
    tracers: BTreeMap<String, Tracer>,
    /// Of all managers.
    rpc_hooks: RpcHooks,
    instruments: Instruments,
    #[cfg(feature = "health")]
    status_page: Option<status_page::StatusPage>,
    #[cfg(feature = "embedded")]
    servers: BTreeMap<String, crate::embedded::Server>,
    /// Whether everything has been stopped; several may ask for it.
    stopped: OnceCell<()>,
}

/// Whether an application does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Every group is ready, and the application is not being stopped.
    pub ready: bool,
    /// The groups, by name.
    pub groups: BTreeMap<String, GroupHealth>,
}

/// Whether a group does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupHealth {
    /// What its consumer is doing. In several clusters it has several; then that of the worst one: a start that has failed,
    /// or is not over, before a consumer that is shut down, that one before one that is not started yet.
    pub state: ServiceState,
    /// It has its routes, knows its share of the queues, and has begun in each of them, in all of its clusters.
    pub ready: bool,
    /// It pulls no more messages until [`App::resume`]; it stays as ready as it was.
    pub paused: bool,
}

impl GroupHealth {
    fn of(consumer: &PushConsumer) -> Self {
        Self { state: consumer.state(), ready: consumer.is_ready(), paused: consumer.is_suspended() }
    }

    /// That of a group that is in another cluster as well.
    fn and(self, other: Self) -> Self {
        let how_bad = |state: &ServiceState| match state {
            ServiceState::Running => 0,
            ServiceState::CreateJust => 1,
            ServiceState::ShutdownAlready => 2,
            ServiceState::StartFailed => 3,
        };
        Self {
            state: std::cmp::max_by_key(self.state, other.state, how_bad),
            ready: self.ready && other.ready,
            paused: self.paused || other.paused,
        }
    }
}

impl App {
    /// Begins an application.
    pub fn builder() -> AppBuilder {
        AppBuilder::default()
    }

    /// Pulls no more messages for a group until [`resume`](Self::resume); what is here already is still handled, and
    /// with `mode: pop` so is what the pops bring that wait at the brokers now, for
    /// [`pull_suspend`](crate::config::ClientConfig::pull_suspend) at most.
    ///
    /// The group keeps its queues, but for those that go to members that join, and stays as ready as it was; its
    /// [health](Self::health) says that it is paused.
    ///
    /// # Errors
    ///
    /// Where there is no such group.
    pub fn pause(&self, group: &str) -> Result<()> {
        self.consumers_of(group)?.for_each(PushConsumer::suspend);
        Ok(())
    }

    /// Pulls messages for a group again.
    ///
    /// # Errors
    ///
    /// Where there is no such group.
    pub fn resume(&self, group: &str) -> Result<()> {
        self.consumers_of(group)?.for_each(PushConsumer::resume);
        Ok(())
    }

    /// What a group has pulled and handled, by topic; of all clusters, where it is in several.
    ///
    /// # Errors
    ///
    /// Where there is no such group.
    pub fn stats(&self, group: &str) -> Result<BTreeMap<String, ConsumeStats>> {
        let mut topics: BTreeMap<String, ConsumeStats> = BTreeMap::new();
        for (topic, stats) in self.consumers_of(group)?.flat_map(PushConsumer::stats) {
            let sum = topics.entry(topic).or_default();
            *sum = sum.plus(stats);
        }
        Ok(topics)
    }

    fn consumers_of<'a>(&'a self, group: &'a str) -> Result<impl Iterator<Item = &'a PushConsumer>> {
        let consumers = || {
            let members = self.running.parts.consumers.iter().filter(move |member| member.group == group);
            members.map(|member| &member.consumer)
        };
        match consumers().next() {
            Some(_) => Ok(consumers()),
            None => {
                let consumers = self.running.parts.consumers.iter();
                let known: Vec<_> = consumers.map(|member| member.group.as_str()).collect();
                Err(Error::consumer(
                    group,
                    format_args!("there is no such group; there are: {}", known.join(", ")),
                ))
            }
        }
    }

    /// The producer of that name under `producers:`; `default` is always there.
    ///
    /// # Errors
    ///
    /// Where there is no such producer.
    pub fn producer(&self, name: &str) -> Result<Producer> {
        self.running.parts.producers.get(name)
    }

    /// All producers, by name.
    pub fn producers(&self) -> &Producers {
        &self.running.parts.producers
    }

    /// Whether everything does its work: what a readiness probe wants to know.
    pub fn health(&self) -> Health {
        let parts = &self.running.parts;
        let mut groups: BTreeMap<String, GroupHealth> = BTreeMap::new();
        for Member { group, consumer, .. } in &parts.consumers {
            let health = GroupHealth::of(consumer);
            let all = groups.get(group).map_or(health, |others| others.and(health));
            groups.insert(group.clone(), all);
        }
        let ready = !parts.stopping.is_cancelled() && groups.values().all(|group| group.ready);
        Health { ready, groups }
    }

    /// Waits until every group is ready: it has its routes, knows its share of the queues, and has a place to begin at in each of
    /// them, so that nothing is missed that is sent from then on, also with `consume_from: last`.
    ///
    /// A topic that does not exist keeps its group waiting until somebody creates it.
    pub async fn ready(&self) {
        for member in &self.running.parts.consumers {
            member.consumer.ready().await;
        }
    }

    /// Where the status page is served, if it is; with port 0 under `health.listen` the system chose one.
    #[cfg(feature = "health")]
    pub fn status_page(&self) -> Option<std::net::SocketAddr> {
        self.running.status_page.as_ref().map(status_page::StatusPage::address)
    }

    /// Stops: pulls no more, lets handlers finish, stores the offsets and says goodbye to the brokers, with the producers once all
    /// handlers have ended: all within [`shutdown_timeout`](crate::config::ClientConfig::shutdown_timeout). Then the embedded
    /// server.
    ///
    /// Every handle may ask for it. The first call does the work; others wait until that is done, and return `Ok`.
    ///
    /// # Errors
    ///
    /// Where handlers had to be abandoned; their messages are delivered again.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped leaves the rest undone; the next one does it.
    pub async fn shutdown(&self) -> Result<()> {
        let mut result = Ok(());
        let first = &mut result;
        self.running.stopped.get_or_init(|| async move { *first = self.running.stop().await }).await;
        result
    }
}

impl Running {
    fn stop(&self) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            info!("stopping");
            self.parts.stopping.cancel();
            let result = MqClientManager::shutdown_together(self.managers.values()).await;
            #[cfg(feature = "embedded")]
            for server in self.servers.values() {
                server.stop().await;
            }
            #[cfg(feature = "health")]
            if let Some(page) = &self.status_page {
                page.shutdown().await;
            }
            info!("stopped");
            result
        })
    }
}

/// What the test kit looks at.
#[cfg(feature = "testing")]
impl App {
    /// The consumers, each with the name of its cluster and its group.
    pub(crate) fn consumers(&self) -> impl Iterator<Item = (&str, &str, &PushConsumer)> {
        let consumers = self.running.parts.consumers.iter();
        consumers.map(|member| (member.cluster.as_str(), member.group.as_str(), &member.consumer))
    }

    /// The namespace of the default cluster.
    pub(crate) fn namespace(&self) -> Option<String> {
        self.running.managers.get(DEFAULT_CLUSTER)?.namespace()
    }

    /// The embedded servers, by the names of their clusters.
    pub(crate) fn servers(&self) -> &BTreeMap<String, crate::embedded::Server> {
        &self.running.servers
    }

    /// Ends as if the process had been killed.
    pub(crate) fn abandon(&self) {
        let Running { parts, managers, .. } = &*self.running;
        parts.stopping.cancel();
        parts.consumers.iter().for_each(|member| member.consumer.abandon());
        managers.values().for_each(MqClientManager::abandon);
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("health", &self.health()).finish_non_exhaustive()
    }
}

/// Makes what was planned, and starts it.
async fn start(
    loaded: &mut LoadedConfig,
    send_hooks: &Hooks,
    rpc_hooks: RpcHooks,
    instruments: Instruments,
    plan: impl FnOnce(&LoadedConfig, &Producers) -> Result<Plan>,
) -> Result<App> {
    let tracers = tracers(&loaded.config)?;
    let producers = plan::producers(loaded, |cluster| {
        let mut hooks = send_hooks.clone();
        tracers.get(cluster).cloned().into_iter().for_each(|tracer| hooks.add(tracer));
        hooks
    })?;
    let mut plan = plan(loaded, &producers)?;
    for group in &mut plan.groups {
        let tracer = tracers.get(&group.cluster).cloned();
        tracer.into_iter().for_each(|tracer| group.consume_hooks.add(tracer));
    }
    let mut running = Running {
        managers: BTreeMap::new(),
        parts: Parts::default(),
        tracers,
        rpc_hooks,
        instruments,
        #[cfg(feature = "health")]
        status_page: None,
        #[cfg(feature = "embedded")]
        servers: BTreeMap::new(),
        stopped: OnceCell::new(),
    };
    match running.start_all(loaded, producers, plan).await {
        Ok(()) => Ok(App { running: Arc::new(running) }),
        Err(error) => {
            if let Err(error) = running.stop().await {
                warn!(%error, "what had been started did not stop cleanly");
            }
            Err(error)
        }
    }
}

/// What traces each of the clusters, where the file asks for it.
fn tracers(config: &Config) -> Result<BTreeMap<String, Tracer>> {
    let clusters = config.clusters.keys().map(String::as_str).chain([DEFAULT_CLUSTER]);
    let tracer = |name: &str| Ok((name.to_owned(), Tracer::new(config.trace.clone())?));
    clusters.filter(|_| config.trace.enabled).map(tracer).collect()
}

impl Running {
    async fn start_all(&mut self, loaded: &mut LoadedConfig, producers: Producers, plan: Plan) -> Result<()> {
        let mut checks = plan.checks;
        for (name, producer) in producers.iter() {
            if let Some(check) = checks.remove(name) {
                info!(producer = name, group = producer.group(), check = check.place(), "transactions");
                producer.set_check(check);
            }
            let cluster = loaded.config.producers.get(name).and_then(|config| config.cluster.clone());
            let manager = self.manager(loaded, cluster.as_deref().unwrap_or(DEFAULT_CLUSTER)).await?;
            manager.register_producer(producer)?;
        }
        self.parts.producers = producers;
        for planned in plan.groups {
            planned.announce();
            let manager = self.manager(loaded, &planned.cluster).await?;
            self.create_topics(&planned)?;
            let (cluster, group) = (planned.cluster.clone(), planned.name.clone());
            let consumer = planned.into_consumer()?;
            manager.register_consumer(&consumer)?;
            self.parts.consumers.push(Member { cluster, group, consumer });
        }
        self.serve_status(&loaded.config).await?;
        // A handler of one cluster may send to another: no consumer starts before the last producer.
        for manager in self.managers.values() {
            manager.start_producers().await?;
        }
        for manager in self.managers.values() {
            manager.start().await?;
        }
        let producers = self.parts.producers.names().count();
        info!(groups = self.parts.consumers.len(), producers, "started");
        Ok(())
    }

    /// Before anything is connected: a start that waits for its name servers can be watched.
    #[cfg(feature = "health")]
    async fn serve_status(&mut self, config: &Config) -> Result<()> {
        if let Some(address) = config.health.listen {
            let page = status_page::StatusPage::start(address, self.parts.clone()).await;
            self.status_page = Some(page.map_err(|error| {
                Error::other(format!("health.listen: the status page cannot be served at {address}: {error}"))
            })?);
        }
        Ok(())
    }

    /// That the page is wanted without the feature has been refused.
    #[cfg(not(feature = "health"))]
    #[expect(clippy::unused_async, reason = "it has work where there is a page")]
    async fn serve_status(&mut self, _config: &Config) -> Result<()> {
        Ok(())
    }

    /// The manager of a cluster, made when it is first asked for.
    async fn manager(&mut self, loaded: &mut LoadedConfig, name: &str) -> Result<MqClientManager> {
        if let Some(manager) = self.managers.get(name) {
            return Ok(manager.clone());
        }
        let cluster = loaded
            .config
            .cluster(name)
            .cloned()
            .ok_or_else(|| Error::other(format!("there is no cluster {name}")))?;
        let cluster = self.with_addresses(name, cluster).await?;
        info!(cluster = name, name_servers = %cluster.name_servers, "cluster");
        let Instruments { clock, journal } = self.instruments.clone();
        let manager = MqClientManager::with_instruments(cluster, clock, journal);
        self.rpc_hooks.iter().try_for_each(|hook| manager.add_rpc_hook(Arc::clone(hook)))?;
        self.tracers.get(name).map_or(Ok(()), |tracer| manager.register_tracer(tracer))?;
        self.managers.insert(name.to_owned(), manager.clone());
        Ok(manager)
    }

    /// Puts the address of an embedded server, which is started, in the place of the word.
    #[cfg(feature = "embedded")]
    async fn with_addresses(
        &mut self,
        name: &str,
        mut cluster: crate::config::ClusterConfig,
    ) -> Result<crate::config::ClusterConfig> {
        use crate::config::NameServers;

        if cluster.name_servers == NameServers::Embedded {
            let clock = self.instruments.clock.clone();
            let server = crate::embedded::Server::builder().start_by(clock).await.map_err(Error::other)?;
            cluster.name_servers = NameServers::Addresses(vec![server.name_server()]);
            info!(
                name_server = server.name_server(),
                "an embedded server is used: messages live in this process only"
            );
            self.servers.insert(name.to_owned(), server);
        }
        Ok(cluster)
    }

    /// That the word is there without the feature has been refused.
    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_async, reason = "it is async where there is a server to start")]
    async fn with_addresses(
        &mut self,
        _name: &str,
        cluster: crate::config::ClusterConfig,
    ) -> Result<crate::config::ClusterConfig> {
        Ok(cluster)
    }

    /// Makes the topics of a group on an embedded server, so that a first run has nothing to wait for. Real topics are
    /// their operators'.
    #[cfg(feature = "embedded")]
    fn create_topics(&self, group: &PlannedGroup) -> Result<()> {
        use crate::client::namespace;

        const QUEUES: u32 = 4;
        if let Some(server) = self.servers.get(&group.cluster) {
            let namespace = self.managers.get(&group.cluster).and_then(MqClientManager::namespace);
            for topic in group.topics() {
                let topic = namespace::wrap(namespace.as_deref(), topic);
                server.create_topic(&topic, QUEUES).map_err(Error::other)?;
            }
        }
        Ok(())
    }

    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "it has work where there is a server")]
    fn create_topics(&self, _group: &PlannedGroup) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_as_well_as_the_worst_of_its_consumers() {
        use ServiceState::{CreateJust, Running, ShutdownAlready, StartFailed};

        let health = |state, ready, paused| GroupHealth { state, ready, paused };
        for (one, other, both) in [
            (health(Running, true, false), health(Running, true, false), health(Running, true, false)),
            (health(Running, true, true), health(Running, false, false), health(Running, false, true)),
            (
                health(Running, true, false),
                health(CreateJust, false, false),
                health(CreateJust, false, false),
            ),
            (
                health(CreateJust, false, false),
                health(ShutdownAlready, false, false),
                health(ShutdownAlready, false, false),
            ),
            (
                health(ShutdownAlready, true, false),
                health(StartFailed, false, false),
                health(StartFailed, false, false),
            ),
        ] {
            assert_eq!((one.and(other), other.and(one)), (both, both));
        }
    }

    #[test]
    fn what_programs_await_is_compiled_here() {
        // Not boxed, it would be kilobytes of states, whose code each program would have to compile.
        let (run, start) = (size_of_val(&run()), size_of_val(&App::builder().start()));
        assert!(run < 512 && start < 1024, "{run} and {start} bytes");
    }
}
