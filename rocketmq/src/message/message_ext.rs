//! A message as a consumer gets it.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::str::Utf8Error;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::stored::{
    self, BORN_HOST_AT, BORN_TIME_AT, COMMIT_LOG_OFFSET_AT, FLAG_AT, QUEUE_ID_AT, QUEUE_OFFSET_AT,
    SYS_FLAG_AT,
};
use super::{Message, MessageQueue, id, properties, sys_flag};
use crate::protocol::pop;

/// A message that a broker delivered.
///
/// It is a view of the broker's record: a clone copies no body, and topic, tag and properties are read where they
/// stand. As long as a message lives, so does the network buffer that it came in; copy what you keep for long.
///
/// Times are Unix milliseconds. Source: `protocol.md` section 4.1.
#[derive(Clone)]
pub struct MessageExt {
    record: Bytes,
    /// A slice of `record`, or the unpacked body where the record's is compressed.
    body: Bytes,
    /// Where the topic for the user stands: for a retried message, the value of a property.
    topic: Span,
    properties: Span,
    reconsume_times: i32,
    broker_name: Option<Arc<str>>,
}

/// A range of positions in a record; records are far smaller than 4 GiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(u32, u32);

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self(start as u32, end as u32)
    }

    pub(super) fn start(self) -> usize {
        self.0 as usize
    }

    pub(super) fn range(self) -> Range<usize> {
        self.0 as usize..self.1 as usize
    }
}

impl MessageExt {
    /// The caller has read the record, so that every position in it is known to exist.
    pub(super) fn from_record(
        record: Bytes,
        body: Bytes,
        topic: Span,
        properties: Span,
        reconsume_times: i32,
    ) -> Self {
        Self { record, body, topic, properties, reconsume_times, broker_name: None }
    }

    /// Names the broker that delivered the message; the record does not.
    pub(crate) fn set_broker_name(&mut self, broker_name: Arc<str>) {
        self.broker_name = Some(broker_name);
    }

    /// Counts a delivery that the broker does not know of.
    pub(crate) fn count_delivery(&mut self) {
        self.reconsume_times = self.reconsume_times.saturating_add(1);
    }

    #[cfg(feature = "testing")]
    pub(crate) fn set_reconsume_times(&mut self, times: u32) {
        self.reconsume_times = i32::try_from(times).unwrap_or(i32::MAX);
    }

    /// Shows the topic that the message was first sent to, where `retry_topic` is the one it stands in now: a
    /// listener never sees a retry topic. Source: `behaviour.md` section 3.8.
    pub(crate) fn restore_topic(&mut self, retry_topic: &str) {
        if self.topic() == retry_topic
            && let Some(origin) =
                stored::property_span(&self.record, self.properties, properties::RETRY_TOPIC)
        {
            self.topic = origin;
        }
    }

    /// Shows the topic that the message was first sent to, where it stands in one of those for messages that `group`
    /// popped before and did not acknowledge.
    pub(crate) fn restore_popped_topic(&mut self, group: &str) {
        if let Some((_, origin)) = pop::origin_of_retry(group, self.topic()) {
            self.topic = Span(self.topic.1 - origin.len() as u32, self.topic.1);
        }
    }

    /// Shows the topic without the namespace that it has on the wire.
    pub(crate) fn strip_namespace(&mut self, namespace: &str) {
        let prefixed = self.topic().strip_prefix(namespace).is_some_and(|rest| rest.starts_with('%'));
        if !namespace.is_empty() && prefixed {
            self.topic = Span(self.topic.0 + namespace.len() as u32 + 1, self.topic.1);
        }
    }

    /// The topic that the message was sent to; for a message that is delivered again, the original one.
    pub fn topic(&self) -> &str {
        self.text(self.topic)
    }

    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.property(properties::TAGS)
    }

    /// The business keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.property(properties::KEYS).unwrap_or_default().split(' ').filter(|key| !key.is_empty())
    }

    /// The property `name`, user's or system's (see [`properties`](crate::message::properties)).
    pub fn property(&self, name: &str) -> Option<&str> {
        stored::property_span(&self.record, self.properties, name).map(|span| self.text(span))
    }

    /// All properties, user's and system's, in the order in which they were written.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        properties::iter(self.text(self.properties))
    }

    /// The property string as it travels, for sending the message on.
    pub(crate) fn encoded_properties(&self) -> &str {
        self.text(self.properties)
    }

    /// The body, unpacked where it was compressed.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body as text.
    ///
    /// # Errors
    ///
    /// Where the body is not UTF-8; [`MessageExt::body_str`] replaces what is not.
    pub fn body_utf8(&self) -> Result<&str, Utf8Error> {
        std::str::from_utf8(&self.body)
    }

    /// The body as text, with U+FFFD in the place of what is not UTF-8; for logs and first programs.
    pub fn body_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body as a value in JSON.
    ///
    /// # Errors
    ///
    /// Where the body is no JSON or not of that type.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// The id that the sender gave, or the offset id where the sender gave none. The same for every delivery.
    pub fn message_id(&self) -> Cow<'_, str> {
        match self.property(properties::UNIQUE_KEY) {
            Some(id) => id.into(),
            None => self.offset_message_id().into(),
        }
    }

    /// The id that says where the broker keeps this copy; a retried message is another copy.
    pub fn offset_message_id(&self) -> String {
        id::of_offset(self.store_host(), self.commit_log_offset())
    }

    /// How often the message has been delivered before: 0 at the first time.
    pub fn reconsume_times(&self) -> u32 {
        u32::try_from(self.reconsume_times).unwrap_or_default()
    }

    /// The queue that this copy stands in.
    pub fn queue_id(&self) -> i32 {
        self.i32_at(QUEUE_ID_AT)
    }

    /// Where this copy stands in its queue.
    pub fn queue_offset(&self) -> i64 {
        self.i64_at(QUEUE_OFFSET_AT)
    }

    /// Where this copy stands in the broker's commit log.
    pub fn commit_log_offset(&self) -> i64 {
        self.i64_at(COMMIT_LOG_OFFSET_AT)
    }

    /// The name of the broker that delivered the message; empty for one that was made by hand.
    pub fn broker_name(&self) -> &str {
        self.broker_name.as_deref().unwrap_or_default()
    }

    /// The queue that this copy stands in, with the topic as the user sees it.
    pub fn message_queue(&self) -> MessageQueue {
        MessageQueue::new(self.topic(), self.broker_name(), self.queue_id())
    }

    /// The application's own flag.
    pub fn flag(&self) -> i32 {
        self.i32_at(FLAG_AT)
    }

    /// The system flag. Source: `protocol.md` section 4.2.
    pub fn sys_flag(&self) -> i32 {
        self.i32_at(SYS_FLAG_AT)
    }

    /// When the sender made the message, by its clock.
    pub fn born_timestamp_ms(&self) -> i64 {
        self.i64_at(BORN_TIME_AT)
    }

    /// When the broker stored this copy, by its clock.
    pub fn store_timestamp_ms(&self) -> i64 {
        self.i64_at(BORN_HOST_AT + self.born_host_len())
    }

    /// The sender's address.
    pub fn born_host(&self) -> SocketAddr {
        stored::host_at(&self.record, BORN_HOST_AT, self.sys_flag() & sys_flag::BORN_HOST_V6 != 0)
    }

    /// The address of the broker that stored this copy.
    pub fn store_host(&self) -> SocketAddr {
        stored::host_at(&self.record, self.store_host_at(), self.sys_flag() & sys_flag::STORE_HOST_V6 != 0)
    }

    /// For a committed transaction, where its half message stood.
    pub fn prepared_transaction_offset(&self) -> i64 {
        let store_host_len = stored::host_len(self.sys_flag() & sys_flag::STORE_HOST_V6);
        self.i64_at(self.store_host_at() + store_host_len + 4)
    }

    /// A new message with the same body, tag, keys and user properties for another topic.
    ///
    /// System properties (the message's id, its history) stay behind: what is forwarded is a new message.
    pub fn forward_to(&self, topic: impl Into<String>) -> Message {
        let mut message = Message::new(topic).body(self.body.clone()).flag(self.flag());
        for (name, value) in self.properties() {
            if matches!(name, properties::TAGS | properties::KEYS | properties::SHARDING_KEY)
                || !properties::is_reserved(name)
            {
                message.put_property(name, value);
            }
        }
        message
    }

    /// What this message takes in memory while it waits, near enough for flow control.
    pub(crate) fn body_len(&self) -> usize {
        self.body.len()
    }

    fn born_host_len(&self) -> usize {
        stored::host_len(self.sys_flag() & sys_flag::BORN_HOST_V6)
    }

    fn store_host_at(&self) -> usize {
        BORN_HOST_AT + self.born_host_len() + 8
    }

    /// The record was read as a whole, which found that both texts are UTF-8: the default is never seen.
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(&self.record[span.range()]).unwrap_or_default()
    }

    fn i32_at(&self, at: usize) -> i32 {
        stored::i32_at(&self.record, at).unwrap_or_default()
    }

    fn i64_at(&self, at: usize) -> i64 {
        stored::i64_at(&self.record, at).unwrap_or_default()
    }
}

/// Everything but the body, of which only the length shows: logs are no place for it.
impl fmt::Debug for MessageExt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageExt")
            .field("topic", &self.topic())
            .field("broker_name", &self.broker_name())
            .field("queue_id", &self.queue_id())
            .field("queue_offset", &self.queue_offset())
            .field("message_id", &self.message_id())
            .field("reconsume_times", &self.reconsume_times())
            .field("properties", &self.properties().collect::<Vec<_>>())
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The message as a broker would deliver it the first time: for calling a handler in a test.
///
/// # Panics
///
/// Never; a message that could not be sent (see [`MessageError`](crate::message::MessageError)) loses what is wrong
/// with it.
impl From<Message> for MessageExt {
    fn from(message: Message) -> Self {
        message.into_delivered()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retried_message_shows_the_topic_it_was_sent_to() {
        let mut message = MessageExt::from(
            Message::new("%RETRY%g").body("x").raw_property(properties::RETRY_TOPIC, "orders"),
        );
        message.restore_topic("%RETRY%g");
        assert_eq!(message.topic(), "orders");
    }

    #[test]
    fn a_message_that_was_popped_before_shows_the_topic_it_was_sent_to() {
        for (topic, shown) in [
            ("%RETRY%g_orders", "orders"),
            ("%RETRY%other_orders", "%RETRY%other_orders"),
            ("orders", "orders"),
        ] {
            let mut message = MessageExt::from(Message::new(topic).body("x"));
            message.restore_popped_topic("g");
            assert_eq!(message.topic(), shown);
        }
    }

    #[test]
    fn the_namespace_is_not_shown() {
        let mut message = MessageExt::from(Message::new("ns%orders").body("x"));
        message.strip_namespace("ns");
        assert_eq!(message.topic(), "orders");
        message.strip_namespace("ns");
        assert_eq!(message.topic(), "orders");
    }

    #[test]
    fn a_forwarded_message_keeps_what_the_user_set_and_nothing_else() {
        let message = MessageExt::from(
            Message::new("a")
                .body("x")
                .tag("t")
                .key("k")
                .property("user", "u")
                .raw_property(properties::RETRY_TOPIC, "z"),
        );
        let forwarded = MessageExt::from(message.forward_to("b"));
        assert_eq!(forwarded.topic(), "b");
        assert_eq!(forwarded.tag(), Some("t"));
        assert_eq!(forwarded.property("user"), Some("u"));
        assert_eq!(forwarded.property(properties::RETRY_TOPIC), None);
    }
}
