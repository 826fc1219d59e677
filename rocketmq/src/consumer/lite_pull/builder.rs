//! How a lite pull consumer is made.

use std::fmt;
use std::sync::Arc;

use super::LitePullConsumer;
use crate::config::{ClusterConfig, LitePullConfig, NameServers, check_group};
use crate::consumer::allocate::AllocateStrategy;
use crate::error::{Error, Result};

/// A lite pull consumer that is being put together.
///
/// Mistakes are remembered and reported by [`build`](Self::build) or [`create`](Self::create).
#[must_use = "a builder does nothing until it is built"]
pub struct LitePullConsumerBuilder {
    group: String,
    config: LitePullConfig,
    cluster: Option<ClusterConfig>,
    strategy: Option<Arc<dyn AllocateStrategy>>,
}

impl fmt::Debug for LitePullConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LitePullConsumerBuilder").field("group", &self.group).finish_non_exhaustive()
    }
}

impl LitePullConsumerBuilder {
    pub(super) fn new(group: String) -> Self {
        Self { group, config: LitePullConfig::default(), cluster: None, strategy: None }
    }

    /// Sets how the consumer pulls, how much it holds, and when it stores how far it has come.
    pub fn config(mut self, config: LitePullConfig) -> Self {
        self.config = config;
        self
    }

    /// Shares the queues of every topic by `strategy`, in place of what [`LitePullConfig::allocate`] says. All members of the
    /// group need the same one.
    pub fn allocate_strategy(mut self, strategy: impl AllocateStrategy) -> Self {
        self.strategy = Some(Arc::new(strategy));
        self
    }

    /// Connects to these name servers (`host:port`) in place of the manager's.
    pub fn name_servers<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        let addresses = addresses.into_iter().map(Into::into).collect();
        self.cluster.get_or_insert_default().name_servers = NameServers::Addresses(addresses);
        self
    }

    /// Connects to this cluster in place of the manager's.
    pub fn cluster(mut self, cluster: ClusterConfig) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Makes the consumer, to be registered with
    /// [`MqClientManager::register_lite_pull_consumer`](crate::client::MqClientManager::register_lite_pull_consumer).
    ///
    /// # Errors
    ///
    /// Where a name is none, or an option is out of its range.
    pub fn create(self) -> Result<LitePullConsumer> {
        check_group(&self.group).map_err(|error| Error::consumer(&self.group, error))?;
        self.config.check()?;
        if let Some(cluster) = &self.cluster {
            cluster.name_servers.check().map_err(|error| Error::consumer(&self.group, error))?;
        }
        Ok(LitePullConsumer::new(self.group, self.config, self.cluster, self.strategy))
    }
}
