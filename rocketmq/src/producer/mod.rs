//! The producer: finds a queue, sends, tries another broker if that fails, all within one time budget.
//!
//! A message is [prepared](prepare), alone or [with others](accumulator), waits for [its turn](in_flight) where much is
//! on its way, gets a [queue](queue_choice), and is [delivered](deliver). All that sends share is in [`running`].
//! A message whose delivery depends on something else goes through a [`transaction`].
//!
//! Source: `behaviour.md` section 2.

mod accumulator;
mod argument;
mod batch;
mod builder;
mod deliver;
mod error;
mod faults;
mod hook;
mod in_flight;
mod prepare;
mod producers;
mod queue_choice;
mod recall;
mod reply;
mod request;
mod result;
mod running;
mod send;
mod stats;
mod transaction;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use tokio::time;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info};

pub use builder::ProducerBuilder;
pub use error::{BrokerFeature, SendError};
pub(crate) use hook::Hooks;
pub use hook::{EndingTransaction, SendHook, Sending};
pub use producers::Producers;
pub(crate) use reply::Replier;
pub use request::RequestReplyError;
pub use result::{SendResult, SendStatus};
pub use stats::TopicStats;
pub use transaction::{
    CheckArguments, IntoTransaction, Transaction, TransactionDef, TransactionSendResult, undecided,
};
pub(crate) use transaction::{CheckHandler, checks};

use self::running::Running;
use crate::client::{Home, ServiceState, StateCell, Stop, namespace};
use crate::config::{ClusterConfig, ProducerConfig};
use crate::error::{Error, Result};

/// Sends messages as a member of one producer group.
///
/// A clone is another handle to the same producer; all of them share its connections. Made by
/// [`Producer::builder`], registered at a [`MqClientManager`](crate::client::MqClientManager), then started.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    group: String,
    config: ProducerConfig,
    hooks: Hooks,
    /// What says what has become of transactions, until the producer is started.
    check: Mutex<Option<CheckHandler>>,
    /// The cluster to connect to; `None` takes the manager's.
    cluster: Option<ClusterConfig>,
    state: StateCell,
    home: OnceLock<Home>,
    running: OnceLock<Arc<Running>>,
    /// Whether it has been stopped; several may ask for it, and some not wait for the end.
    stopped: OnceCell<()>,
}

impl Producer {
    /// Begins a producer of `group`.
    pub fn builder(group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(group.into())
    }

    fn new(
        group: String,
        config: ProducerConfig,
        hooks: Hooks,
        check: Option<CheckHandler>,
        cluster: Option<ClusterConfig>,
    ) -> Self {
        let inner = Inner {
            group,
            config,
            hooks,
            check: Mutex::new(check),
            cluster,
            state: StateCell::default(),
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

    /// What the producer is doing.
    pub fn state(&self) -> ServiceState {
        self.inner.state.get()
    }

    /// Tells the producer where its client comes from.
    pub(crate) fn settle(&self, home: Home) -> Result<()> {
        self.inner.state.expect(ServiceState::CreateJust, self, "be registered")?;
        self.inner.home.set(home).map_err(|_| Error::producer(self.group(), "it is registered already"))
    }

    /// The cluster that it connects to, where it has one of its own.
    pub(crate) fn cluster(&self) -> Option<&ClusterConfig> {
        self.inner.cluster.as_ref()
    }

    /// Gives the producer what says what has become of its transactions; before it is started.
    pub(crate) fn set_check(&self, check: CheckHandler) {
        *self.check() = Some(check);
    }

    fn check(&self) -> MutexGuard<'_, Option<CheckHandler>> {
        self.inner.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the producer ready to send. Nothing is connected before the first message, but by a producer of
    /// transactions, which brokers may ask from now on.
    ///
    /// # Errors
    ///
    /// Where the producer is not registered, or was started before; or is to send in transactions
    /// ([`ProducerConfig::transaction`]) and has no check.
    pub async fn start(&self) -> Result<()> {
        self.inner.state.change(ServiceState::CreateJust, ServiceState::StartFailed, self, "start")?;
        let home = self
            .inner
            .home
            .get()
            .ok_or_else(|| Error::producer(self.group(), "it is not registered at a manager"))?;
        let check = self.check().take();
        if check.is_none() && self.inner.config.transaction {
            return Err(Error::producer(
                self.group(),
                "it is to send in transactions (`transaction: true`), but has no check to tell brokers what has become of \
                 them: give it one, `Producer::builder(…).check(|message| async move { … })`",
            ));
        }
        let is_checked = check.is_some();
        let client = home.clients.acquire(self.cluster().unwrap_or(&home.cluster))?;
        let group = namespace::wrap(client.config().namespace.as_deref(), self.group());
        client.add_producer(&group);
        info!(%group, client = client.id(), "producer started");
        let (config, hooks) = (self.inner.config.clone(), self.inner.hooks.clone());
        let running = Running::start(client, group, config, hooks, check);
        if is_checked {
            running.answer_checks();
        }
        // Only one start gets this far.
        let _ = self.inner.running.set(running);
        self.inner.state.set(ServiceState::Running);
        Ok(())
    }

    /// Accepts no more messages, waits for those on their way, for at most `send_timeout`, and says goodbye to the
    /// brokers. The first call does the work; others wait until that is done.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped leaves the rest undone; the next one does it.
    pub async fn shutdown(&self) {
        self.stop(Stop::begin(), None).await;
    }

    /// The same as part of a stop; lets `sending` go once nothing is on its way any more.
    pub(crate) async fn stop(&self, stop: Stop, sending: Option<TaskTrackerToken>) {
        self.inner.state.set(ServiceState::ShutdownAlready);
        self.check().take();
        let Some(running) = self.inner.running.get() else { return };
        let work = || async move {
            running.stop(stop).await;
            drop(sending);
            let goodbye = running.client.remove_producer(&running.group);
            if time::timeout_at(stop.deadline(running.client.config()), goodbye).await.is_err() {
                debug!(group = %running.group, "not all brokers heard the goodbye in time, they will notice the end of the connection");
            }
            if let Some(home) = self.inner.home.get() {
                home.clients.release(&running.client).await;
            }
            info!(group = %running.group, "producer stopped");
        };
        self.inner.stopped.get_or_init(work).await;
    }

    /// What has been sent since the start, by topic; nothing before it.
    pub fn stats(&self) -> BTreeMap<String, TopicStats> {
        self.inner.running.get().map(|running| running.topics.stats()).unwrap_or_default()
    }

    fn running(&self) -> Result<&Arc<Running>, SendError> {
        let running = self.inner.running.get().filter(|running| !running.closed.is_cancelled());
        running.ok_or_else(|| {
            let state = match self.state() {
                ServiceState::CreateJust | ServiceState::StartFailed => "has not been started",
                ServiceState::ShutdownAlready => "is shut down",
                ServiceState::Running => "is starting",
            };
            SendError::NotRunning { group: self.group().to_owned(), state }
        })
    }
}

impl fmt::Display for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the producer of group {}", self.group())
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("group", &self.group())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
