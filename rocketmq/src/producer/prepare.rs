//! From a message to what travels: completed, checked, compressed, or put together with others.
//!
//! Source: `behaviour.md` sections 2.4 and 2.5.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

use super::running::Running;
use crate::client::{AUTO_CREATE_TOPIC, BrokerVersion};
use crate::config::{Compression, ProducerConfig};
use crate::message::{
    CompressionType, Message, MessageError, MessageQueue, batch, compression, id, is_reply, properties,
    sys_flag,
};
use crate::protocol::RequestCode;
use crate::protocol::header::SendMessageV2;

/// Queues of a topic that the first send creates.
pub(super) const DEFAULT_TOPIC_QUEUES: i32 = 4;
/// Bodies from this size on are compressed away from the threads that serve connections.
const COMPRESS_APART_BYTES: usize = 64 << 10;

/// A message with all that the client adds to it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) message_id: String,
    flag: i32,
    body: Bytes,
    properties: String,
    /// Whether its sender set some of RocketMQ's own, other than tag and keys.
    has_system: bool,
}

/// A message or a batch as it travels.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What the broker is to do with it.
    pub(super) code: RequestCode,
    /// Each attempt sets the queue, and the broker.
    header: SendMessageV2,
    pub(super) body: Bytes,
    /// A batch has an id of its own.
    pub(super) message_id: String,
    /// How many it is.
    pub(super) messages: usize,
    /// Whether a broker older than 5.0 would deliver it too early.
    pub(super) is_timer: bool,
}

impl Item {
    /// What it takes in a batch.
    pub(super) fn size(&self) -> usize {
        batch::size_of(&self.body, &self.properties)
    }
}

impl Prepared {
    /// The header for an attempt at this queue.
    ///
    /// A batch is named only to brokers that keep its name apart: those before 5.4 write it into every message, after
    /// the message's own, so that all of them have one id. Without the name, a topic of type BatchCQ stores the messages
    /// one by one.
    pub(super) fn header_for(
        &mut self,
        queue: &MessageQueue,
        version: Option<BrokerVersion>,
    ) -> &SendMessageV2 {
        self.header.queue_id = queue.queue_id;
        self.header.broker_name = Some(Arc::clone(&queue.broker_name));
        if self.is_batch()
            && let Some(properties) = &mut self.header.properties
        {
            properties::remove(properties, properties::UNIQUE_KEY);
            if version.is_some_and(|version| BrokerVersion::V5_4_0 <= version) {
                properties::push(properties, properties::UNIQUE_KEY, &self.message_id);
            }
        }
        &self.header
    }

    pub(super) fn is_batch(&self) -> bool {
        self.header.batch == Some(true)
    }

    /// Whether the header depends on what the broker is.
    pub(super) fn needs_version(&self) -> bool {
        self.is_timer || self.is_batch()
    }

    pub(super) fn properties(&self) -> &str {
        self.header.properties.as_deref().unwrap_or_default()
    }
}

impl Running {
    /// Lets the hooks complete a message, and checks it.
    pub(super) fn complete(&self, message: Message) -> Result<Message, MessageError> {
        let message = self.hooks.prepare(message);
        message.check(self.config.max_message.as_usize())?;
        let delay = message.delay_from(SystemTime::now);
        match delay.filter(|delay| self.config.max_delay < *delay) {
            Some(delay) => Err(MessageError::DelayTooLong { delay, limit: self.config.max_delay }),
            None => Ok(message),
        }
    }

    /// Adds what every message has: an id, the wish to be stored safely, the namespace.
    pub(super) fn item(&self, message: Message) -> Result<Item, MessageError> {
        let namespace = self.client.config().namespace.as_deref();
        let has_wait = message.system(properties::WAIT).is_some();
        let own_id = message.system(properties::UNIQUE_KEY).map(str::to_owned);
        let Message { body, flag, mut properties, has_system, .. } = message;
        let message_id = match own_id {
            Some(own) => own,
            None => {
                let id = id::unique();
                properties::push(&mut properties, properties::UNIQUE_KEY, &id);
                id
            }
        };
        if !has_wait {
            properties::push(&mut properties, properties::WAIT, "true");
        }
        if let Some(namespace) = namespace {
            properties::push(&mut properties, properties::INSTANCE_ID, namespace);
        }
        match properties.len() {
            ..=properties::MAX_BYTES => Ok(Item { message_id, flag, body, properties, has_system }),
            len => Err(MessageError::PropertiesTooLarge { len, limit: properties::MAX_BYTES }),
        }
    }

    /// A message that travels alone, its body compressed where that makes it smaller.
    pub(super) async fn prepare(&self, topic: &Arc<str>, item: Item) -> Prepared {
        let is_timer = item.has_system && is_timer(&item.properties);
        let transaction = if item.has_system { transaction_flag(&item.properties) } else { 0 };
        let code = code(topic, &item.properties);
        let (body, compressed) = compress(&self.config, item.body).await;
        let sys_flag = compressed | transaction;
        let header = SendMessageV2 {
            sys_flag,
            flag: item.flag,
            properties: Some(item.properties),
            ..self.header(topic)
        };
        Prepared { code, header, body, message_id: item.message_id, messages: 1, is_timer }
    }

    /// Messages that travel together, and what their ids are. The caller has checked that they may.
    pub(super) fn prepare_batch(&self, topic: &Arc<str>, items: Vec<Item>) -> (Prepared, Vec<String>) {
        let mut body = BytesMut::with_capacity(items.iter().map(Item::size).sum());
        let mut waits = true;
        for item in &items {
            batch::encode(&mut body, item.flag, &item.body, &item.properties);
            waits &= properties::find(&item.properties, properties::WAIT) != Some("false");
        }
        // Brokers read it here, not in the messages.
        let wait = if waits { "true" } else { "false" };
        let properties = properties::encode([(properties::WAIT, wait)]);
        let header = SendMessageV2 { batch: Some(true), properties: Some(properties), ..self.header(topic) };
        let (body, message_id) = (body.freeze(), id::unique());
        let ids: Vec<_> = items.into_iter().map(|item| item.message_id).collect();
        let code = RequestCode::SEND_BATCH_MESSAGE;
        (Prepared { code, header, body, message_id, messages: ids.len(), is_timer: false }, ids)
    }

    fn header(&self, topic: &Arc<str>) -> SendMessageV2 {
        SendMessageV2 {
            producer_group: Arc::clone(&self.group),
            topic: Arc::clone(topic),
            default_topic: AUTO_CREATE_TOPIC.into(),
            default_topic_queue_nums: DEFAULT_TOPIC_QUEUES,
            queue_id: 0,
            sys_flag: 0,
            born_timestamp: unix_ms(SystemTime::now()),
            flag: 0,
            properties: None,
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(false),
            broker_name: None,
        }
    }
}

/// Compresses a large body. One that cannot be, or does not become smaller, travels as it is.
async fn compress(config: &ProducerConfig, body: Bytes) -> (Bytes, i32) {
    if body.len() < config.compress_over.as_usize() {
        return (body, 0);
    }
    let kind = match config.compression {
        Compression::Zlib => CompressionType::Zlib,
        Compression::Lz4 => CompressionType::Lz4,
        Compression::Zstd => CompressionType::Zstd,
    };
    let level = config.compress_level;
    let compressed = if body.len() < COMPRESS_APART_BYTES {
        compression::compress(kind, level, &body).ok()
    } else {
        let whole = body.clone();
        let work = tokio::task::spawn_blocking(move || compression::compress(kind, level, &whole));
        work.await.ok().and_then(Result::ok)
    };
    match compressed.filter(|compressed| compressed.len() < body.len()) {
        Some(compressed) => (compressed, sys_flag::of_compression(kind)),
        None => (body, 0),
    }
}

/// Brokers do not keep a reply for consumers, but pass it on.
fn code(topic: &str, encoded: &str) -> RequestCode {
    match is_reply(topic, encoded) {
        true => RequestCode::SEND_REPLY_MESSAGE_V2,
        false => RequestCode::SEND_MESSAGE_V2,
    }
}

fn is_timer(encoded: &str) -> bool {
    properties::iter(encoded).any(|(name, _)| name != properties::DELAY && properties::DELAYS.contains(&name))
}

fn transaction_flag(encoded: &str) -> i32 {
    match properties::find(encoded, properties::TRANSACTION_PREPARED) {
        Some("true") => sys_flag::TRANSACTION_PREPARED,
        _ => 0,
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as i64
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use tokio::runtime;

    use super::*;

    #[test]
    fn large_bodies_are_compressed_away_from_the_threads_that_serve_connections() {
        let config = ProducerConfig::default();
        let over = config.compress_over.as_usize();
        let runtime = runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        for (len, compressed, apart) in [
            (over - 1, false, false),
            (over, true, false),
            (COMPRESS_APART_BYTES - 1, true, false),
            (COMPRESS_APART_BYTES, true, true),
        ] {
            // What goes to the other thread waits there until it is free.
            let (free, taken) = mpsc::channel::<()>();
            runtime.spawn_blocking(move || taken.recv());
            let _inside = runtime.enter();
            let mut work = pin!(compress(&config, vec![b'x'; len].into()));
            let at_once = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(at_once.is_pending(), apart, "{len}");
            drop(free);
            let (body, flag) = match at_once {
                Poll::Ready(done) => done,
                Poll::Pending => runtime.block_on(work),
            };
            assert_eq!((body.len() < len, flag != 0), (compressed, compressed), "{len}");
        }
    }

    #[tokio::test]
    async fn what_does_not_become_smaller_travels_as_it_is() {
        for compression in [Compression::Zlib, Compression::Lz4, Compression::Zstd] {
            let mut config = ProducerConfig::default();
            config.compression = compression;
            let noise: Bytes = std::iter::repeat_with(|| fastrand::u8(..)).take(100_000).collect();
            assert_eq!(compress(&config, noise.clone()).await, (noise, 0), "{compression:?}");
        }
    }
}
