//! Taking a message back that is delayed by time, before it is delivered. Source: `behaviour.md` section 2.7,
//! `RecallMessageHandle`.

use std::sync::Arc;

use tokio::time::{self, Instant};

use super::error::BrokerFeature;
use super::running::Running;
use super::{Producer, SendError};
use crate::client::BrokerVersion;
use crate::message::{MessageError, MessageQueue, RecallHandle};
use crate::protocol::header::RecallMessage;

impl Producer {
    /// Takes a message back that is delayed by time, and is not delivered yet; `handle` is that of its
    /// [result](crate::SendResult::recall_handle). Returns the id of the message.
    ///
    /// For 5.x brokers on which `recallMessageEnable` is set, which is not the default.
    ///
    /// # Errors
    ///
    /// Where the handle is none, the broker is too old, was not reached, or said no: because recalling is switched off
    /// there, or the message has been delivered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up waiting; the message may be taken back all the same.
    pub async fn recall(&self, handle: &str) -> Result<String, SendError> {
        let running = self.running()?;
        let RecallHandle { topic, broker_name, .. } = decode(handle)?;
        let limit = running.config.send_timeout;
        let recalled = running.recall(&topic, &broker_name, handle, Instant::now() + limit);
        let late = |_| Err(SendError::TimedOut { topic: topic.clone(), attempts: 1, limit, source: None });
        time::timeout(limit, recalled).await.unwrap_or_else(late)
    }
}

impl Running {
    async fn recall(
        &self,
        topic: &str,
        broker_name: &str,
        handle: &str,
        deadline: Instant,
    ) -> Result<String, SendError> {
        let limit = self.config.send_timeout;
        let fail = |error| SendError::of_attempt(topic.to_owned(), 1, limit, error);
        let queue = MessageQueue::new(topic, broker_name, 0);
        // Where the broker itself is gone, any other one may know what became of its messages.
        let address = match self.publish_address(&queue, deadline).await {
            Ok(address) => address,
            Err(error) => self.client.any_broker_of(topic).ok_or_else(|| fail(error))?,
        };
        let left = || deadline.saturating_duration_since(Instant::now());
        let version = self.client.broker_version(&address, left()).await.map_err(fail)?;
        if version < BrokerVersion::V5_0_0 {
            return Err(SendError::unsupported(BrokerFeature::Recall, &address, version));
        }
        let request = RecallMessage {
            producer_group: Some(Arc::clone(&self.group)),
            topic: queue.topic,
            recall_handle: handle.to_owned(),
            broker_name: Some(queue.broker_name),
        };
        let answer = self.client.recall_at(&address, &request, left()).await.map_err(fail)?;
        Ok(answer.msg_id)
    }
}

fn decode(handle: &str) -> Result<RecallHandle, MessageError> {
    let wrong = |rule| MessageError::RecallHandle { handle: handle.to_owned(), rule };
    let decoded = RecallHandle::decode(handle).map_err(wrong)?;
    match decoded.topic.starts_with("%RETRY%") || decoded.topic.starts_with("%DLQ%") {
        true => Err(wrong("messages of retry and dead letter topics cannot be taken back")),
        false => Ok(decoded),
    }
}
