//! The share of one member: asked of brokers and computed here. Source: `behaviour.md` section 3.4.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::allocate::allocate;
use crate::client::{MqClient, RouteError, namespace};
use crate::config::Allocate;
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
    /// The members are not known, or this one is not among them, or the strategy does not know its share.
    Unknown,
}

/// The share of this client, a member of `group`, of the queues of `topic`.
pub(super) async fn share(
    client: &MqClient,
    group: &Arc<str>,
    topic: &Arc<str>,
    strategy: Allocate,
) -> Result<Share, Unshared> {
    let route = client.route(topic).await.map_err(Unshared::NoRoute)?;
    let mut members = client.consumer_ids(group, topic).await.map_err(|error| {
        debug!(%group, %topic, %error, "the members of the group are not known, its queues stay as they are");
        Unshared::Unknown
    })?;
    members.sort_unstable();
    let own = client.id();
    if !members.iter().any(|member| member == own) {
        // The broker has not heard of us: it is new, or was restarted.
        client.heartbeat_soon();
        return Err(Unshared::Unknown);
    }
    let queues = allocate(strategy, &route.subscribe, &members, own).ok_or(Unshared::Unknown)?;
    Ok(Share { queues, others: members.len() > 1 })
}

/// Topics of a group whose absence has been reported.
#[derive(Debug, Default)]
pub(super) struct MissingTopics(HashSet<Arc<str>>);

impl MissingTopics {
    /// Says so when a topic is missing, or there again: once.
    pub(super) fn note<T>(&mut self, group: &Arc<str>, topic: &Arc<str>, shared: &Result<T, Unshared>) {
        match shared {
            Err(Unshared::NoRoute(error)) => {
                let is_retry = namespace::is_retry_topic(topic);
                if is_retry || !self.0.insert(Arc::clone(topic)) {
                    debug!(%group, %topic, %error, "no route yet");
                } else {
                    warn!(%group, %topic, %error, "no messages will come from this topic until it is there; it is looked for all the time");
                }
            }
            _ if self.0.remove(topic) => info!(%group, %topic, "the topic is there now"),
            _ => {}
        }
    }
}
