//! One send, from the message to the broker's word that it is stored.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Producer, Running, SendError};
use crate::client::{AUTO_CREATE_TOPIC, RouteError, SendAnswer, ServiceState, namespace};
use crate::config::Compression;
use crate::message::{CompressionType, Message, MessageQueue, compression, id, properties, sys_flag};
use crate::protocol::ResponseCode;
use crate::protocol::header::SendMessageV2;
use crate::remoting::RequestError;

/// Queues of a topic that the first send creates.
const DEFAULT_TOPIC_QUEUES: i32 = 4;
/// Bodies from this size on are compressed away from the threads that serve connections.
const COMPRESS_APART_BYTES: usize = 64 << 10;

/// What a broker said of a message that it stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendResult {
    /// Whether it is stored as safely as the broker is configured to.
    pub status: SendStatus,
    /// The id of the message, which every delivery of it will show.
    pub message_id: String,
    /// The id that says where the broker keeps it.
    pub offset_message_id: String,
    /// The queue that it went to.
    pub queue: MessageQueue,
    /// Where it stands in that queue.
    pub queue_offset: i64,
    /// The id of its transaction, on 5.x brokers.
    pub transaction_id: Option<String>,
}

/// How safely a message is stored. In all cases it is stored, and will be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendStatus {
    /// As the broker is configured to.
    SendOk,
    /// On the master, which has not written it to its disk in time.
    FlushDiskTimeout,
    /// On the master, whose slave has not confirmed it in time.
    FlushSlaveTimeout,
    /// On the master, which has no slave at the moment.
    SlaveNotAvailable,
}

impl SendStatus {
    fn of(code: ResponseCode) -> Self {
        match code {
            ResponseCode::FLUSH_DISK_TIMEOUT => Self::FlushDiskTimeout,
            ResponseCode::FLUSH_SLAVE_TIMEOUT => Self::FlushSlaveTimeout,
            ResponseCode::SLAVE_NOT_AVAILABLE => Self::SlaveNotAvailable,
            _ => Self::SendOk,
        }
    }
}

/// A message as it will travel.
struct Prepared {
    /// The topic on the wire.
    topic: Arc<str>,
    message_id: String,
    properties: String,
    body: Bytes,
    flag: i32,
    sys_flag: i32,
    born_timestamp_ms: i64,
}

impl Producer {
    /// Sends a message and waits until a broker has stored it.
    ///
    /// A broker that fails is left for another one, up to `retries` times, all within `send_timeout`.
    ///
    /// # Errors
    ///
    /// Where the message cannot be sent as it is, the queues of its topic are not known, or no broker stored it in
    /// time. Nothing is reported as sent that no broker confirmed; the reverse may happen (see [`SendError::Failed`]).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up waiting, not the message: what has left the process may be stored.
    pub async fn send(&self, message: Message) -> Result<SendResult, SendError> {
        let running = self.running()?;
        let _on_its_way = running.in_flight.token();
        let config = &self.inner.config;
        message.check(config.max_message.as_usize())?;
        let deadline = Instant::now() + config.send_timeout;
        let message = self.prepare(running, message).await;
        let route = running.client.publish_route(&message.topic, DEFAULT_TOPIC_QUEUES).await;
        let route = route.and_then(|route| match route.publish.is_empty() {
            false => Ok(route),
            true => Err(RouteError::NoQueue { topic: message.topic.to_string(), access: "written" }),
        });
        let route = route.map_err(|source| SendError::Route { topic: message.topic.to_string(), source })?;
        let mut attempts = 0;
        let mut last_broker: Option<Arc<str>> = None;
        let mut last_error: Option<RequestError> = None;
        // Stored, though not as safely as could be: what is returned if no other broker does better.
        let mut degraded: Option<SendResult> = None;
        // The route has queues: it was looked at above.
        while let Some(queue) = running.next_queue.next(&route.publish, last_broker.as_deref()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            last_broker = Some(Arc::clone(&queue.broker_name));
            attempts += 1;
            match attempt(running, &message, queue, left).await {
                Ok(answer) => {
                    let result = result(&message, queue, answer);
                    if result.status == SendStatus::SendOk
                        || !config.retry_other_broker
                        || config.retries < attempts
                    {
                        return Ok(result);
                    }
                    debug!(topic = %message.topic, broker = %queue.broker_name, status = ?result.status, "stored, but not safely enough: another broker is tried");
                    degraded = Some(result);
                }
                Err(error) if error.is_retryable() && attempts <= config.retries => {
                    warn!(topic = %message.topic, broker = %queue.broker_name, attempts, %error, cause = %crate::Error::chain(&error), "a send failed, it is tried again");
                    if error.response_code() == Some(ResponseCode::TOPIC_NOT_EXIST) {
                        // The route is out of date. What becomes of the question shows in the next attempt.
                        let _ = running.client.fetch_route(&message.topic).await;
                    }
                    last_error = Some(error);
                }
                Err(source) => {
                    let topic = message.topic.to_string();
                    return degraded.ok_or(SendError::Failed { topic, attempts, source });
                }
            }
        }
        let (topic, limit) = (message.topic.to_string(), config.send_timeout);
        degraded.ok_or(SendError::TimedOut { topic, attempts, limit, source: last_error })
    }

    fn running(&self) -> Result<&Running, SendError> {
        let state = match self.state() {
            ServiceState::CreateJust | ServiceState::StartFailed => "has not been started",
            ServiceState::ShutdownAlready => "is shut down",
            ServiceState::Running => "is starting",
        };
        let running = self.inner.running.get().filter(|running| !running.closed.is_cancelled());
        running.ok_or_else(|| SendError::NotRunning { group: self.group().to_owned(), state })
    }

    async fn prepare(&self, running: &Running, mut message: Message) -> Prepared {
        let message_id = match message.get(properties::UNIQUE_KEY) {
            Some(id) => id.to_owned(),
            None => {
                let id = id::unique();
                message.put_property(properties::UNIQUE_KEY, &id);
                id
            }
        };
        message.put_property(properties::WAIT, "true");
        let namespace = running.client.config().namespace.as_deref();
        if let Some(namespace) = namespace {
            message.put_property(properties::INSTANCE_ID, namespace);
        }
        let (body, sys_flag) = self.compress(message.payload()).await;
        Prepared {
            topic: namespace::wrap(namespace, message.topic()),
            message_id,
            properties: message.properties,
            body,
            flag: message.flag,
            sys_flag,
            born_timestamp_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
                as i64,
        }
    }

    /// Compresses a large body. One that cannot be, or does not become smaller, travels as it is.
    async fn compress(&self, body: &Bytes) -> (Bytes, i32) {
        let config = &self.inner.config;
        if body.len() < config.compress_over.as_usize() {
            return (body.clone(), 0);
        }
        let kind = match config.compression {
            Compression::Zlib => CompressionType::Zlib,
            Compression::Lz4 => CompressionType::Lz4,
            Compression::Zstd => CompressionType::Zstd,
        };
        let level = config.compress_level;
        let compressed = if body.len() < COMPRESS_APART_BYTES {
            compression::compress(kind, level, body).ok()
        } else {
            let whole = body.clone();
            let work = tokio::task::spawn_blocking(move || compression::compress(kind, level, &whole));
            work.await.ok().and_then(Result::ok)
        };
        match compressed.filter(|compressed| compressed.len() < body.len()) {
            Some(compressed) => (compressed, sys_flag::of_compression(kind)),
            None => (body.clone(), 0),
        }
    }
}

async fn attempt(
    running: &Running,
    message: &Prepared,
    queue: &MessageQueue,
    limit: Duration,
) -> Result<SendAnswer, RequestError> {
    let header = SendMessageV2 {
        producer_group: Arc::clone(&running.group),
        topic: Arc::clone(&message.topic),
        default_topic: AUTO_CREATE_TOPIC.into(),
        default_topic_queue_nums: DEFAULT_TOPIC_QUEUES,
        queue_id: queue.queue_id,
        sys_flag: message.sys_flag,
        born_timestamp: message.born_timestamp_ms,
        flag: message.flag,
        properties: Some(message.properties.clone()),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        max_reconsume_times: None,
        batch: Some(false),
        broker_name: Some(Arc::clone(&queue.broker_name)),
    };
    running.client.send(&queue.broker_name, &header, message.body.clone(), limit).await
}

fn result(message: &Prepared, queue: &MessageQueue, answer: SendAnswer) -> SendResult {
    SendResult {
        status: SendStatus::of(answer.code),
        message_id: message.message_id.clone(),
        offset_message_id: answer.header.msg_id,
        queue: MessageQueue { queue_id: answer.header.queue_id, ..queue.clone() },
        queue_offset: answer.header.queue_offset,
        transaction_id: answer.header.transaction_id,
    }
}
