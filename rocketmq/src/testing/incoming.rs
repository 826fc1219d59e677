//! What a listener is called with, made by hand.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::listener::{ConsumeContext, Delivery, Handler, Origin, SharedState, StateMap};
use crate::message::{Message, MessageExt, MessageQueue};

/// A message as if it had come from a broker: for calling a listener, or an `around`, without a server.
///
/// ```
/// use rocketmq::testing::Incoming;
/// use rocketmq::{ConsumeContext, ConsumeResult, Message, MessageExt};
///
/// # #[rocketmq::listener(group = "orders", topic = "order-events")]
/// async fn on_audit(message: &MessageExt, context: ConsumeContext) -> ConsumeResult {
///     if context.attempt() > 3 { ConsumeResult::DeadLetter } else { ConsumeResult::Success }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let incoming = Incoming::new(Message::new("order-events").body("42")).group("orders").attempt(4);
/// assert_eq!(on_audit(&incoming.message(), incoming.context()).await, ConsumeResult::DeadLetter);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is called before you do"]
pub struct Incoming {
    message: MessageExt,
    group: Arc<str>,
    listener: Arc<str>,
    queue: Option<MessageQueue>,
    shutdown: CancellationToken,
    state: StateMap,
}

impl Incoming {
    /// The message as its consumer would get it: at its first attempt, from queue 0 of its topic.
    pub fn new(message: Message) -> Self {
        Self {
            message: message.into(),
            group: "test".into(),
            listener: "test".into(),
            queue: None,
            shutdown: CancellationToken::new(),
            state: StateMap::default(),
        }
    }

    /// The group that it is delivered to; default `test`.
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.group = group.into();
        self
    }

    /// The listener that it is delivered to, as an `around` sees it; default `test`.
    pub fn listener(mut self, listener: impl Into<Arc<str>>) -> Self {
        self.listener = listener.into();
        self
    }

    /// How often it has been delivered, this time included; default 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.message.set_reconsume_times(attempt.saturating_sub(1));
        self
    }

    /// The queue that it comes from.
    pub fn queue(mut self, queue: MessageQueue) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Cancelled when the consumer stops; default: never.
    pub fn shutdown(mut self, shutdown: CancellationToken) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// A value that an argument or an `around` takes as `State<T>`.
    pub fn state<T: SharedState>(mut self, value: T) -> Self {
        self.state.insert(value);
        self
    }

    /// The message.
    pub fn message(&self) -> MessageExt {
        self.message.clone()
    }

    /// The circumstances of its delivery.
    pub fn context(self) -> ConsumeContext {
        ConsumeContext::from(self.delivery())
    }

    /// Its delivery: for [`FromMessage::from_message`](crate::FromMessage::from_message).
    pub fn delivery(self) -> Delivery {
        let Self { message, group, listener, queue, shutdown, state } = self;
        let queue = queue.unwrap_or_else(|| message.message_queue());
        let handler = Handler::from_fn(listener, |_| async {}).with_state(Arc::new(state));
        let origin = Arc::new(Origin::new(group, Arc::new(queue), shutdown));
        Delivery::new(message, &handler, &origin)
    }
}
