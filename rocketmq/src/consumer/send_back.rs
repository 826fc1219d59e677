//! Gives a message back to its broker, to be delivered again later or to become a dead letter.
//!
//! Source: `behaviour.md` section 3.8 "send back", `protocol.md` section 2.8.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::Shared;
use super::consume::DEAD_LETTER;
use super::queue::OwnedQueue;
use crate::client::{AUTO_CREATE_TOPIC, RouteError, TopicRoute};
use crate::listener::BadPayload;
use crate::message::{MessageExt, MessageQueue, id, properties};
use crate::protocol::header::{SendMessageBack, SendMessageV2};
use crate::remoting::RequestError;

const SEND_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks for the route of a new group's retry topic.
const ROUTE_RETRY: Duration = Duration::from_millis(100);
/// What a group that sets no limit gets.
pub(crate) const MAX_RECONSUME_TIMES: u32 = 16;

impl Shared {
    /// Gives `message` back; whether a broker has it.
    ///
    /// The broker that holds it makes the copy. Where that fails, a copy is sent from here, to any broker that has the
    /// group's retry topic. In a broadcast group nobody would get it, and it is dropped, as by the Java client.
    pub(crate) async fn send_back(&self, queue: &OwnedQueue, message: &MessageExt, level: i32) -> bool {
        if self.offsets.is_local() {
            // What becomes of it was reported with how its handling ended.
            return true;
        }
        let request = SendMessageBack {
            origin_msg_id: Some(message.message_id().into_owned()),
            origin_topic: Some(message.topic().to_owned()),
            ..self.send_back_request(&queue.queue, message.commit_log_offset(), level)
        };
        let (broker, topic) = (&queue.queue.broker_name, &queue.queue.topic);
        let Err(error) = self.client.send_back(broker, topic, &request, SEND_BACK_TIMEOUT).await else {
            return true;
        };
        debug!(group = %self.group, queue = %queue.queue, %error, "the broker did not take the message back, a copy is sent");
        match self.send_copy(message, level, None).await {
            Ok(()) => true,
            Err(copy_error) => {
                warn!(
                    group = %self.group, queue = %queue.queue, offset = message.queue_offset(), message_id = %message.message_id(),
                    %error, %copy_error, "a failed message could not be sent back, its handler gets it again here",
                );
                false
            }
        }
    }

    /// Makes a message that does not decode a dead letter that says why; whether a broker has it.
    ///
    /// A broker's own copy cannot carry a reason, so the copy is made here. Where that fails, the dead letter goes
    /// without it.
    pub(crate) async fn refuse(&self, queue: &OwnedQueue, message: &MessageExt, bad: &BadPayload) -> bool {
        let Err(error) = self.send_copy(message, DEAD_LETTER, Some(bad)).await else { return true };
        debug!(group = %self.group, queue = %queue.queue, %error, "the dead letter goes without its reason");
        self.send_back(queue, message, DEAD_LETTER).await
    }

    /// Has the broker make a record that could not be read here a dead letter.
    pub(super) async fn send_back_raw(
        &self,
        queue: &MessageQueue,
        commit_log_offset: i64,
    ) -> Result<(), RequestError> {
        if self.offsets.is_local() {
            warn!(group = %self.group, %queue, commit_log_offset, "an unreadable message is dropped, as broadcast groups have no dead letter queue");
            return Ok(());
        }
        let request = SendMessageBack {
            // Brokers of 5.x count dead letters by it, and fail over one without.
            origin_topic: Some(queue.topic.to_string()),
            ..self.send_back_request(queue, commit_log_offset, -1)
        };
        self.client.send_back(&queue.broker_name, &queue.topic, &request, SEND_BACK_TIMEOUT).await
    }

    fn send_back_request(&self, queue: &MessageQueue, offset: i64, delay_level: i32) -> SendMessageBack {
        SendMessageBack {
            offset,
            group: Arc::clone(&self.group),
            delay_level,
            origin_msg_id: None,
            origin_topic: None,
            unit_mode: Some(false),
            max_reconsume_times: Some(self.max_reconsume_times()),
            broker_name: Some(Arc::clone(&queue.broker_name)),
        }
    }

    pub(super) fn max_reconsume_times(&self) -> i32 {
        i32::try_from(self.config.max_reconsume.unwrap_or(MAX_RECONSUME_TIMES)).unwrap_or(i32::MAX)
    }

    /// Sends a copy to the retry topic as a message of its own, which says what is `bad` about it. A broker that finds
    /// it beyond the maximum makes it a dead letter.
    ///
    /// # Errors
    ///
    /// Where no broker is known to have it.
    pub(super) async fn send_copy(
        &self,
        message: &MessageExt,
        level: i32,
        bad: Option<&BadPayload>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.offsets.is_local() {
            if bad.is_some() {
                // As for `send_back`.
                return Ok(());
            }
            warn!(group = %self.group, topic = message.topic(), offset = message.queue_offset(), message_id = %message.message_id(), "a message was given up and is dropped, as broadcast groups have no dead letter queue");
            return Ok(());
        }
        let retry_topic = self.subscriptions.retry_topic();
        let route = self.retry_route().await?;
        let queue = match route.publish.len() {
            0 => return Err(format!("the topic {retry_topic} has no queue to be written").into()),
            queues => &route.publish[fastrand::usize(..queues)],
        };
        let dead = level < 0;
        let times = message.reconsume_times() as i32;
        // 4.9 brokers delay even a dead letter that asks for it.
        let delay = (!dead).then_some(if level > 0 { level } else { 3 + times });
        let header = SendMessageV2 {
            producer_group: "CLIENT_INNER_PRODUCER".into(),
            topic: Arc::clone(retry_topic),
            default_topic: AUTO_CREATE_TOPIC.into(),
            default_topic_queue_nums: 1,
            queue_id: queue.queue_id,
            sys_flag: 0,
            born_timestamp: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
                as i64,
            flag: message.flag(),
            properties: Some(self.copy_properties(message, delay, bad)),
            reconsume_times: Some(times + 1),
            unit_mode: Some(false),
            // More than it may is what makes it a dead letter.
            max_reconsume_times: Some(if dead { 0 } else { self.max_reconsume_times() }),
            batch: Some(false),
            broker_name: Some(Arc::clone(&queue.broker_name)),
        };
        self.client.send(&queue.broker_name, &header, message.body().clone(), SEND_BACK_TIMEOUT).await?;
        Ok(())
    }

    /// The route of the group's retry topic, which brokers make when they first hear of the group, and name servers learn
    /// of a moment later.
    async fn retry_route(&self) -> Result<Arc<TopicRoute>, RouteError> {
        let deadline = Instant::now() + SEND_BACK_TIMEOUT;
        loop {
            match self.client.route(self.subscriptions.retry_topic()).await {
                Err(_) if Instant::now() < deadline => time::sleep(ROUTE_RETRY).await,
                route => return route,
            }
        }
    }

    fn copy_properties(&self, message: &MessageExt, delay: Option<i32>, bad: Option<&BadPayload>) -> String {
        const REPLACED: [&str; 7] = [
            BadPayload::PROPERTY,
            properties::ORIGIN_MESSAGE_ID,
            properties::RETRY_TOPIC,
            properties::DELAY,
            properties::TRANSACTION_PREPARED,
            properties::UNIQUE_KEY,
            properties::WAIT,
        ];
        let origin = message.property(properties::ORIGIN_MESSAGE_ID).map(str::to_owned);
        let origin = origin.unwrap_or_else(|| message.message_id().into_owned());
        let topic = crate::client::namespace::wrap(Some(self.subscriptions.namespace()), message.topic());
        let unique = message.property(properties::UNIQUE_KEY).map_or_else(id::unique, str::to_owned);
        let delay = delay.map(|level| level.to_string());
        let reason = bad.map(BadPayload::reason);
        let kept = message.properties().filter(|(name, _)| !REPLACED.contains(name));
        let added = [
            (properties::ORIGIN_MESSAGE_ID, origin.as_str()),
            (properties::RETRY_TOPIC, topic.as_ref()),
            (properties::UNIQUE_KEY, unique.as_str()),
            (properties::WAIT, "true"),
        ];
        let delay = delay.as_deref().map(|level| (properties::DELAY, level));
        let reason = reason.as_deref().map(|reason| (BadPayload::PROPERTY, reason));
        properties::encode(kept.chain(added).chain(delay).chain(reason))
    }
}
