//! Requests and replies: messages that name the client that waits, and the question that is answered.
//!
//! Source: `behaviour.md` section 2.9, `MessageUtil.createReplyMessage`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Message, MessageError, MessageExt, properties};

/// What [`properties::MESSAGE_TYPE`] is on a reply.
const REPLY: &str = "reply";
/// What a reply topic ends with; the cluster's name stands before it.
const REPLY_TOPIC_SUFFIX: &str = "_REPLY_TOPIC";

/// The topic of the replies that the brokers of `cluster` pass on.
pub(crate) fn reply_topic(cluster: &str) -> String {
    format!("{cluster}{REPLY_TOPIC_SUFFIX}")
}

impl MessageExt {
    /// Whether its sender waits for a reply.
    pub fn is_request(&self) -> bool {
        self.reply_properties().iter().all(|(_, value)| value.is_some())
    }

    /// The reply to this request, to be sent with [`Producer::send`](crate::Producer::send);
    /// [`Producer::reply`](crate::Producer::reply) does both. A listener that returns [`Reply`](crate::Reply) needs
    /// neither.
    ///
    /// ```no_run
    /// # async fn example(producer: rocketmq::Producer, request: &rocketmq::MessageExt) -> rocketmq::Result<()> {
    /// producer.send(request.reply("42")?.tag("answer")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`MessageError::NotARequest`] where nobody waits for a reply: Java's client error 10007.
    pub fn reply(&self, body: impl Into<Bytes>) -> Result<Message, MessageError> {
        Message::new("").body(body).in_reply_to(self)
    }

    /// Whether the time is over for which the requester said that it would wait, by the two clocks.
    pub(crate) fn is_request_over(&self, now: SystemTime) -> bool {
        let Some(ttl_ms) = self.property(properties::TTL).and_then(|ttl| ttl.parse().ok()) else {
            return false;
        };
        let born = Duration::from_millis(u64::try_from(self.born_timestamp_ms()).unwrap_or_default());
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        born.saturating_add(Duration::from_millis(ttl_ms)) <= now
    }

    /// Without one of these there is no way back.
    fn reply_properties(&self) -> [(&'static str, Option<&str>); 3] {
        [properties::REPLY_TO_CLIENT, properties::CORRELATION_ID, properties::CLUSTER]
            .map(|name| (name, self.property(name)))
    }
}

impl Message {
    /// The same as an answer to `request`: its topic becomes that of the replies, and it is not delayed.
    pub(crate) fn in_reply_to(mut self, request: &MessageExt) -> Result<Self, MessageError> {
        if let Some((missing, _)) = request.reply_properties().iter().find(|(_, value)| value.is_none()) {
            let (topic, message_id) = (request.topic().to_owned(), request.message_id().into_owned());
            return Err(MessageError::NotARequest { topic, message_id, missing });
        }
        for name in properties::DELAYS {
            properties::remove(&mut self.properties, name);
        }
        self.topic = reply_topic(request.property(properties::CLUSTER).unwrap_or_default());
        self.put_property(properties::MESSAGE_TYPE, REPLY);
        for name in [properties::CORRELATION_ID, properties::REPLY_TO_CLIENT, properties::TTL] {
            if let Some(value) = request.property(name) {
                self.put_property(name, value);
            }
        }
        Ok(self)
    }

    /// Whether it answers a request.
    pub(crate) fn is_reply(&self) -> bool {
        is_reply(&self.topic, &self.properties)
    }
}

/// Whether a message for `topic` with these properties answers a request. Cheap for all others.
pub(crate) fn is_reply(topic: &str, encoded: &str) -> bool {
    topic.ends_with(REPLY_TOPIC_SUFFIX) && properties::find(encoded, properties::MESSAGE_TYPE) == Some(REPLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [(&str, &str); 4] = [
        (properties::CORRELATION_ID, "7"),
        (properties::REPLY_TO_CLIENT, "10.0.0.1@1"),
        (properties::TTL, "3000"),
        (properties::CLUSTER, "c"),
    ];

    fn request(left_out: &str) -> MessageExt {
        let named = REQUEST.iter().filter(|(name, _)| *name != left_out);
        named
            .fold(Message::new("t").body("x"), |message, (name, value)| message.raw_property(name, value))
            .into()
    }

    #[test]
    fn a_reply_goes_back_to_who_asked() {
        let reply = request("").reply("y").unwrap();
        assert_eq!((reply.topic(), reply.get(properties::MESSAGE_TYPE)), ("c_REPLY_TOPIC", Some("reply")));
        for (name, value) in &REQUEST[..3] {
            assert_eq!(reply.get(name), Some(*value));
        }
        assert!(reply.is_reply() && request("").is_request());
        let delayed = Message::new("other").body("y").tag("a").delay_level(3);
        let reply = delayed.in_reply_to(&request("")).unwrap();
        assert_eq!((reply.topic(), reply.get(properties::DELAY)), ("c_REPLY_TOPIC", None));
        assert_eq!(reply.get(properties::TAGS), Some("a"));
    }

    #[test]
    fn a_message_that_names_no_way_back_is_no_request() {
        for name in [properties::CORRELATION_ID, properties::REPLY_TO_CLIENT, properties::CLUSTER] {
            let message = request(name);
            assert!(!message.is_request());
            let error = message.reply("y").unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("no request"), "{error}");
        }
        // A requester that waits for as long as it takes may say so by leaving it out.
        assert!(request(properties::TTL).is_request());
    }

    #[test]
    fn a_request_is_over_when_nobody_waits_any_more() {
        let message = request("");
        let born = UNIX_EPOCH + Duration::from_millis(message.born_timestamp_ms() as u64);
        assert!(!message.is_request_over(born + Duration::from_millis(2_999)));
        assert!(message.is_request_over(born + Duration::from_millis(3_000)));
        assert!(!request(properties::TTL).is_request_over(born + Duration::from_secs(9_999)));
    }
}
