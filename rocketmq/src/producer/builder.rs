//! How a producer is made by hand.

use super::{Hooks, Producer, SendHook};
use crate::config::{ClusterConfig, NameServers, ProducerConfig, check_group};
use crate::error::{Error, Result};

/// A producer that is being put together.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ProducerBuilder {
    group: String,
    config: ProducerConfig,
    hooks: Hooks,
    cluster: Option<ClusterConfig>,
}

impl ProducerBuilder {
    pub(super) fn new(group: String) -> Self {
        Self { group, config: ProducerConfig::default(), hooks: Hooks::default(), cluster: None }
    }

    /// Sets how it sends; what the file has under `producers:`. Its `group` does not count here.
    pub fn config(mut self, config: ProducerConfig) -> Self {
        self.config = config;
        self
    }

    /// Runs `hook` with every send, after those that were added before.
    pub fn hook(mut self, hook: impl SendHook) -> Self {
        self.hooks.add(hook);
        self
    }

    /// The same for hooks that were put together before.
    pub(crate) fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
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

    /// Makes the producer, to be registered with
    /// [`MqClientManager::register_producer`](crate::client::MqClientManager::register_producer).
    ///
    /// # Errors
    ///
    /// Where the group's name or an address is none, or an option is out of its range.
    pub fn create(self) -> Result<Producer> {
        let fail = |reason: &dyn std::fmt::Display| Error::producer(&self.group, reason);
        check_group(&self.group).map_err(|error| fail(&error))?;
        self.config.check()?;
        if let Some(cluster) = &self.cluster {
            cluster.name_servers.check().map_err(|error| fail(&error))?;
        }
        Ok(Producer::new(self.group, self.config, self.hooks, self.cluster))
    }
}
