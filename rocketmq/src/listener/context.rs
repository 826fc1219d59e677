//! Where a message came from and how often it did.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::{BadPayload, DelayLevel, Delivery, FromMessage, Shape};
use crate::message::MessageQueue;

/// The circumstances of a delivery. Of a batch, times and attempt are those of its first message.
///
/// Taking it costs one reference count. It keeps the delivered messages in memory as long as it lives.
#[derive(Clone)]
pub struct ConsumeContext {
    delivery: Delivery,
}

impl ConsumeContext {
    /// The consumer group.
    pub fn group(&self) -> &str {
        self.delivery.group()
    }

    /// The topic that the message was sent to.
    pub fn topic(&self) -> &str {
        self.delivery.topic()
    }

    /// The queue that the message was taken from; for one that is delivered again, a queue of the group's retry
    /// topic.
    pub fn queue(&self) -> &MessageQueue {
        self.delivery.queue()
    }

    /// How often the message has been delivered, this time included: 1 at the first time. An orderly group counts in
    /// the member that has the queue, and begins anew in the next one.
    pub fn attempt(&self) -> u32 {
        self.delivery.message().reconsume_times().saturating_add(1)
    }

    /// When the sender made the message, by its clock.
    pub fn born_time(&self) -> SystemTime {
        time_of(self.delivery.message().born_timestamp_ms())
    }

    /// When the broker stored this copy of the message, by its clock.
    pub fn store_time(&self) -> SystemTime {
        time_of(self.delivery.message().store_timestamp_ms())
    }

    /// Cancelled when the consumer stops: a listener that takes long should then come to an end.
    ///
    /// What it has not finished within `shutdown_timeout` is abandoned, and delivered again.
    pub fn shutdown_token(&self) -> &CancellationToken {
        self.delivery.shutdown_token()
    }

    /// When the message is to come again, should this attempt fail: what was asked for by
    /// [`set_delay_hint`](Self::set_delay_hint), here or in an `around`. `None`: after the group's `retry_delay`.
    pub fn delay_hint(&self) -> Option<DelayLevel> {
        self.delivery.delay_hint()
    }

    /// Asks for the next attempt after `level`, should this one fail by an error, a panic or
    /// [`ReconsumeLater`](crate::listener::ConsumeResult::ReconsumeLater); the last call counts. In Java:
    /// `context.setDelayLevelWhenNextConsume(level)`.
    ///
    /// For a group whose own `retry_delay` does not suit the case: `429 Too Many Requests` names a time to wait. In an
    /// orderly group the queue pauses for that time ([`DelayLevel::default_delay`]), 30 seconds at most.
    pub fn set_delay_hint(&self, level: DelayLevel) {
        self.delivery.set_delay_hint(level);
    }
}

impl FromMessage<'_> for ConsumeContext {
    const SHAPE: Shape = Shape::Neutral;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        Ok(Self { delivery: delivery.clone() })
    }
}

/// The circumstances of this delivery: for calling a listener in a test.
impl From<Delivery> for ConsumeContext {
    fn from(delivery: Delivery) -> Self {
        Self { delivery }
    }
}

impl fmt::Debug for ConsumeContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumeContext")
            .field("group", &self.group())
            .field("topic", &self.topic())
            .field("queue", &self.queue())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

/// What no clock can show (a broker may send any number) is the epoch.
fn time_of(unix_ms: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(unix_ms).unwrap_or_default());
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::listener::{Handler, Origin};
    use crate::message::{Message, MessageExt};

    #[test]
    fn a_context_shows_where_the_message_came_from() {
        let shutdown = CancellationToken::new();
        let queue = Arc::new(MessageQueue::new("%RETRY%g", "broker-a", 3));
        let origin = Arc::new(Origin::new("g".into(), queue, shutdown.clone()));
        let handler = Handler::from_fn("app::f", |_| async {});
        let message = MessageExt::from(Message::new("t").body("x"));
        let delivery = Delivery::new(message, &handler, &origin);

        let context = ConsumeContext::from_message(&delivery).unwrap();
        assert_eq!((context.group(), context.topic(), context.attempt()), ("g", "t", 1));
        assert_eq!(context.queue().to_string(), "%RETRY%g@broker-a#3");
        assert!(context.born_time() <= SystemTime::now() && UNIX_EPOCH < context.store_time());
        shutdown.cancel();
        assert!(context.shutdown_token().is_cancelled());
    }

    #[test]
    fn the_last_delay_hint_counts_and_the_consumer_sees_it() {
        let delivery = Delivery::from(MessageExt::from(Message::new("t").body("x")));
        let context = ConsumeContext::from_message(&delivery).unwrap();
        assert_eq!((context.delay_hint(), delivery.delay_hint()), (None, None));
        context.set_delay_hint(DelayLevel::S1);
        delivery.set_delay_hint(DelayLevel::H2);
        assert_eq!(
            (context.delay_hint(), delivery.delay_hint()),
            (Some(DelayLevel::H2), Some(DelayLevel::H2))
        );
    }

    #[test]
    fn no_timestamp_panics() {
        for unix_ms in [i64::MIN, -1, 0, i64::MAX] {
            assert!(UNIX_EPOCH <= time_of(unix_ms));
        }
    }
}
