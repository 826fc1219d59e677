//! Topics, their queues, and the messages in them.
//!
//! A message is encoded once, into the record that every pull then shares. All records have a place in one imaginary
//! commit log, which only ever grows; what no longer fits into memory is dropped from its front.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tracing::warn;

use super::clock::Now;
use crate::message::stored::{self, Record};
use crate::message::{MessageExt, properties, sys_flag, tag};
use crate::protocol::body::perm;

/// More topics than a test needs, and few enough for memory.
const MAX_TOPICS: usize = 10_000;
/// More queues than a topic has.
pub(super) const MAX_QUEUES: i32 = 1_024;
/// What a record takes beside its bytes: its entries in the queue and in the log.
const RECORD_OVERHEAD: usize = 160;

/// A message that is to be stored.
#[derive(Debug, Clone)]
pub(super) struct NewMessage {
    pub(super) topic: Arc<str>,
    pub(super) queue_id: i32,
    pub(super) flag: i32,
    pub(super) sys_flag: i32,
    pub(super) born_timestamp_ms: i64,
    pub(super) born_host: SocketAddr,
    pub(super) reconsume_times: i32,
    /// Of a committed transaction, where its half message stood.
    pub(super) prepared_transaction_offset: i64,
    pub(super) body: Bytes,
    pub(super) properties: String,
}

impl NewMessage {
    /// The message of a record, as it is to be stored again; `None` for what is no record of ours.
    ///
    /// The body stays packed: it need not be readable to be delivered again.
    pub(super) fn from_record(record: &Bytes) -> Option<(Self, MessageExt)> {
        const SYS_FLAG_END: usize = 40;
        let flag = record.get(SYS_FLAG_END - 4..SYS_FLAG_END)?.first_chunk().copied()?;
        let flag = i32::from_be_bytes(flag);
        let mut unpacked = BytesMut::from(&record[..]);
        unpacked[SYS_FLAG_END - 1] &= !(sys_flag::COMPRESSED as u8);
        let message = stored::decode(unpacked.freeze(), usize::MAX).ok()?;
        let new = Self {
            topic: message.topic().into(),
            queue_id: message.queue_id(),
            flag: message.flag(),
            sys_flag: flag,
            born_timestamp_ms: message.born_timestamp_ms(),
            born_host: message.born_host(),
            reconsume_times: i32::try_from(message.reconsume_times()).unwrap_or(i32::MAX),
            prepared_transaction_offset: message.prepared_transaction_offset(),
            body: message.body().clone(),
            properties: message.encoded_properties().to_owned(),
        };
        Some((new, message))
    }
}

/// Where a message was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) queue_offset: i64,
    /// Its place in the commit log.
    pub(super) position: i64,
}

/// How many queues a topic has, and what may be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicConfig {
    pub(super) read_queues: i32,
    pub(super) write_queues: i32,
    pub(super) perm: i32,
}

impl TopicConfig {
    pub(super) fn read_write(queues: i32) -> Self {
        Self { read_queues: queues, write_queues: queues, perm: perm::READ | perm::WRITE }
    }
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) config: TopicConfig,
    /// As many as are read or written; those beyond, after a topic has shrunk, keep their messages.
    queues: Vec<Queue>,
}

impl Topic {
    /// Queue `id`, if it exists.
    pub(super) fn queue(&self, id: i32) -> Option<&Queue> {
        self.queues.get(usize::try_from(id).ok()?)
    }

    pub(super) fn queues(&self) -> &[Queue] {
        &self.queues
    }
}

/// One queue: records whose offsets follow each other.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The offset of the first record; grows when records are dropped.
    first: i64,
    records: VecDeque<StoredRecord>,
}

#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) bytes: Bytes,
    pub(super) position: i64,
    /// By which pulls are filtered: 0 for a message without a tag.
    pub(super) tag_hash: i32,
    pub(super) stored_at_ms: i64,
}

/// Which end of several messages with one store time is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundary {
    Lower,
    Upper,
}

impl Queue {
    pub(super) fn min_offset(&self) -> i64 {
        self.first
    }

    /// The next offset to be written.
    pub(super) fn max_offset(&self) -> i64 {
        self.first + self.records.len() as i64
    }

    /// The records from `offset` on, which is not below the first one.
    pub(super) fn from(&self, offset: i64) -> impl Iterator<Item = &StoredRecord> {
        let skipped = usize::try_from(offset - self.first).unwrap_or_default();
        self.records.range(skipped.min(self.records.len())..)
    }

    pub(super) fn stored_at_ms(&self) -> Option<i64> {
        self.records.front().map(|record| record.stored_at_ms)
    }

    /// `Lower`: the first offset stored at `time_ms` or later, the next one to be written where there is none.
    /// `Upper`: the last offset stored at `time_ms` or before, the first one where there is none.
    pub(super) fn offset_at(&self, time_ms: i64, boundary: Boundary) -> i64 {
        let before = |until: i64| self.records.partition_point(|record| record.stored_at_ms < until) as i64;
        self.first
            + match boundary {
                Boundary::Lower => before(time_ms),
                Boundary::Upper => (before(time_ms.saturating_add(1)) - 1).max(0),
            }
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) max_bytes: usize,
    pub(super) max_messages_per_queue: usize,
}

/// All topics of the broker.
#[derive(Debug)]
pub(super) struct Store {
    host: SocketAddr,
    retention: Retention,
    topics: HashMap<Arc<str>, Topic>,
    /// Where each record stands, by its place in the commit log: the first entry is the oldest record of all.
    log: BTreeMap<i64, Place>,
    next_position: i64,
    bytes: usize,
    has_dropped: bool,
}

#[derive(Debug)]
struct Place {
    topic: Arc<str>,
    queue_id: i32,
    queue_offset: i64,
}

impl Store {
    /// `host` is the broker's own address, which every record names.
    pub(super) fn new(host: SocketAddr, retention: Retention) -> Self {
        Self {
            host,
            retention,
            topics: HashMap::new(),
            log: BTreeMap::new(),
            next_position: 0,
            bytes: 0,
            has_dropped: false,
        }
    }

    pub(super) fn host(&self) -> SocketAddr {
        self.host
    }

    pub(super) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(super) fn queue(&self, topic: &str, id: i32) -> Option<&Queue> {
        self.topic(topic)?.queue(id)
    }

    /// All topics, in the order of their names.
    pub(super) fn topics(&self) -> Vec<&Topic> {
        let mut topics: Vec<_> = self.topics.values().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// Creates a topic or changes it; `None` where there are too many.
    pub(super) fn put_topic(&mut self, name: &str, config: TopicConfig) -> Option<&Topic> {
        if self.topics.len() >= MAX_TOPICS && !self.topics.contains_key(name) {
            return None;
        }
        let name: Arc<str> = name.into();
        let topic =
            self.topics.entry(Arc::clone(&name)).or_insert(Topic { name, config, queues: Vec::new() });
        topic.config = config;
        let queues = config.read_queues.max(config.write_queues).clamp(0, MAX_QUEUES) as usize;
        topic.queues.resize_with(queues.max(topic.queues.len()), Queue::default);
        Some(topic)
    }

    /// Stores a message at the end of its queue and drops what is too old for the room there is; `None` where the
    /// queue does not exist.
    pub(super) fn append(&mut self, message: &NewMessage, now: Now) -> Option<Appended> {
        let position = self.next_position;
        let topic = self.topics.get_mut(&message.topic)?;
        let queue = topic.queues.get_mut(usize::try_from(message.queue_id).ok()?)?;
        let queue_offset = queue.max_offset();
        let record = encode(message, self.host, queue_offset, position, now.unix_ms);
        let tag_hash = properties::find(&message.properties, properties::TAGS).map_or(0, tag::hash);
        let place = Place { topic: Arc::clone(&topic.name), queue_id: message.queue_id, queue_offset };
        self.next_position += record.len() as i64;
        self.bytes += RECORD_OVERHEAD + record.len();
        self.log.insert(position, place);
        queue.records.push_back(StoredRecord {
            bytes: record,
            position,
            tag_hash,
            stored_at_ms: now.unix_ms,
        });
        let is_too_long = self.retention.max_messages_per_queue < queue.records.len();
        if is_too_long {
            let oldest = queue.records.front().map(|record| record.position);
            self.drop_record(oldest);
        }
        while self.retention.max_bytes < self.bytes && self.log.len() > 1 {
            let oldest = self.log.first_key_value().map(|(position, _)| *position);
            self.drop_record(oldest);
        }
        Some(Appended { queue_offset, position })
    }

    /// A place in the commit log for a message that is not in a queue yet.
    pub(super) fn reserve(&mut self, bytes: usize) -> i64 {
        let position = self.next_position;
        self.next_position += bytes as i64;
        position
    }

    /// The record at a place of the commit log, if it is still there.
    pub(super) fn find(&self, position: i64) -> Option<&StoredRecord> {
        let place = self.log.get(&position)?;
        self.queue(&place.topic, place.queue_id)?.from(place.queue_offset).next()
    }

    /// Drops the record at `position`, which is the first one of its queue.
    fn drop_record(&mut self, position: Option<i64>) {
        let Some(place) = position.and_then(|position| self.log.remove(&position)) else { return };
        if !self.has_dropped {
            self.has_dropped = true;
            warn!(topic = %place.topic, "the embedded broker is full: from now on its oldest messages are dropped");
        }
        let queue = self
            .topics
            .get_mut(&place.topic)
            .and_then(|topic| topic.queues.get_mut(usize::try_from(place.queue_id).ok()?));
        if let Some(queue) = queue
            && let Some(record) = queue.records.pop_front()
        {
            queue.first += 1;
            self.bytes -= RECORD_OVERHEAD + record.bytes.len();
        }
    }
}

/// A message as it is stored.
pub(super) fn encode(
    message: &NewMessage,
    store_host: SocketAddr,
    queue_offset: i64,
    position: i64,
    store_timestamp_ms: i64,
) -> Bytes {
    let record = Record {
        queue_id: message.queue_id,
        flag: message.flag,
        queue_offset,
        commit_log_offset: position,
        sys_flag: message.sys_flag,
        born_timestamp_ms: message.born_timestamp_ms,
        born_host: message.born_host,
        store_timestamp_ms,
        store_host,
        reconsume_times: message.reconsume_times,
        prepared_transaction_offset: message.prepared_transaction_offset,
        body: &message.body,
        topic: &message.topic,
        properties: &message.properties,
    };
    record.encode()
}

/// The property string with some properties set (to `Some`) or taken out (`None`); the others keep their order.
pub(super) fn edit_properties(encoded: &str, changes: &[(&str, Option<&str>)]) -> String {
    let is_kept = |(key, _): &(&str, &str)| changes.iter().all(|(changed, _)| changed != key);
    let set = changes.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    properties::encode(properties::iter(encoded).filter(is_kept).chain(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CompressionType, compression};

    fn store(max_bytes: usize, max_messages_per_queue: usize) -> Store {
        let retention = Retention { max_bytes, max_messages_per_queue };
        let mut store = Store::new("127.0.0.1:10911".parse().unwrap(), retention);
        store.put_topic("t", TopicConfig::read_write(2)).unwrap();
        store
    }

    fn message(queue_id: i32, body: &'static [u8]) -> NewMessage {
        NewMessage {
            topic: "t".into(),
            queue_id,
            flag: 0,
            sys_flag: 0,
            born_timestamp_ms: 1,
            born_host: "127.0.0.1:5".parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(body),
            properties: String::new(),
        }
    }

    fn at(unix_ms: i64) -> Now {
        let now = tokio::time::Instant::now();
        Now { instant: now, unmoved: now, unix_ms }
    }

    fn bounds(store: &Store, queue: i32) -> (i64, i64) {
        let queue = store.queue("t", queue).unwrap();
        (queue.min_offset(), queue.max_offset())
    }

    #[test]
    fn beyond_its_room_the_store_drops_the_oldest_messages_of_all_queues() {
        let mut store = store(3 * (RECORD_OVERHEAD + 91 + 1 + 1), 100);
        for queue in [0, 1, 0, 1, 1] {
            store.append(&message(queue, b"x"), at(0)).unwrap();
        }
        assert_eq!((bounds(&store, 0), bounds(&store, 1)), ((1, 2), (1, 3)));
        assert_eq!(store.log.len(), 3);
    }

    #[test]
    fn beyond_its_length_a_queue_drops_its_own_oldest_messages() {
        let mut store = store(usize::MAX, 2);
        let first = store.append(&message(1, b"x"), at(0)).unwrap();
        for _ in 0..4 {
            store.append(&message(0, b"x"), at(0)).unwrap();
        }
        assert_eq!((bounds(&store, 0), bounds(&store, 1)), ((2, 4), (0, 1)));
        assert!(store.find(first.position).is_some());
        assert_eq!(store.log.len(), 3);
    }

    #[test]
    fn offsets_are_found_by_store_time() {
        let mut store = store(usize::MAX, 100);
        for time in [10, 20, 20, 30] {
            store.append(&message(0, b"x"), at(time)).unwrap();
        }
        let queue = store.queue("t", 0).unwrap();
        for (time, lower, upper) in [(5, 0, 0), (10, 0, 0), (15, 1, 0), (20, 1, 2), (30, 3, 3), (31, 4, 3)] {
            let found = (queue.offset_at(time, Boundary::Lower), queue.offset_at(time, Boundary::Upper));
            assert_eq!(found, (lower, upper), "{time}");
        }
    }

    #[test]
    fn a_message_is_taken_out_of_its_record_even_if_its_body_cannot_be_unpacked() {
        let mut store = store(usize::MAX, 100);
        let mut broken = message(0, b"not packed at all");
        broken.sys_flag = sys_flag::of_compression(CompressionType::Zstd);
        assert!(compression::decompress(CompressionType::Zstd, &broken.body, 1 << 20).is_err());
        let position = store.append(&broken, at(0)).unwrap().position;
        let (again, _) = NewMessage::from_record(&store.find(position).unwrap().bytes).unwrap();
        assert_eq!((again.body, again.sys_flag), (broken.body, broken.sys_flag));
    }

    #[test]
    fn properties_are_set_replaced_and_removed() {
        let edited = edit_properties(
            "a\u{1}1\u{2}b\u{1}2\u{2}c\u{1}3",
            &[("b", Some("4")), ("c", None), ("d", Some("5"))],
        );
        assert_eq!(edited, "a\u{1}1\u{2}b\u{1}4\u{2}d\u{1}5\u{2}");
    }
}
