//! The share of one member: asked of brokers and computed here. Source: `behaviour.md` section 3.4.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::allocate::{AllocateError, AllocateStrategy};
use crate::client::{MqClient, RouteError, namespace};
use crate::message::MessageQueue;

/// What is this member's of a topic.
pub(super) struct Share {
    pub(super) queues: Vec<MessageQueue>,
    /// Whether the group has other members, one of which may have had a queue just now.
    pub(super) others: bool,
}

/// Why the share of a topic could not be computed; what is owned stays as it is.
pub(super) enum Unshared {
    /// The topic has no route.
    NoRoute(RouteError),
    /// The members are not known, or this one is not among them.
    Unknown,
    /// The strategy does not know it.
    Refused(AllocateError),
}

/// The share of this client, a member of `group`, of the queues of `topic`.
pub(super) async fn share(
    client: &MqClient,
    group: &Arc<str>,
    topic: &Arc<str>,
    strategy: &dyn AllocateStrategy,
) -> Result<Share, Unshared> {
    let route = client.route(topic).await.map_err(Unshared::NoRoute)?;
    let mut members = client.consumer_ids(group, topic).await.map_err(|error| {
        debug!(%group, %topic, %error, "the members of the group are not known, its queues stay as they are");
        Unshared::Unknown
    })?;
    members.sort_unstable();
    // A broker lists a client once for each of its connections, and those that have ended without a word for two minutes more:
    // the part of the queues that falls to such a shadow would be nobody's.
    members.dedup();
    let own = client.id();
    if !members.iter().any(|member| member == own) {
        // The broker has not heard of us: it is new, or was restarted.
        client.heartbeat_soon();
        return Err(Unshared::Unknown);
    }
    let queues = strategy.allocate(group, own, &route.subscribe, &members).map_err(Unshared::Refused)?;
    Ok(Share { queues, others: members.len() > 1 })
}

/// All queues of `topic`: the share of a member of a broadcast group.
pub(super) async fn share_of_all(client: &MqClient, topic: &Arc<str>) -> Result<Share, Unshared> {
    let route = client.route(topic).await.map_err(Unshared::NoRoute)?;
    Ok(Share { queues: route.subscribe.clone(), others: false })
}

/// Topics of a group of which it has been reported that they are absent, or cannot be shared.
#[derive(Debug, Default)]
pub(super) struct MissingTopics {
    absent: HashSet<Arc<str>>,
    /// Those whose share the strategy did not know.
    refused: HashSet<Arc<str>>,
}

impl MissingTopics {
    /// Says so when a topic is missing or cannot be shared, or is there again: once.
    pub(super) fn note<T>(&mut self, group: &Arc<str>, topic: &Arc<str>, shared: &Result<T, Unshared>) {
        match shared {
            Err(Unshared::NoRoute(error)) => {
                let is_retry = namespace::is_retry_topic(topic);
                if is_retry || !self.absent.insert(Arc::clone(topic)) {
                    debug!(%group, %topic, %error, "no route yet");
                } else {
                    warn!(%group, %topic, %error, "no messages will come from this topic until it is there; it is looked for all the time");
                }
            }
            Err(Unshared::Refused(error)) => {
                if self.refused.insert(Arc::clone(topic)) {
                    warn!(%group, %topic, %error, "the allocation strategy does not know the share of this member, which keeps what it has; it is asked all the time");
                } else {
                    debug!(%group, %topic, %error, "the allocation strategy still does not know the share");
                }
            }
            Ok(_) if self.refused.remove(topic) => info!(%group, %topic, "the queues are shared again"),
            _ if self.absent.remove(topic) => info!(%group, %topic, "the topic is there now"),
            _ => {}
        }
    }
}
