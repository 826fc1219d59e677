//! The unit of distribution: one queue of a topic on one broker.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One queue of a topic on one broker; what rebalance hands out and offsets are kept for.
///
/// Ordered by topic, broker name and queue id, which is the order that every member of a group must share to agree
/// on who owns what. Source: `MessageQueue.compareTo`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MessageQueue {
    /// The topic as it stands on the wire: with its namespace and, for retries, its `%RETRY%` prefix. What a producer
    /// gives and takes is without the namespace.
    pub topic: Arc<str>,
    /// The name of the broker, for example `broker-a`; addresses change, names do not.
    pub broker_name: Arc<str>,
    /// From 0 to the number of read (or write) queues of the topic on that broker, minus one.
    pub queue_id: i32,
}

impl MessageQueue {
    /// Names queue `queue_id` of `topic` on `broker_name`.
    pub fn new(topic: impl Into<Arc<str>>, broker_name: impl Into<Arc<str>>, queue_id: i32) -> Self {
        Self { topic: topic.into(), broker_name: broker_name.into(), queue_id }
    }
}

impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{}", self.topic, self.broker_name, self.queue_id)
    }
}
