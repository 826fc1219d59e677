//! What a handler is called with.

use std::fmt;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

use super::{DelayLevel, Handler};
use crate::message::{MessageExt, MessageQueue};

/// One call of a listener: the message or the batch, and where it came from.
///
/// A clone is another handle to the same delivery and costs one reference count; so the consumer keeps one while the
/// handler has another, and still knows the messages after a panic.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    first: MessageExt,
    /// All messages, `first` among them, where there are several: a delivery is never empty, and that of one message
    /// takes no list.
    batch: Vec<MessageExt>,
    handler: Handler,
    origin: Arc<Origin>,
    /// The level that the listener asked for; 0 is none.
    delay_hint: AtomicU8,
}

/// Where messages come from; made once for each queue.
#[derive(Debug)]
pub(crate) struct Origin {
    group: Arc<str>,
    queue: Arc<MessageQueue>,
    shutdown: CancellationToken,
}

impl Origin {
    /// `shutdown` is cancelled when the listeners of the group should come to an end.
    pub(crate) fn new(group: Arc<str>, queue: Arc<MessageQueue>, shutdown: CancellationToken) -> Self {
        Self { group, queue, shutdown }
    }

    /// The queue as listeners see it.
    #[cfg(feature = "testing")]
    pub(crate) fn queue(&self) -> &Arc<MessageQueue> {
        &self.queue
    }
}

impl Delivery {
    /// One message for `handler`.
    pub(crate) fn new(message: MessageExt, handler: &Handler, origin: &Arc<Origin>) -> Self {
        Self::of(message, Vec::new(), handler, origin)
    }

    /// All of `messages` for `handler`; `None` where there are none.
    pub(crate) fn batch(
        mut messages: Vec<MessageExt>,
        handler: &Handler,
        origin: &Arc<Origin>,
    ) -> Option<Self> {
        let first = if messages.len() == 1 { messages.pop()? } else { messages.first()?.clone() };
        Some(Self::of(first, messages, handler, origin))
    }

    fn of(first: MessageExt, batch: Vec<MessageExt>, handler: &Handler, origin: &Arc<Origin>) -> Self {
        let (handler, origin) = (handler.clone(), Arc::clone(origin));
        Self(Arc::new(Inner { first, batch, handler, origin, delay_hint: AtomicU8::new(0) }))
    }

    /// The messages: at least one, and exactly one unless the listener takes a batch.
    pub fn messages(&self) -> &[MessageExt] {
        if self.0.batch.is_empty() { slice::from_ref(&self.0.first) } else { &self.0.batch }
    }

    /// The message; the first one of a batch.
    pub fn message(&self) -> &MessageExt {
        &self.0.first
    }

    /// The consumer group.
    pub fn group(&self) -> &str {
        &self.0.origin.group
    }

    /// The topic that the message was sent to.
    pub fn topic(&self) -> &str {
        self.message().topic()
    }

    /// The queue that the message was taken from; for one that is delivered again, a queue of the group's retry
    /// topic.
    pub fn queue(&self) -> &MessageQueue {
        &self.0.origin.queue
    }

    /// The listener that is called, for example `app::on_order`.
    pub fn listener(&self) -> &str {
        self.0.handler.name()
    }

    /// Where that listener stands in the source, for example `src/main.rs:12`; `None` for one that is not annotated.
    pub fn place(&self) -> Option<&str> {
        self.0.handler.place()
    }

    /// How often the message (the first one of a batch) has been delivered, this time included: 1 at the first time.
    pub fn attempt(&self) -> u32 {
        self.message().reconsume_times().saturating_add(1)
    }

    /// The value of type `T` that was given to the builder.
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.0.handler.state().get()
    }

    /// When the messages are to come again, should the listener fail: what was asked for by
    /// [`set_delay_hint`](Self::set_delay_hint). `None`: after the group's `retry_delay`.
    pub fn delay_hint(&self) -> Option<DelayLevel> {
        DelayLevel::new(self.0.delay_hint.load(Ordering::Relaxed)).ok()
    }

    /// Asks for the next attempt after `level`, should this one fail: see
    /// [`ConsumeContext::set_delay_hint`](super::ConsumeContext::set_delay_hint).
    pub fn set_delay_hint(&self, level: DelayLevel) {
        // Relaxed: the consumer reads it after the handler's end, which orders the two.
        self.0.delay_hint.store(level.get(), Ordering::Relaxed);
    }

    pub(super) fn shutdown_token(&self) -> &CancellationToken {
        &self.0.origin.shutdown
    }

    /// Messages that no consumer delivers.
    #[cfg(test)]
    pub(super) fn detached(messages: Vec<MessageExt>) -> Option<Self> {
        let mut messages = messages.into_iter();
        let delivery = Self::from(messages.next()?);
        let Inner { first, handler, origin, .. } = &*delivery.0;
        let batch = [first.clone()].into_iter().chain(messages).collect();
        Self::batch(batch, handler, origin)
    }
}

/// A delivery without group, queue and state: for testing a [`FromMessage`](crate::listener::FromMessage) of your
/// own.
impl From<MessageExt> for Delivery {
    fn from(message: MessageExt) -> Self {
        let handler = Handler::from_fn("", |_| async {});
        let queue = Arc::new(message.message_queue());
        let origin = Arc::new(Origin::new("".into(), queue, CancellationToken::new()));
        Self::new(message, &handler, &origin)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("listener", &self.listener())
            .field("group", &self.group())
            .field("queue", self.queue())
            .field("messages", &self.messages())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    #[test]
    fn a_delivery_is_never_empty() {
        assert!(Delivery::detached(Vec::new()).is_none());
        for count in 1..=3 {
            let messages = (0..count).map(|n| MessageExt::from(Message::new("t").body(n.to_string())));
            let delivery = Delivery::detached(messages.collect()).unwrap();
            assert_eq!(delivery.messages().len(), count);
            assert_eq!(delivery.message().body_str(), "0");
            assert_eq!(delivery.messages()[count - 1].body_str(), (count - 1).to_string());
        }
    }

    #[test]
    fn a_delivery_can_be_handed_to_another_task() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Delivery>();
        check::<Handler>();
    }
}
