//! A real name server and broker on loopback, for as long as one test, or the test binary, lives.
//!
//! [`Setup`] says which release with which broker settings; [`Apache`] is the pair running. Beneath
//! them: `jars` (Maven), `ports` (free ones), `supervisor` (a Java process that cannot outlive us),
//! `name_server`, `broker` and `mqadmin` (what is started), `remoting` (how readiness is asked for).
mod availability;
mod broker;
mod jars;
mod java;
mod java_program;
mod mqadmin;
mod name_server;
mod ports;
mod process;
pub(crate) mod remoting;
mod run_dir;
mod setup;
mod supervisor;
mod version;
mod wait;

use std::net::SocketAddr;

use anyhow::Result;

use self::jars::Jars;
use self::name_server::NameServer;
use self::ports::Ports;

pub use self::availability::{Availability, ServerKind, can_run, servers};
pub use self::broker::Broker;
pub use self::java_program::JavaProgram;
pub use self::mqadmin::mqadmin;
pub use self::setup::Setup;
pub use self::version::Version;

/// A name server and one broker, both running Apache's own code.
///
/// Dropping it ends both and deletes their stores, but keeps their logs and prints where they are;
/// [`Apache::stop`], the last line of a test that passed, deletes everything. Should the test
/// process die in whatever way, the Java processes die with it.
#[derive(Debug)]
pub struct Apache {
    setup: Setup,
    jars: Jars,
    broker: Broker,
    name_server: NameServer,
}

impl Apache {
    /// Starts a server of this release with the settings that all tests share.
    ///
    /// # Errors
    ///
    /// Java or Maven is missing, the jars cannot be had, or the server does not come up; the error
    /// then holds the end of its output.
    pub async fn start(version: Version) -> Result<Self> {
        Setup::new(version).start().await
    }

    /// The one server of this release that all tests of this binary share; started by the first
    /// that asks, ended with the process.
    ///
    /// # Errors
    ///
    /// As [`Apache::start`]. A failed start is not tried again: every caller gets its error.
    pub async fn shared(version: Version) -> Result<&'static Self> {
        Setup::new(version).shared().await
    }

    /// Starts both processes at once: the broker takes longer than the name server that it needs.
    async fn launch(setup: Setup) -> Result<Self> {
        let jars = Jars::resolve(setup.version()).await?;
        let ports = Ports::reserve()?;
        let name_server = NameServer::spawn(&setup, &jars, ports.name_server())?;
        let broker = Broker::spawn("broker-a", &setup, &jars, ports, name_server.addr())?;
        let mut server = Self { setup, jars, broker, name_server };
        server.name_server.await_serving().await?;
        server.broker.await_registered().await?;
        Ok(server)
    }

    /// Which release runs here.
    pub fn version(&self) -> Version {
        self.setup.version()
    }

    /// Where the name server listens, as a client's configuration wants it: `127.0.0.1:port`.
    pub fn name_server(&self) -> String {
        self.name_server.addr().to_string()
    }

    /// Where the broker listens.
    pub fn broker_addr(&self) -> SocketAddr {
        self.broker.addr()
    }

    /// The broker that every server starts with: its name, and its end and return.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Ends the broker with SIGKILL, as a power cut would.
    ///
    /// # Errors
    ///
    /// The process could not be ended.
    pub async fn kill_broker(&mut self) -> Result<()> {
        self.broker.kill().await
    }

    /// Ends the broker with SIGTERM, as an operator would; see [`Broker::shut_down`].
    ///
    /// # Errors
    ///
    /// It did not end in time.
    pub async fn shut_down_broker(&mut self) -> Result<()> {
        self.broker.shut_down().await
    }

    /// Brings the broker back on the same port with the same store; kills it first if it runs.
    /// Returns when the name server, which has to be running, names it again.
    ///
    /// # Errors
    ///
    /// It did not come up.
    pub async fn restart_broker(&mut self) -> Result<()> {
        self.broker.restart().await
    }

    /// Ends the name server with SIGKILL. Brokers and clients go on with what they know.
    ///
    /// # Errors
    ///
    /// The process could not be ended.
    pub async fn kill_name_server(&mut self) -> Result<()> {
        self.name_server.kill().await
    }

    /// Brings the name server back on the same port, knowing nothing; kills it first if it runs.
    /// Returns when the first broker, if that runs, has registered; others take up to ten seconds,
    /// or [`Broker::await_registered`].
    ///
    /// # Errors
    ///
    /// It did not come up, or the broker did not register.
    pub async fn restart_name_server(&mut self) -> Result<()> {
        self.name_server.restart().await?;
        if self.broker.is_running() { self.broker.await_registered().await } else { Ok(()) }
    }

    /// Starts one more master with these settings and its own store at the same name server. It
    /// ends when the returned value goes.
    ///
    /// # Errors
    ///
    /// It did not come up.
    pub async fn add_broker(&self, name: &str) -> Result<Broker> {
        let mut broker =
            Broker::spawn(name, &self.setup, &self.jars, Ports::reserve()?, self.name_server.addr())?;
        broker.await_registered().await?;
        Ok(broker)
    }

    /// Starts a slave of the first broker, with the same settings. It ends when the returned value goes.
    ///
    /// # Errors
    ///
    /// It did not come up.
    pub async fn add_slave(&self) -> Result<Broker> {
        let setup = self.setup.clone().broker("brokerId", "1").broker("brokerRole", "SLAVE");
        let name = self.broker.name();
        let mut slave = Broker::spawn(name, &setup, &self.jars, Ports::reserve()?, self.name_server.addr())?;
        slave.await_registered().await?;
        Ok(slave)
    }

    /// Creates a topic at the first broker; see [`Broker::create_topic`].
    ///
    /// # Errors
    ///
    /// The broker refused, or the route did not come.
    pub async fn create_topic(&self, topic: &str, queues: u32) -> Result<()> {
        self.broker.create_topic(topic, queues).await
    }

    /// Runs `mqadmin` of this release with this name server and returns what it printed. Takes three
    /// to four seconds, most of which it spends on ending.
    ///
    /// ```text
    /// server.admin(&["consumerProgress", "-g", "testGroup"])
    /// ```
    ///
    /// # Errors
    ///
    /// The command failed, by its exit code or, since `mqadmin` likes to exit with 0, its output.
    pub async fn admin(&self, args: &[&str]) -> Result<String> {
        mqadmin::run(&self.jars, self.name_server.home(), &self.name_server(), args).await
    }

    /// Tells a failed test where to read on; a passed one prints nothing.
    fn announce_logs(&self) {
        self.name_server.announce_logs();
        self.broker.announce_logs();
    }

    /// Ends both processes and deletes all that they left on the disk, logs too.
    ///
    /// # Errors
    ///
    /// A process could not be ended.
    pub async fn stop(self) -> Result<()> {
        self.broker.stop().await?;
        self.name_server.stop().await
    }
}
