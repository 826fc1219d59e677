//! A message to be sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use super::message_ext::{MessageExt, Span};
use super::stored::{self, Record};
use super::topic::NOT_FOR_CLIENTS;
use super::{id, properties};

/// A message to be sent: a topic, a body, and properties.
///
/// ```
/// # use rocketmq::Message;
/// let message = Message::new("order-events").tag("paid").key("42").body("{}");
/// assert_eq!(message.topic(), "order-events");
/// ```
///
/// Methods chain by value. Mistakes (a reserved property, a value that cannot be JSON) are remembered and reported
/// by the send, before anything leaves the process.
#[derive(Debug, Clone)]
pub struct Message {
    pub(crate) topic: String,
    pub(crate) body: Bytes,
    pub(crate) flag: i32,
    /// In the form in which they travel.
    pub(crate) properties: String,
    /// Whether some of them may be RocketMQ's own, other than tag and keys. Nearly no message has any, and then the way to
    /// the broker need not look for them, over and over.
    pub(crate) has_system: bool,
    mistake: Option<MessageError>,
}

/// Why a message cannot be sent. Nothing has left the process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The topic is empty, too long or has characters that brokers refuse.
    #[error("{topic:?} cannot be a topic: {rule}")]
    Topic {
        /// The name given.
        topic: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Only brokers write to that topic.
    #[error("nothing can be sent to the system topic {topic}")]
    ForbiddenTopic {
        /// The name given.
        topic: String,
    },
    /// RocketMQ has no empty messages.
    #[error("the message for {topic} has no body: give it at least one byte")]
    EmptyBody {
        /// The topic that it was meant for.
        topic: String,
    },
    /// Larger than the producer's `max_message`.
    #[error("the body has {len} bytes, more than the producer's `max_message` of {limit}")]
    BodyTooLarge {
        /// The length of the body in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// All properties together are longer than the stored form can count.
    #[error("the properties take {len} bytes together, more than the {limit} that a broker stores")]
    PropertiesTooLarge {
        /// Their length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A property that only clients and brokers may set, or one that cannot be written.
    #[error("the property {name:?} cannot be set: {rule}")]
    Property {
        /// The name given.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Delayed longer than the producer's `max_delay`.
    #[error(
        "the message would be delayed for {delay:?}, longer than the producer's `max_delay` of {limit:?}"
    )]
    DelayTooLong {
        /// How long it is to be delayed.
        delay: Duration,
        /// The limit.
        limit: Duration,
    },
    /// Messages that cannot travel together.
    #[error("the batch cannot be sent: {rule}")]
    Batch {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A batch that is larger than the producer's `max_message`.
    #[error(
        "the batch of {messages} messages takes {len} bytes, more than the producer's `max_message` of {limit}"
    )]
    BatchTooLarge {
        /// How many messages are in it.
        messages: usize,
        /// What they take together, their properties included, in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A queue of another topic than the message's.
    #[error("the message for {topic} cannot go to the queue {queue} of another topic")]
    WrongQueue {
        /// The queue given.
        queue: String,
        /// The topic of the message.
        topic: String,
    },
    /// Not what a broker gave as a recall handle.
    #[error("{handle:?} is no recall handle: {rule}")]
    RecallHandle {
        /// What was given.
        handle: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A reply to a message whose sender does not wait for one: Java's client error 10007.
    #[error(
        "there can be no reply to {message_id} of {topic}: it is no request, it has no property {missing}"
    )]
    NotARequest {
        /// The topic of the message that was to be answered.
        topic: String,
        /// Its id.
        message_id: String,
        /// The first property that it would need.
        missing: &'static str,
    },
    /// A message that cannot be sent in a transaction.
    #[error("the message for {topic} cannot be sent in a transaction: {rule}")]
    Transaction {
        /// The topic that it was meant for.
        topic: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The value given for the body cannot be written as JSON.
    #[error("the body for {topic} cannot be written as JSON: {reason}")]
    Json {
        /// The topic that it was meant for.
        topic: String,
        /// What the serializer said.
        reason: String,
    },
}

impl Message {
    /// A message for `topic`, with nothing in it yet.
    pub fn new(topic: impl Into<String>) -> Self {
        // Room for what every message gets, and a few properties of its own.
        let properties = String::with_capacity(128);
        let (topic, body) = (topic.into(), Bytes::new());
        Self { topic, body, flag: 0, properties, has_system: false, mistake: None }
    }

    /// Sets the body: text or bytes. Bytes are not copied.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to `value` in JSON.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.body = body.into(),
            Err(error) => {
                self.mistake =
                    Some(MessageError::Json { topic: self.topic.clone(), reason: error.to_string() });
            }
        }
        self
    }

    /// Sets the tag, by which consumers choose; one word of a message's topic.
    #[must_use]
    pub fn tag(self, tag: impl AsRef<str>) -> Self {
        self.checked_property(properties::TAGS, tag.as_ref())
    }

    /// Adds a business key, by which the message can be looked up; without blanks.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<str>) -> Self {
        let key = key.as_ref();
        match properties::find_span(self.properties.as_bytes(), properties::KEYS) {
            Some((_, end)) if properties::is_clean(key) => {
                self.properties.insert_str(end, key);
                self.properties.insert(end, ' ');
                self
            }
            _ => self.checked_property(properties::KEYS, key),
        }
    }

    /// Adds several business keys.
    #[must_use]
    pub fn keys<K: AsRef<str>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        keys.into_iter().fold(self, Message::key)
    }

    /// Sets a property of your own.
    ///
    /// Names that RocketMQ uses itself are refused when the message is sent.
    #[must_use]
    pub fn property(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        if properties::is_reserved(name) {
            return self.mistaken(name, "the name is RocketMQ's own");
        }
        // Brokers make folders of the queues that it names. Source: `Validators.checkMessage`.
        if name == properties::INNER_MULTI_DISPATCH && value.contains('/') {
            return self.mistaken(name, "the queues that it names must not have a `/` in their names");
        }
        self.checked_property(name, value)
    }

    /// Sets the application's flag: a number that travels with the message and that RocketMQ does not look at.
    #[must_use]
    pub fn flag(mut self, flag: i32) -> Self {
        self.flag = flag;
        self
    }

    /// Says what must stay in order: messages of a topic with the same key go to the same queue, in the order in which
    /// they are sent.
    ///
    /// The key chooses the queue as it does for Java's `SelectMessageQueueByHash`. It stays with its queue as long as
    /// the topic keeps its number of queues, and the message is tried at no other queue: see
    /// [`Producer::send_ordered`](crate::Producer::send_ordered).
    #[must_use]
    pub fn sharding_key(mut self, key: impl AsRef<str>) -> Self {
        self.has_system = true;
        self.checked_property(properties::SHARDING_KEY, key.as_ref())
    }

    /// Says whether the broker is to answer only when the message is stored as safely as it is configured to: on its
    /// disk, on its slave. Default `true`; with `false` it answers as soon as it has the message.
    #[must_use]
    pub fn wait_store(mut self, wait: bool) -> Self {
        self.put_property(properties::WAIT, if wait { "true" } else { "false" });
        self
    }

    /// Says for how long from now on the broker does not ask what has become of the message's
    /// [transaction](crate::Producer::send_in_transaction), rounded up to seconds; default: the broker's
    /// `transactionTimeOut`, 6 seconds. For a local part that takes long. Without effect on other messages.
    #[must_use]
    pub fn check_immunity(mut self, time: Duration) -> Self {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        self.put_property(properties::CHECK_IMMUNITY_TIME_IN_SECONDS, &seconds.to_string());
        self
    }

    /// Delivers the message after the time of `level`, 1 to 18: `1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m
    /// 1h 2h` unless the broker is configured otherwise. 0 is no delay, and brokers take a level beyond their last one for that
    /// one; of several delays the last one counts.
    ///
    /// All brokers know levels. Source: `protocol.md` section 4.10.
    #[must_use]
    pub fn delay_level(self, level: u8) -> Self {
        self.delayed(properties::DELAY, u64::from(level))
    }

    /// Delivers the message after `delay`, by the broker's clock, which is precise to about a second. Zero is no delay;
    /// of several delays the last one counts.
    ///
    /// For 5.x brokers. The send fails at once where the delay is longer than the producer's `max_delay`, or the broker
    /// is an older one, which would deliver the message immediately.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        match ms % 1_000 {
            0 => self.delayed(properties::TIMER_DELAY_SEC, ms / 1_000),
            _ => self.delayed(properties::TIMER_DELAY_MS, ms),
        }
    }

    /// Delivers the message at `time`, to about a second; at once where that has passed. Of several delays the last one
    /// counts.
    ///
    /// For 5.x brokers, with the limits of [`delay`](Self::delay).
    #[must_use]
    pub fn deliver_at(self, time: SystemTime) -> Self {
        // What was due before 1970 is due now.
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self.delayed(properties::TIMER_DELIVER_MS, ms)
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The body.
    pub fn payload(&self) -> &Bytes {
        &self.body
    }

    /// The value of a property, user's or system's.
    pub fn get(&self, name: &str) -> Option<&str> {
        properties::find(&self.properties, name)
    }

    /// The value of one of RocketMQ's own properties other than tag and keys.
    pub(crate) fn system(&self, name: &str) -> Option<&str> {
        if self.has_system { self.get(name) } else { None }
    }

    /// How long from `now` on the message is to be delayed, if it is delayed by time.
    pub(crate) fn delay_from(&self, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
        let number = |name| self.system(name)?.parse().ok();
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = || number(properties::TIMER_DELIVER_MS).map(Duration::from_millis);
        number(properties::TIMER_DELAY_SEC)
            .map(Duration::from_secs)
            .or_else(|| number(properties::TIMER_DELAY_MS).map(Duration::from_millis))
            .or_else(|| Some(until()?.saturating_sub(since_1970(now()))))
    }

    /// Sets any property; the caller knows that it may.
    pub(crate) fn put_property(&mut self, name: &str, value: &str) {
        self.has_system = true;
        self.set_property(name, value);
    }

    fn set_property(&mut self, name: &str, value: &str) {
        match properties::find_span(self.properties.as_bytes(), name) {
            Some((start, end)) => self.properties.replace_range(start..end, value),
            None => properties::push(&mut self.properties, name, value),
        }
    }

    /// Sets a property that users must not, for a broker's and for a test's purposes.
    #[cfg(test)]
    pub(crate) fn raw_property(mut self, name: &'static str, value: &str) -> Self {
        self.put_property(name, value);
        self
    }

    /// Checks everything that a broker would refuse, and what this side promised to.
    ///
    /// Source: `behaviour.md` section 2.2, `Validators.checkMessage`.
    pub(crate) fn check(&self, max_body_bytes: usize) -> Result<(), MessageError> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
        }
        if let Err(rule) = check_topic(&self.topic) {
            return Err(MessageError::Topic { topic: self.topic.clone(), rule });
        }
        if NOT_FOR_CLIENTS.contains(&self.topic.as_str()) {
            return Err(MessageError::ForbiddenTopic { topic: self.topic.clone() });
        }
        if self.body.is_empty() {
            return Err(MessageError::EmptyBody { topic: self.topic.clone() });
        }
        if max_body_bytes < self.body.len() {
            return Err(MessageError::BodyTooLarge { len: self.body.len(), limit: max_body_bytes });
        }
        let len = self.properties.len();
        if properties::MAX_BYTES < len {
            return Err(MessageError::PropertiesTooLarge { len, limit: properties::MAX_BYTES });
        }
        Ok(())
    }

    fn checked_property(mut self, name: &str, value: &str) -> Self {
        let rule = if name.trim().is_empty() || value.trim().is_empty() {
            "name and value must not be blank"
        } else if !properties::is_clean(name) || !properties::is_clean(value) {
            "it holds U+0001 or U+0002, which separate properties on the wire"
        } else {
            self.set_property(name, value);
            return self;
        };
        self.mistaken(name, rule)
    }

    fn mistaken(mut self, name: &str, rule: &'static str) -> Self {
        self.mistake = Some(MessageError::Property { name: name.to_owned(), rule });
        self
    }

    /// Sets the one delay that the message has; 0 is none.
    fn delayed(mut self, name: &str, value: u64) -> Self {
        for other in properties::DELAYS {
            properties::remove(&mut self.properties, other);
        }
        if value > 0 {
            self.has_system = true;
            properties::push(&mut self.properties, name, &value.to_string());
        }
        self
    }

    /// See [`MessageExt`]'s `From<Message>`.
    pub(super) fn into_delivered(mut self) -> MessageExt {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        if self.system(properties::UNIQUE_KEY).is_none() {
            self.put_property(properties::UNIQUE_KEY, &id::unique());
        }
        if properties::MAX_BYTES < self.properties.len() {
            self.properties.clear();
        }
        let topic = if check_topic(&self.topic).is_ok() { self.topic.as_str() } else { "" };
        let record = Record {
            queue_id: 0,
            flag: self.flag,
            queue_offset: 0,
            commit_log_offset: 0,
            sys_flag: 0,
            born_timestamp_ms: now,
            born_host: loopback,
            store_timestamp_ms: now,
            store_host: loopback,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &self.body,
            topic,
            properties: &self.properties,
        };
        let bytes = record.encode();
        stored::decode(bytes.clone(), self.body.len()).unwrap_or_else(|_| {
            // What was just written can be read; were it not so, the body would still be there.
            MessageExt::from_record(bytes, self.body, Span::new(0, 0), Span::new(0, 0), 0)
        })
    }
}

/// The rule for topics, or the part of it that `topic` breaks. Source: `Validators.checkTopic`.
pub(crate) fn check_topic(topic: &str) -> Result<(), &'static str> {
    let is_of_a_group = topic.starts_with("%RETRY%") || topic.starts_with("%DLQ%");
    if topic.is_empty() {
        return Err("it is empty");
    }
    if !is_of_a_group && 127 < topic.len() {
        return Err("it is longer than 127 characters");
    }
    if 255 < topic.len() {
        return Err("it is longer than 255 characters");
    }
    if !topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%|_-".contains(&byte)) {
        return Err("only letters, digits, `_`, `-`, `%` and `|` are allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::topic::SCHEDULE_TOPIC;

    const MAX_BODY: usize = 100;

    #[test]
    fn what_a_broker_would_refuse_is_refused_before_it_is_sent() {
        let good = || Message::new("t").body("x");
        for (message, words) in [
            (Message::new("").body("x"), "it is empty"),
            (Message::new("a b").body("x"), "only letters"),
            (Message::new("t".repeat(128)).body("x"), "127"),
            (Message::new(format!("%RETRY%{}", "g".repeat(249))).body("x"), "255"),
            (Message::new(SCHEDULE_TOPIC).body("x"), "system topic"),
            (Message::new("t"), "no body"),
            (Message::new("t").body("x".repeat(101)), "max_message"),
            (good().property("TRAN_MSG", "true"), "RocketMQ's own"),
            (good().property("", "x"), "blank"),
            (good().property("INNER_MULTI_DISPATCH", "a/b"), "`/`"),
            (good().tag(" "), "blank"),
            (good().key("a\u{1}"), "U+0001"),
            (good().property("big", "x".repeat(40_000)), "32767"),
            (good().json(&std::collections::HashMap::from([((1, 2), 3)])), "JSON"),
        ] {
            let error = message.check(MAX_BODY).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        good().tag("a").keys(["k", "l"]).property("p", "q").check(MAX_BODY).unwrap();
    }

    #[test]
    fn keys_are_joined_by_blanks() {
        let message = Message::new("t").key("a").tag("x").keys(["b", "c"]);
        assert_eq!(message.get(properties::KEYS), Some("a b c"));
        assert_eq!(message.get(properties::TAGS), Some("x"));
    }

    #[test]
    fn of_several_delays_the_last_one_counts_and_zero_is_none() {
        const NOW: SystemTime = UNIX_EPOCH;
        let secs = Duration::from_secs;
        for (message, property, delay) in [
            (Message::new("t").delay_level(3), Some((properties::DELAY, "3")), None),
            (Message::new("t").delay(secs(90)), Some((properties::TIMER_DELAY_SEC, "90")), Some(secs(90))),
            (
                Message::new("t").delay(Duration::from_millis(1_500)),
                Some((properties::TIMER_DELAY_MS, "1500")),
                Some(Duration::from_millis(1_500)),
            ),
            (
                Message::new("t").delay_level(3).delay(secs(1)).deliver_at(NOW + secs(7)),
                Some((properties::TIMER_DELIVER_MS, "7000")),
                Some(secs(7)),
            ),
            (Message::new("t").delay(secs(1)).delay_level(0), None, None),
            (Message::new("t").delay_level(1).delay(Duration::ZERO), None, None),
            (
                Message::new("t").delay(Duration::MAX),
                Some((properties::TIMER_DELAY_MS, "18446744073709551615")),
                Some(Duration::from_millis(u64::MAX)),
            ),
        ] {
            let found = properties::DELAYS.iter().filter_map(|name| Some((*name, message.get(name)?)));
            assert_eq!(found.collect::<Vec<_>>(), Vec::from_iter(property));
            assert_eq!(message.delay_from(|| NOW), delay);
        }
        let passed = Message::new("t").deliver_at(NOW + secs(7));
        assert_eq!(passed.delay_from(|| NOW + secs(8)), Some(Duration::ZERO));
        let long_ago = Message::new("t").deliver_at(NOW - secs(7));
        assert_eq!(long_ago.delay_from(|| NOW), None);
    }

    #[test]
    fn what_rocketmq_set_is_found_whoever_set_it() {
        let plain = Message::new("t").tag("a").key("k").property("user", "x").delay_level(0);
        assert!(!plain.has_system);
        for (message, name) in [
            (plain.clone().sharding_key("s"), properties::SHARDING_KEY),
            (plain.clone().wait_store(false), properties::WAIT),
            (plain.clone().delay_level(1), properties::DELAY),
            (plain.clone().delay(Duration::from_millis(1)), properties::TIMER_DELAY_MS),
            (
                plain.clone().check_immunity(Duration::from_secs(1)),
                properties::CHECK_IMMUNITY_TIME_IN_SECONDS,
            ),
            (plain.clone().raw_property(properties::UNIQUE_KEY, "id"), properties::UNIQUE_KEY),
        ] {
            assert_eq!(message.system(name), message.get(name));
            assert!(message.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_property_is_set_over_and_over() {
        let mut message = Message::new("t").property("a", "1").property("b", "2").wait_store(false);
        message = message.property("a", "longer").wait_store(true);
        assert_eq!(message.get("a"), Some("longer"));
        assert_eq!(message.properties, "a\u{1}longer\u{2}b\u{1}2\u{2}WAIT\u{1}true\u{2}");
    }
}
