use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Setup;
use super::jars::Jars;
use super::java::Program;
use super::ports::Ports;
use super::process::Process;
use super::remoting;
use super::run_dir::RunDir;
use super::supervisor::Signal;
use super::wait;

/// A broker, running or not, with the ports and the store that it always comes back to.
///
/// Dropping it ends it and deletes its store, but keeps its logs.
#[derive(Debug)]
pub struct Broker {
    name: String,
    name_server: SocketAddr,
    setup: Setup,
    jars: Jars,
    process: Process,
    /// After the process, so that the ports are free before they are given back.
    ports: Ports,
}

impl Broker {
    /// Starts it without waiting for it.
    pub(super) fn spawn(
        name: &str,
        setup: &Setup,
        jars: &Jars,
        ports: Ports,
        name_server: SocketAddr,
    ) -> Result<Self> {
        let label = format!("{name} {} at {}", setup.version(), ports.broker());
        let process = Process::new(label, RunDir::create(name)?);
        let mut broker = Self {
            name: name.to_owned(),
            name_server,
            setup: setup.clone(),
            jars: jars.clone(),
            process,
            ports,
        };
        broker.launch()?;
        Ok(broker)
    }

    /// The name under which it registers, `broker-a` for the first.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.ports.broker()
    }

    /// Where its messages are, in files that are named after the position of their first byte.
    pub fn commit_log(&self) -> PathBuf {
        self.process.home().store().join("commitlog")
    }

    /// Where it keeps the offsets of all groups, and what it falls back to.
    pub fn consumer_offsets(&self) -> [PathBuf; 2] {
        let config = self.process.home().store().join("config");
        ["consumerOffset.json", "consumerOffset.json.bak"].map(|file| config.join(file))
    }

    /// Ends it with SIGKILL, as a power cut would; nothing to do if it does not run.
    ///
    /// # Errors
    ///
    /// The process could not be ended.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.end(Signal::Kill).await
    }

    /// Ends it with SIGTERM, so that it takes its leave: it unregisters and saves what it has. 4.9.7 needs
    /// some three seconds for that, 5.5.0 eighteen.
    ///
    /// A 5.x that is to tell its clients to go away (code 1500) needs the settings
    /// `enableShutdownGracefully=true` and `shutdownWaitTimeSeconds`, which is 30 otherwise.
    ///
    /// # Errors
    ///
    /// It did not end in time.
    pub async fn shut_down(&mut self) -> Result<()> {
        self.process.end(Signal::Term).await
    }

    /// Kills it if it runs, starts it with the same ports and store and waits until it is registered.
    ///
    /// # Errors
    ///
    /// It did not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.launch()?;
        self.await_registered().await
    }

    /// Returns when it serves and its name server has routes to it.
    ///
    /// # Errors
    ///
    /// It ended, or the time was up.
    pub async fn await_registered(&mut self) -> Result<()> {
        let Self { name_server, process, ports, .. } = self;
        let (addr, name_server) = (ports.broker(), *name_server);
        let registered = wait::until(Duration::from_secs(90), "the broker's registration", async || {
            process.ensure_alive()?;
            // First the broker: after a kill the name server may go on naming it for a moment.
            if !remoting::is_listening(addr).await {
                return Ok(false);
            }
            if remoting::has_route(name_server, DEFAULT_TOPIC, &addr.to_string()).await {
                return Ok(true);
            }
            // 5.5.0 does not register at its start if that is over before it has looked which name
            // servers there are, and says nothing; the next time is ten seconds later.
            remoting::register_now(addr).await;
            Ok(false)
        })
        .await;
        registered.with_context(|| {
            format!(
                "{} did not register at the name server {}, {}",
                self.name,
                self.name_server,
                self.process.last_words()
            )
        })
    }

    /// Creates a topic with so many queues to read from and to write to, in milliseconds (`mqadmin
    /// updateTopic` takes seconds), and returns when the name server has its route.
    ///
    /// # Errors
    ///
    /// The broker refused, or the route did not come.
    pub async fn create_topic(&self, topic: &str, queues: u32) -> Result<()> {
        remoting::create_topic(self.addr(), topic, queues).await?;
        wait::until(Duration::from_secs(10), &format!("the route of {topic}"), async || {
            Ok(remoting::has_route(self.name_server, topic, &self.addr().to_string()).await)
        })
        .await
    }

    /// Whether it was started and neither killed nor shut down since.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Ends it and deletes all that it left on the disk, logs too.
    ///
    /// # Errors
    ///
    /// The process could not be ended.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await
    }

    pub(super) fn announce_logs(&self) {
        self.process.announce_logs();
    }

    fn launch(&mut self) -> Result<()> {
        let home = self.process.home();
        // Written anew each time: a broker overwrites it when told to change a setting.
        let conf = home.write_conf("broker.conf", &self.conf())?;
        for (name, text) in self.setup.files() {
            home.write_conf(name, text)?;
        }
        let mut command = Program::Broker.command(&self.jars, home, self.setup.properties())?;
        command.arg("-c").arg(conf);
        self.process.spawn(&command)
    }

    fn conf(&self) -> String {
        let store = self.process.home().store();
        let addr = self.addr();
        let mut settings: BTreeMap<&str, String> = [
            ("brokerClusterName", "DefaultCluster".to_owned()),
            ("brokerName", self.name.clone()),
            ("brokerId", "0".to_owned()),
            ("brokerRole", "ASYNC_MASTER".to_owned()),
            ("flushDiskType", "ASYNC_FLUSH".to_owned()),
            ("namesrvAddr", self.name_server.to_string()),
            // What clients are told, and, since 5.0, what it binds to.
            ("brokerIP1", addr.ip().to_string()),
            // What slaves are told.
            ("brokerIP2", addr.ip().to_string()),
            ("bindAddress", addr.ip().to_string()),
            ("listenPort", addr.port().to_string()),
            ("haListenPort", (addr.port() + 1).to_string()),
            ("storePathRootDir", store.display().to_string()),
            ("storePathCommitLog", store.join("commitlog").display().to_string()),
        ]
        .into();
        settings.extend(DEFAULTS.map(|(key, value)| (key, value.to_owned())));
        settings
            .extend(self.setup.broker_settings().iter().map(|(key, value)| (key.as_str(), value.clone())));
        settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
    }
}

/// Every broker that creates topics by itself has this one, and registers it together with itself.
const DEFAULT_TOPIC: &str = "TBW102";

/// What every test's broker is set to, unless the test says otherwise.
const DEFAULTS: [(&str, &str); 13] = [
    ("autoCreateTopicEnable", "true"),
    ("autoCreateSubscriptionGroup", "true"),
    ("enablePropertyFilter", "true"),
    // A disk that is nearly full is no reason for a test to fail.
    ("diskMaxUsedSpaceRatio", "99"),
    // Files are sparse, but their pages are touched ahead; these hold what a test sends.
    ("mappedFileSizeCommitLog", "67108864"),
    ("mappedFileSizeConsumeQueue", "600000"),
    ("mappedFileSizeTimerLog", "8388608"),
    ("maxHashSlotNum", "50000"),
    ("maxIndexNum", "200000"),
    // A busy machine must not look like a busy broker: 0.2 and 1 second are the defaults.
    ("waitTimeMillsInSendQueue", "3000"),
    ("osPageCacheBusyTimeOutMills", "5000"),
    // The least it takes, instead of 30 seconds: how soon a new name server knows it by itself.
    ("registerNameServerPeriod", "10000"),
    // 5.5.0 spins on a core from its start until this has passed (apache/rocketmq#10515): not ten seconds.
    ("transactionMetricFlushInterval", "200"),
];
