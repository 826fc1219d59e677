//! The server that a case runs on, and how a case becomes a test for each of them.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{ClusterConfig, Config, ConsumeFrom, ConsumerConfig, NameServers, ProducerConfig};
use rocketmq::{Producer, embedded};
use rocketmq_tests::{Admin, Apache, Broker, ServerKind, Setup, Version, mqadmin, servers};
use tokio::runtime;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time;

use crate::log;
use crate::sending::send;

/// How long a case may take once its server runs: more than the minute for which brokers keep the locks of a member that
/// was killed.
const CASE_LIMIT: Duration = Duration::from_secs(180);
/// Of every level but the second, where tests need not wait; brokers of Apache count in seconds.
const EMBEDDED_DELAY: Duration = Duration::from_millis(50);
/// Of the second level, so that it can be told from the others.
const EMBEDDED_SECOND_DELAY: Duration = Duration::from_millis(500);
const APACHE_DELAYS: &str = "1s 3s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s";
/// When, and how often, brokers ask about open transactions: soon, and for as long as a test takes.
const EMBEDDED_CHECKS: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(200)];
const APACHE_CHECKS: [(&str, &str); 4] = [
    ("transactionTimeOut", "2000"),
    ("transactionCheckInterval", "500"),
    ("transactionCheckMax", "10000"),
    // 5.x notes down later which ones have ended, and asks about them until then.
    ("transactionOpBatchInterval", "100"),
];
/// So few that a test can make the oldest go.
const EMBEDDED_MESSAGES_PER_QUEUE: usize = 2_000;
/// Of a broker that a case has alone, so small that it has several: of those, the oldest can go.
const APACHE_COMMIT_LOG_FILE_BYTES: &str = "4194304";

/// Whether a case breaks its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It only sends and receives; other cases do so at the same time.
    Shared,
    /// It stops and starts brokers and name servers: one case at a time.
    Alone,
    /// As `Shared`, on a server of 5.x whose operators have set otherwise what changed with 5.x: popped messages come
    /// again from retry topics of the second kind, and members are told when offsets are reset. 4.9 has only one way.
    Otherwise,
}

/// Makes a test for each server of each case: `name::embedded`, `name::apache_5_5`, `name::apache_4_9`.
macro_rules! on_each_server {
    ($use:ident: $($case:ident),* $(,)?) => {$(
        mod $case {
            use rocketmq_tests::{ServerKind, Version};

            use crate::server::{Use, run};

            #[test]
            fn embedded() -> anyhow::Result<()> {
                run(ServerKind::Embedded, Use::$use, super::$case)
            }

            #[test]
            fn apache_5_5() -> anyhow::Result<()> {
                run(ServerKind::Apache(Version::V5_5_0), Use::$use, super::$case)
            }

            #[test]
            fn apache_4_9() -> anyhow::Result<()> {
                run(ServerKind::Apache(Version::V4_9_7), Use::$use, super::$case)
            }
        }
    )*};
}

/// Makes one test of each case, `name::on_each_server`, which runs it on all servers at the same time: for cases that
/// mostly wait.
macro_rules! on_all_servers_at_once {
    ($use:ident: $($case:ident),* $(,)?) => {$(
        mod $case {
            use crate::server::{Use, run_on_all};

            #[test]
            fn on_each_server() -> anyhow::Result<()> {
                run_on_all(Use::$use, super::$case)
            }
        }
    )*};
}

/// The same on all servers that can do what came with 5.0.
macro_rules! on_all_servers_of_5_at_once {
    ($use:ident: $($case:ident),* $(,)?) => {$(
        mod $case {
            use rocketmq_tests::{ServerKind, Version};

            use crate::server::{Use, run_on_those};

            #[test]
            fn on_each_server() -> anyhow::Result<()> {
                run_on_those(|kind| kind != ServerKind::Apache(Version::V4_9_7), Use::$use, super::$case)
            }
        }
    )*};
}

/// Runs a case on all servers that are to be tested on, at the same time.
pub(crate) fn run_on_all<F>(usage: Use, case: fn(Server) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    run_on_those(|_| true, usage, case)
}

/// The same on some of them.
pub(crate) fn run_on_those<F>(
    is_wanted: fn(ServerKind) -> bool,
    usage: Use,
    case: fn(Server) -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let run = |kind| move || run(kind, usage, case).with_context(|| format!("on {kind:?}"));
    thread::scope(|scope| {
        let kinds = servers()?.into_iter().filter(|kind| is_wanted(*kind));
        let threads: Vec<_> = kinds.map(|kind| scope.spawn(run(kind))).collect();
        let ends =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ends.collect()
    })
}

/// Runs a case on a server, unless that one is not to be tested on.
pub(crate) fn run<F>(kind: ServerKind, usage: Use, case: impl FnOnce(Server) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    if !servers()?.contains(&kind) {
        return Ok(());
    }
    block_on(async {
        let server = Server::get(kind, usage).await?;
        time::timeout(CASE_LIMIT, case(server))
            .await
            .with_context(|| format!("not done after {CASE_LIMIT:?}"))?
    })
}

/// Runs a case that needs no server, or brings its own.
pub(crate) fn block_on(case: impl Future<Output = Result<()>>) -> Result<()> {
    log::start();
    runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?.block_on(case)
}

/// A name server and a broker.
pub(crate) struct Server {
    inner: Inner,
    is_otherwise: bool,
}

enum Inner {
    Embedded(embedded::Server),
    Shared(&'static Apache),
    Alone(MutexGuard<'static, Option<Apache>>),
}

impl Server {
    async fn get(kind: ServerKind, usage: Use) -> Result<Self> {
        let inner = match (kind, usage) {
            // A server of its own for each test: it costs a millisecond, and lives in the test's runtime.
            (ServerKind::Embedded, usage) => {
                let levels =
                    (1..=18).map(|level| if level == 2 { EMBEDDED_SECOND_DELAY } else { EMBEDDED_DELAY });
                let [timeout, interval] = EMBEDDED_CHECKS;
                let server = embedded::Server::builder()
                    .delay_levels(levels)
                    .transaction_timeout(timeout)
                    .transaction_check_interval(interval)
                    .retry_topic_v2(usage == Use::Otherwise)
                    .server_side_reset_offset(usage != Use::Otherwise)
                    .transaction_check_max(10_000);
                Inner::Embedded(server.max_messages_per_queue(EMBEDDED_MESSAGES_PER_QUEUE).start().await?)
            }
            (ServerKind::Apache(version), Use::Shared) => Inner::Shared(setup(version).shared().await?),
            (ServerKind::Apache(Version::V4_9_7), Use::Otherwise) => {
                Inner::Shared(setup(Version::V4_9_7).shared().await?)
            }
            (ServerKind::Apache(version), Use::Otherwise) => {
                Inner::Shared(otherwise(version).shared().await?)
            }
            (ServerKind::Apache(version), Use::Alone) => Inner::Alone(alone(version).await?),
            (other, _) => bail!("there is no {other:?} to test on"),
        };
        Ok(Self { inner, is_otherwise: usage == Use::Otherwise })
    }

    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.inner, Inner::Embedded(_))
    }

    /// Whether messages can be delayed by time, which releases before 5.0 deliver at once.
    pub(crate) fn knows_timers(&self) -> bool {
        !self.is_4_9()
    }

    /// Whether it is of a release before 5.0.
    pub(crate) fn is_4_9(&self) -> bool {
        let version = match &self.inner {
            Inner::Embedded(_) => return false,
            Inner::Shared(server) => server.version(),
            Inner::Alone(server) => owned(server).version(),
        };
        version == Version::V4_9_7
    }

    pub(crate) fn name_server(&self) -> String {
        match &self.inner {
            Inner::Embedded(server) => server.name_server(),
            Inner::Shared(server) => server.name_server(),
            Inner::Alone(server) => owned(server).name_server(),
        }
    }

    pub(crate) fn broker_addr(&self) -> SocketAddr {
        match &self.inner {
            Inner::Embedded(server) => server.broker().parse().expect("a server knows its own address"),
            Inner::Shared(server) => server.broker_addr(),
            Inner::Alone(server) => owned(server).broker_addr(),
        }
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.broker_addr())
    }

    /// The release that runs here; the one that the embedded server is like.
    pub(crate) fn version(&self) -> Version {
        match &self.inner {
            Inner::Embedded(_) => Version::V5_5_0,
            Inner::Shared(server) => server.version(),
            Inner::Alone(server) => owned(server).version(),
        }
    }

    /// Runs a command of `mqadmin`, of the same release.
    pub(crate) async fn mqadmin(&self, args: &[&str]) -> Result<String> {
        mqadmin(self.version(), &self.name_server(), args).await
    }

    /// The delay of the levels that a broker chooses by itself.
    pub(crate) fn delay(&self) -> Duration {
        if self.is_embedded() { EMBEDDED_DELAY } else { Duration::from_secs(1) }
    }

    /// The delay of level 2.
    pub(crate) fn second_delay(&self) -> Duration {
        if self.is_embedded() { EMBEDDED_SECOND_DELAY } else { Duration::from_secs(3) }
    }

    pub(crate) async fn create_topic(&self, topic: &str, queues: u32) -> Result<()> {
        match &self.inner {
            Inner::Embedded(server) => Ok(server.create_topic(topic, queues)?),
            Inner::Shared(server) => server.create_topic(topic, queues).await,
            Inner::Alone(server) => owned(server).create_topic(topic, queues).await,
        }
    }

    /// One more master at the same name server, for as long as the returned value lives.
    pub(crate) async fn add_broker(&self, name: &str) -> Result<Broker> {
        match &self.inner {
            Inner::Embedded(_) => bail!("the embedded server has one broker"),
            Inner::Shared(_) => bail!("a shared server gets no other broker"),
            Inner::Alone(server) => owned(server).add_broker(name).await,
        }
    }

    pub(crate) async fn kill_broker(&mut self) -> Result<()> {
        match &mut self.inner {
            Inner::Embedded(server) => server.stop_broker().await,
            Inner::Shared(_) => bail!("a shared broker is not killed"),
            Inner::Alone(server) => owned_mut(server).kill_broker().await?,
        }
        Ok(())
    }

    /// Kills the broker before it has brought to the disk what these groups stored for a topic.
    pub(crate) async fn kill_broker_unsaved(
        &mut self,
        groups: &[&str],
        topic: &str,
        queues: u32,
    ) -> Result<()> {
        if let Inner::Embedded(server) = &self.inner {
            // It forgets nothing.
            for (group, queue) in groups.iter().flat_map(|group| (0..queues).map(move |queue| (group, queue)))
            {
                self.admin().commit(group, topic, queue, 0).await?;
            }
            server.stop_broker().await;
            return Ok(());
        }
        self.kill_broker().await?;
        if let Inner::Alone(server) = &self.inner {
            for file in owned(server).broker().consumer_offsets() {
                // Each comes with one of the first times that offsets were saved.
                drop(fs::remove_file(file));
            }
        }
        Ok(())
    }

    pub(crate) async fn restart_broker(&mut self) -> Result<()> {
        match &mut self.inner {
            Inner::Embedded(server) => Ok(server.start_broker().await?),
            Inner::Shared(_) => bail!("a shared broker is not restarted"),
            Inner::Alone(server) => owned_mut(server).restart_broker().await,
        }
    }

    /// Makes the oldest messages of a topic with one queue go, as those go that are older than a broker keeps them.
    pub(crate) async fn lose_oldest(&mut self, producer: &Producer, topic: &str) -> Result<()> {
        let fill = async |count: usize, size: usize| {
            let padding = "x".repeat(size);
            send(producer, topic, (0..count).map(|number| format!("old {number} {padding}"))).await
        };
        match &mut self.inner {
            Inner::Embedded(_) => {
                fill(EMBEDDED_MESSAGES_PER_QUEUE + 500, 0).await?;
            }
            Inner::Shared(_) => bail!("a shared broker loses nothing"),
            Inner::Alone(server) => {
                fill(1_500, 3_500).await?;
                let server = owned_mut(server);
                server.kill_broker().await?;
                let files: BTreeSet<PathBuf> = fs::read_dir(server.broker().commit_log())?
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<_, _>>()?;
                ensure!(2 < files.len(), "there are only {files:?}");
                // The last one is made ahead of its time, and the one before it is being written.
                for file in files.iter().take(files.len() - 2) {
                    fs::remove_file(file)?;
                }
                server.restart_broker().await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn kill_name_server(&mut self) -> Result<()> {
        match &mut self.inner {
            Inner::Embedded(server) => server.stop_name_server().await,
            Inner::Shared(_) => bail!("a shared name server is not killed"),
            Inner::Alone(server) => owned_mut(server).kill_name_server().await?,
        }
        Ok(())
    }

    pub(crate) async fn restart_name_server(&mut self) -> Result<()> {
        match &mut self.inner {
            Inner::Embedded(server) => Ok(server.start_name_server().await?),
            Inner::Shared(_) => bail!("a shared name server is not restarted"),
            Inner::Alone(server) => owned_mut(server).restart_name_server().await,
        }
    }

    /// What leads a client here.
    pub(crate) fn cluster(&self) -> ClusterConfig {
        cluster(&self.name_server())
    }

    /// A process's manager of consumers and producers: its own client, with its own connections.
    pub(crate) fn manager(&self) -> MqClientManager {
        MqClientManager::new(self.cluster())
    }

    /// A running producer, and the manager that keeps it.
    pub(crate) async fn producer(&self) -> Result<(MqClientManager, Producer)> {
        let manager = self.manager();
        let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
        manager.start().await?;
        Ok((manager, producer))
    }

    /// The sum of what a group has stored for all queues of a topic.
    pub(crate) async fn committed(&self, group: &str, topic: &str, queues: u32) -> Result<i64> {
        let mut sum = 0;
        for queue in 0..queues {
            sum += self.admin().committed(group, topic, queue).await?.unwrap_or_default();
        }
        Ok(sum)
    }

    /// Where messages of a topic wait that a group popped and did not acknowledge.
    pub(crate) fn pop_retry_topic(&self, group: &str, topic: &str) -> String {
        let joint = if self.is_otherwise { '+' } else { '_' };
        format!("%RETRY%{group}{joint}{topic}")
    }

    /// How many dead letters a group has.
    pub(crate) async fn dead_letters(&self, group: &str) -> Result<i64> {
        self.admin().max_offset(&format!("%DLQ%{group}"), 0).await
    }
}

/// What leads a client to this name server. Offsets are stored soon, so that tests need not wait for them.
pub(crate) fn cluster(name_server: &str) -> ClusterConfig {
    let mut cluster = ClusterConfig::default();
    cluster.name_servers = NameServers::Addresses(vec![name_server.to_owned()]);
    cluster.client.offset_interval = Duration::from_millis(100);
    cluster
}

/// A whole application's.
pub(crate) fn config(server: &Server) -> Config {
    let mut config = Config::default();
    config.cluster = server.cluster();
    config.defaults = consumer_config();
    config.producers.values_mut().for_each(|producer| producer.send_timeout = producer_config().send_timeout);
    config
}

pub(crate) fn consumer_config() -> ConsumerConfig {
    let mut config = ConsumerConfig::default();
    config.consume_from = ConsumeFrom::First;
    config
}

/// A busy machine must not look like a broken broker.
pub(crate) fn producer_config() -> ProducerConfig {
    let mut config = ProducerConfig::default();
    config.send_timeout = Duration::from_secs(15);
    config
}

/// A name that no other test has, nor this one in another run.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn setup(version: Version) -> Setup {
    // Taking messages back is switched off by default, and unknown to 4.9.
    let setup =
        Setup::new(version).broker("messageDelayLevel", APACHE_DELAYS).broker("recallMessageEnable", "true");
    APACHE_CHECKS.iter().fold(setup, |setup, (key, value)| setup.broker(key, value))
}

/// See [`Use::Otherwise`].
fn otherwise(version: Version) -> Setup {
    setup(version).broker("enableRetryTopicV2", "true").broker("useServerSideResetOffset", "false")
}

/// The one server of a release that cases have to themselves, one after the other, whole.
async fn alone(version: Version) -> Result<MutexGuard<'static, Option<Apache>>> {
    static SERVERS: LazyLock<HashMap<Version, Mutex<Option<Apache>>>> =
        LazyLock::new(|| Version::ALL.map(|version| (version, Mutex::default())).into());
    let mut place = SERVERS.get(&version).context("every release has its place")?.lock().await;
    match place.as_mut() {
        None => {
            let setup = setup(version).broker("mappedFileSizeCommitLog", APACHE_COMMIT_LOG_FILE_BYTES);
            *place = Some(setup.start().await?);
        }
        // The case before may have failed in the middle.
        Some(server) => {
            if TcpStream::connect(server.name_server()).is_err() {
                server.restart_name_server().await?;
            }
            if !server.broker().is_running() {
                server.restart_broker().await?;
            }
        }
    }
    Ok(place)
}

fn owned(server: &Option<Apache>) -> &Apache {
    server.as_ref().expect("it was started before it was handed out")
}

fn owned_mut(server: &mut Option<Apache>) -> &mut Apache {
    server.as_mut().expect("it was started before it was handed out")
}
