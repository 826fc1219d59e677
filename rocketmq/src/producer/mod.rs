//! The producer: finds a queue, sends, tries another broker if that fails, all within one time budget.
//!
//! Source: `behaviour.md` section 2.

mod argument;
mod builder;
mod error;
mod queue_choice;
mod send;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use builder::ProducerBuilder;
pub use error::SendError;
pub use send::{SendResult, SendStatus};

use self::queue_choice::RoundRobin;
use crate::client::{Home, MqClient, ServiceState, StateCell, namespace};
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
    /// The cluster to connect to; `None` takes the manager's.
    cluster: Option<ClusterConfig>,
    state: StateCell,
    home: OnceLock<Home>,
    running: OnceLock<Running>,
}

struct Running {
    client: Arc<MqClient>,
    /// The group on the wire.
    group: Arc<str>,
    next_queue: RoundRobin,
    /// Sends that have not ended yet.
    in_flight: TaskTracker,
    closed: CancellationToken,
}

impl Producer {
    /// Begins a producer of `group`.
    pub fn builder(group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(group.into())
    }

    fn new(group: String, config: ProducerConfig, cluster: Option<ClusterConfig>) -> Self {
        let inner = Inner {
            group,
            config,
            cluster,
            state: StateCell::default(),
            home: OnceLock::new(),
            running: OnceLock::new(),
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

    /// Makes the producer ready to send. Nothing is connected before the first message.
    ///
    /// # Errors
    ///
    /// Where the producer is not registered, or was started before.
    pub async fn start(&self) -> Result<()> {
        self.inner.state.change(ServiceState::CreateJust, ServiceState::StartFailed, self, "start")?;
        let home = self
            .inner
            .home
            .get()
            .ok_or_else(|| Error::producer(self.group(), "it is not registered at a manager"))?;
        let client = home.clients.acquire(self.cluster().unwrap_or(&home.cluster))?;
        let group = namespace::wrap(client.config().namespace.as_deref(), self.group());
        client.add_producer(&group);
        info!(%group, client = client.id(), "producer started");
        let (in_flight, closed) = (TaskTracker::new(), CancellationToken::new());
        // Only one start gets this far.
        let _ = self.inner.running.set(Running {
            client,
            group,
            next_queue: RoundRobin::default(),
            in_flight,
            closed,
        });
        self.inner.state.set(ServiceState::Running);
        Ok(())
    }

    /// Accepts no more messages, waits for those on their way, for at most `send_timeout`, and says goodbye to the
    /// brokers.
    pub async fn shutdown(&self) {
        let state = self.inner.state.get();
        self.inner.state.set(ServiceState::ShutdownAlready);
        let (Some(running), ServiceState::Running) = (self.inner.running.get(), state) else { return };
        running.closed.cancel();
        running.in_flight.close();
        // A send has its own budget; the second is for its answer.
        let limit = self.inner.config.send_timeout + Duration::from_secs(1);
        if time::timeout(limit, running.in_flight.wait()).await.is_err() {
            warn!(group = %running.group, sends = running.in_flight.len(), "sends did not end in time");
        }
        running.client.remove_producer(&running.group).await;
        if let Some(home) = self.inner.home.get() {
            home.clients.release(&running.client).await;
        }
        info!(group = %running.group, "producer stopped");
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
