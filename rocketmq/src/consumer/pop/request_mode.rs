//! Sees to it that brokers can hand out messages, and know that they shall: `mode: pop`.
//!
//! Once a broker knows, it is not told again while the consumer runs: an operator who changes the mode means it.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::Pop;
use crate::client::{BrokerVersion, namespace};
use crate::config::ConsumeMode;
use crate::consumer::Shared;
use crate::error::{Error, Result};
use crate::protocol::ResponseCode;
use crate::protocol::pop::{MessageRequestMode, RequestMode};
use crate::remoting::{Address, RequestError};

/// Which brokers know how messages of a topic are to come.
#[derive(Debug, Default)]
pub(super) struct ModesSet {
    done: HashSet<(Arc<str>, Arc<str>)>,
    /// Those that have been complained about.
    failed: HashSet<(Arc<str>, Arc<str>)>,
}

/// Why a broker does not know.
enum Unset {
    /// It never will, unless somebody does something.
    Never(String),
    /// It may, later.
    NotYet(RequestError),
}

impl Shared {
    /// Asks all brokers of these topics, as far as they are there.
    ///
    /// # Errors
    ///
    /// Where one of them is too old, or forbids it.
    pub(in crate::consumer) async fn prepare_brokers<'a>(
        &self,
        pop: &Pop,
        topics: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> Result<()> {
        for topic in topics {
            for (broker, unset) in self.set_modes(pop, topic).await {
                match unset {
                    Unset::Never(reason) => return Err(Error::consumer(&self.group, reason)),
                    Unset::NotYet(error) => {
                        debug!(group = %self.group, %topic, %broker, %error, "the broker does not know the mode yet");
                    }
                }
            }
        }
        Ok(())
    }

    /// The same for one topic of a consumer that runs: brokers and topics come and go.
    pub(super) async fn keep_modes(&self, pop: &Pop, topic: &Arc<str>) {
        for (broker, unset) in self.set_modes(pop, topic).await {
            let key = (Arc::clone(topic), Arc::clone(&broker));
            let is_new = pop.modes.lock().is_ok_and(|mut modes| modes.failed.insert(key));
            match unset {
                Unset::Never(reason) if is_new => {
                    warn!(group = %self.group, %topic, %broker, reason, "the messages that this broker has do not come as they should");
                }
                Unset::Never(_) => {}
                Unset::NotYet(error) => {
                    debug!(group = %self.group, %topic, %broker, %error, "the broker does not know the mode yet");
                }
            }
        }
    }

    async fn set_modes(&self, pop: &Pop, topic: &Arc<str>) -> Vec<(Arc<str>, Unset)> {
        let mut unset = Vec::new();
        // Brokers allow no mode for them: what is in them is pulled.
        if namespace::is_retry_topic(topic) {
            return unset;
        }
        for (broker, address) in self.client.masters_of(topic) {
            let key = (Arc::clone(topic), Arc::clone(&broker));
            if pop.modes.lock().is_ok_and(|modes| modes.done.contains(&key)) {
                continue;
            }
            match self.set_mode(topic, &broker, &address).await {
                Ok(()) => {
                    if let Ok(mut modes) = pop.modes.lock() {
                        modes.failed.remove(&key);
                        modes.done.insert(key);
                    }
                }
                Err(why) => unset.push((broker, why)),
            }
        }
        unset
    }

    async fn set_mode(&self, topic: &Arc<str>, broker: &str, address: &Address) -> Result<(), Unset> {
        let limit = self.client.config().request_timeout;
        let version = self.client.broker_version(address, limit).await.map_err(Unset::NotYet)?;
        let wants_pop = self.config.mode == ConsumeMode::Pop;
        if version < BrokerVersion::V5_0_0 {
            let (key, instead) = match wants_pop {
                true => ("mode: pop", "mode: pull"),
                false => ("rebalance: broker", "rebalance: client"),
            };
            return Err(Unset::Never(format!(
                "broker {broker} ({address}), which has topic {topic}, is {version}, and `{key}` needs 5.0 or newer: \
                 upgrade the broker, or set `{instead}`"
            )));
        }
        if !wants_pop || self.is_popped(topic, address).await {
            return Ok(());
        }
        let mode = RequestMode {
            topic: topic.to_string(),
            consumer_group: self.group.to_string(),
            mode: MessageRequestMode::Pop,
            pop_share_queue_num: self.config.pop.share_queues.unwrap_or_default() as i32,
        };
        match self.client.set_request_mode(address, &mode).await {
            Ok(()) => {
                info!(group = %self.group, %topic, broker, "the broker was told to hand out the messages one by one");
                Ok(())
            }
            // It knows a topic or a group a moment later than others do, or once somebody has created it.
            Err(error) if is_unknown(&error) => {
                self.client.heartbeat_soon();
                Err(Unset::NotYet(error))
            }
            Err(error) if error.response_code().is_some() => Err(Unset::Never(format!(
                "broker {broker} ({address}) does not let this client set the mode of topic {topic}: {error}; set it by \
                 hand (`mqadmin setConsumeMode -b {address} -t {topic} -g {group} -m POP`), allow it, or set \
                 `mode: pull`",
                group = self.group,
            ))),
            Err(error) => Err(Unset::NotYet(error)),
        }
    }

    /// Whether the mode is POP already, and nothing is said of how queues are to be shared.
    async fn is_popped(&self, topic: &str, address: &Address) -> bool {
        if self.config.pop.share_queues.is_some() {
            return false;
        }
        match self.client.query_assignment(address, &self.group, topic, self.strategy_name()).await {
            Ok(Some(assigned)) => assigned.iter().any(|one| one.mode == MessageRequestMode::Pop),
            Ok(None) | Err(_) => false,
        }
    }
}

fn is_unknown(error: &RequestError) -> bool {
    matches!(
        error.response_code(),
        Some(ResponseCode::TOPIC_NOT_EXIST | ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST)
    )
}
