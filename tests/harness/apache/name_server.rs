use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Setup;
use super::jars::Jars;
use super::java::Program;
use super::process::Process;
use super::remoting;
use super::run_dir::RunDir;
use super::supervisor::Signal;
use super::wait;

/// A name server, running or not, with the port that it always comes back to.
#[derive(Debug)]
pub(super) struct NameServer {
    addr: SocketAddr,
    jars: Jars,
    properties: BTreeMap<String, String>,
    process: Process,
}

impl NameServer {
    /// Starts it without waiting for it.
    pub(super) fn spawn(setup: &Setup, jars: &Jars, addr: SocketAddr) -> Result<Self> {
        let process = Process::new(format!("the name server at {addr}"), RunDir::create("namesrv")?);
        let properties = setup.properties().clone();
        let mut name_server = Self { addr, jars: jars.clone(), properties, process };
        name_server.launch()?;
        Ok(name_server)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its home is `mqadmin`'s too.
    pub(super) fn home(&self) -> &RunDir {
        self.process.home()
    }

    pub(super) async fn await_serving(&mut self) -> Result<()> {
        let addr = self.addr;
        let process = &mut self.process;
        let what = format!("the name server to answer on {addr}");
        let serving = wait::until(Duration::from_secs(60), &what, async || {
            process.ensure_alive()?;
            Ok(remoting::is_name_server(addr).await)
        })
        .await;
        serving.with_context(|| format!("the name server does not serve, {}", self.process.last_words()))
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        self.process.end(Signal::Kill).await
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.launch()?;
        self.await_serving().await
    }

    pub(super) fn announce_logs(&self) {
        self.process.announce_logs();
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.process.stop().await
    }

    fn launch(&mut self) -> Result<()> {
        let home = self.process.home();
        let conf = format!(
            "listenPort={}\nbindAddress=127.0.0.1\nkvConfigPath={}/kvConfig.json\n",
            self.addr.port(),
            home.path().display()
        );
        let conf = home.write_conf("namesrv.conf", &conf)?;
        let mut command = Program::NameServer.command(&self.jars, home, &self.properties)?;
        command.arg("-c").arg(conf);
        self.process.spawn(&command)
    }
}
