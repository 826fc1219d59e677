//! How a producer is made by hand.

use super::{CheckHandler, Hooks, IntoTransaction, Producer, SendHook};
use crate::config::{ClusterConfig, NameServers, ProducerConfig, check_group};
use crate::error::{Error, Result};
use crate::message::MessageExt;

/// A producer that is being put together.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ProducerBuilder {
    group: String,
    config: ProducerConfig,
    hooks: Hooks,
    check: Option<CheckHandler>,
    cluster: Option<ClusterConfig>,
}

impl ProducerBuilder {
    pub(super) fn new(group: String) -> Self {
        Self { group, config: ProducerConfig::default(), hooks: Hooks::default(), check: None, cluster: None }
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

    /// Makes it a producer of transactions: `check` is called with a message whose transaction has not ended, and says
    /// what shall become of it.
    ///
    /// Brokers ask any producer of the group that runs, so a message may be of another process, or of this one before it
    /// was started again: see [`Producer::send_in_transaction`]. How many are called at once is
    /// [`ProducerConfig::check`]. An error, a panic and a check that takes too long are
    /// [`Unknown`](crate::Transaction::Unknown).
    pub fn check<F, Fut>(mut self, check: F) -> Self
    where
        F: Fn(MessageExt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoTransaction> + Send + 'static,
    {
        let place = format!("the check of the producer of group {}", self.group);
        self.check = Some(CheckHandler::from_fn(place, check));
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
    /// Where the group's name or an address is none, an option is out of its range, or `compression` needs a feature that is off.
    pub fn create(self) -> Result<Producer> {
        let fail = |reason: &dyn std::fmt::Display| Error::producer(&self.group, reason);
        check_group(&self.group).map_err(|error| fail(&error))?;
        self.config.check()?;
        if let Some(lacks) = self.config.compression.lacks() {
            return Err(fail(&format!("compression: {lacks}")));
        }
        if let Some(cluster) = &self.cluster {
            cluster.name_servers.check().map_err(|error| fail(&error))?;
        }
        Ok(Producer::new(self.group, self.config, self.hooks, self.check, self.cluster))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Compression;

    #[test]
    fn zstd_by_hand_needs_its_feature_too() {
        let mut config = ProducerConfig::default();
        config.compression = Compression::Zstd;
        let error = Producer::builder("g").config(config).create().err().map(|error| error.to_string());
        let needed = "the producer of group g cannot run: compression: `zstd` needs the feature `zstd`: \
                      `cargo add rocketmq --features zstd`";
        assert_eq!(error.as_deref(), (!cfg!(feature = "zstd")).then_some(needed));
    }
}
