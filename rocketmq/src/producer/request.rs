//! Asking: a message whose sender waits for what its consumer answers.
//!
//! Source: `behaviour.md` section 2.9.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::deliver::Target;
use super::running::Running;
use super::send::Call;
use super::stats::Topic;
use super::{Producer, SendError};
use crate::client::{ReplyStats, Waiting};
use crate::message::{Message, MessageExt, MessageQueue, properties};
use crate::remoting::RequestError;

/// Stands for all the time there is, which an `Instant` could not count.
const VERY_LONG: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Why there is no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestReplyError {
    /// The request was not sent, or is not known to have been.
    #[error(transparent)]
    NotSent(SendError),
    /// The time of the request was over before a broker had said that it has it. It may have it nevertheless.
    #[error(
        "the request for {topic} was not confirmed by a broker within its own {limit:?} (attempts: {attempts})"
    )]
    NotConfirmed {
        /// The topic.
        topic: String,
        /// How many attempts to send it were begun.
        attempts: u32,
        /// The time that the request had, which was shorter than `send_timeout`.
        limit: Duration,
        /// What came of the last attempt, where it came to something.
        source: Option<RequestError>,
    },
    /// As many requests wait for their reply as the producer may have; nothing left the process.
    #[error(
        "the request for {topic} was not sent: for {waited:?}, {limit} others (`max_requests`) were waiting for their replies"
    )]
    TooMany {
        /// The topic.
        topic: String,
        /// The producer's `max_requests`.
        limit: u32,
        /// How long there was no room for it.
        waited: Duration,
    },
    /// The request was sent, and no reply came in time: Java's client error 10006. It may come later, and is dropped
    /// then ([`ReplyStats::late`]).
    #[error(
        "the request {message_id} for {topic} was sent, but no reply came within {limit:?}: is a consumer of the topic \
         running that replies?"
    )]
    TimedOut {
        /// The topic.
        topic: String,
        /// The id of the request.
        message_id: String,
        /// The time that it had.
        limit: Duration,
    },
    /// The request was sent, and the producer shut down before a reply came.
    #[error(
        "the producer of group {group} was shut down before the reply to the request {message_id} for {topic} came"
    )]
    ShutDown {
        /// The group of the producer.
        group: String,
        /// The topic.
        topic: String,
        /// The id of the request.
        message_id: String,
    },
}

impl RequestReplyError {
    /// Whether a broker has the request, so that its consumer may have handled it, or will.
    pub fn was_sent(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::ShutDown { .. })
    }

    /// Whether the time was over, for the sending or for the reply.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::TimedOut { .. }
                | Self::NotConfirmed { .. }
                | Self::TooMany { .. }
                | Self::NotSent(SendError::TimedOut { .. } | SendError::FlowControl { .. })
        )
    }
}

impl<E: Into<SendError>> From<E> for RequestReplyError {
    fn from(error: E) -> Self {
        Self::NotSent(error.into())
    }
}

impl Producer {
    /// Sends a message and waits for the reply of the consumer that handles it: a listener that returns
    /// [`Reply`](crate::Reply), or a Java program that sends a reply message.
    ///
    /// `timeout` is for both, the sending and the reply. Where `max_requests` others wait for their replies, this one
    /// waits for its turn, within `send_timeout`.
    ///
    /// ```no_run
    /// # async fn example(producer: rocketmq::Producer) -> rocketmq::Result<()> {
    /// use std::time::Duration;
    ///
    /// let reply = producer.request(rocketmq::Message::new("quotes").body("ACME"), Duration::from_secs(3)).await?;
    /// println!("{}", reply.body_utf8()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Where the request was not sent, as with [`send`](Self::send), or was sent and no reply came in time:
    /// [`RequestReplyError::was_sent`] tells the two apart.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up waiting, not the request: its consumer may handle it all the same. Nothing is left
    /// behind; a reply that comes later is dropped.
    pub async fn request(
        &self,
        message: Message,
        timeout: Duration,
    ) -> Result<MessageExt, RequestReplyError> {
        self.running()?.request(message, None, timeout).await
    }

    /// The same through this queue of the message's topic, with one attempt to send it, as with
    /// [`send_to`](Self::send_to).
    ///
    /// # Errors
    ///
    /// Those of [`request`](Self::request), and a queue of another topic.
    ///
    /// # Cancel safety
    ///
    /// That of [`request`](Self::request).
    pub async fn request_to(
        &self,
        queue: &MessageQueue,
        message: Message,
        timeout: Duration,
    ) -> Result<MessageExt, RequestReplyError> {
        self.running()?.request(message, Some(queue), timeout).await
    }

    /// What became of the replies, to this producer and those that share its client: the others of the manager that
    /// are connected to the same cluster.
    pub fn reply_stats(&self) -> ReplyStats {
        self.inner.running.get().map(|running| running.client.replies().stats()).unwrap_or_default()
    }
}

impl Running {
    async fn request(
        self: &Arc<Self>,
        mut message: Message,
        queue: Option<&MessageQueue>,
        timeout: Duration,
    ) -> Result<MessageExt, RequestReplyError> {
        let began = Instant::now();
        let deadline = began + timeout.min(VERY_LONG);
        let send_limit = self.config.send_timeout.min(timeout);
        let mut waiting = self.client.replies().wait();
        self.address_reply(&mut message, &waiting, timeout);
        let call = Call::begin_within(self, message, send_limit)?;
        let target = queue.map(|queue| call.only(queue)).transpose()?;
        let topic = Arc::clone(&call.topic);
        let _place = self.in_flight.admit_request(began + send_limit).await.ok_or_else(|| {
            let (topic, limit) = (topic.name.to_string(), self.config.max_requests);
            RequestReplyError::TooMany { topic, limit, waited: began.elapsed() }
        })?;
        let message_id = self.ask(call, target, &mut waiting).await;
        let message_id = match message_id {
            Ok(Asked::Answered(reply)) => return Ok(reply),
            Ok(Asked::Sent { message_id }) => message_id,
            Err(SendError::TimedOut { topic, attempts, source, .. })
                if timeout < self.config.send_timeout =>
            {
                return Err(RequestReplyError::NotConfirmed { topic, attempts, limit: timeout, source });
            }
            Err(error) => return Err(error.into()),
        };
        let topic = topic.name.to_string();
        tokio::select! {
            biased;
            reply = waiting.reply() => Ok(reply),
            () = time::sleep_until(deadline) => Err(RequestReplyError::TimedOut { topic, message_id, limit: timeout }),
            () = self.tasks.stopping().cancelled() => {
                Err(RequestReplyError::ShutDown { group: self.group.to_string(), topic, message_id })
            }
        }
    }

    /// Says where the reply is to go.
    fn address_reply(&self, message: &mut Message, waiting: &Waiting, timeout: Duration) {
        let ttl_ms = timeout.as_millis().clamp(1, i64::MAX as u128);
        message.put_property(properties::CORRELATION_ID, &waiting.correlation_id());
        message.put_property(properties::REPLY_TO_CLIENT, self.client.id());
        message.put_property(properties::TTL, &ttl_ms.to_string());
    }

    /// Sends the request. The reply may be faster than the broker's own answer.
    async fn ask(
        self: &Arc<Self>,
        call: Call<'_>,
        target: Option<Target>,
        waiting: &mut Waiting,
    ) -> Result<Asked, SendError> {
        let topic = Arc::clone(&call.topic);
        self.introduce(&topic, call.deadline).await?;
        let (amount, began) = (call.amount(), call.began);
        tokio::select! {
            biased;
            reply = waiting.reply() => {
                topic.count(amount, began.elapsed(), &Ok(()));
                Ok(Asked::Answered(reply))
            }
            sent = call.send(target) => sent.map(|sent| Asked::Sent { message_id: sent.message_id }),
        }
    }

    /// Brokers pass replies only on to clients that they have heard of.
    async fn introduce(&self, topic: &Topic, deadline: Instant) -> Result<(), SendError> {
        let route = self.publish_route(topic, deadline).await?;
        // The time that is left shows in the send.
        let _ = time::timeout_at(deadline, self.client.introduce(&route)).await;
        Ok(())
    }
}

/// A request that has left.
enum Asked {
    Sent { message_id: String },
    Answered(MessageExt),
}
