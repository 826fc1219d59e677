//! The messages of a lite pull consumer as a stream.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio_util::sync::ReusableBoxFuture;

use super::LitePullConsumer;
use super::running::Running;
use crate::message::MessageExt;

/// A stream of messages, made by [`LitePullConsumer::messages`].
///
/// It ends when the consumer is shut down. A message is consumed when the stream is asked for the next one; the last
/// one when the consumer is polled again.
pub struct Messages<'a> {
    running: Arc<Running>,
    next: ReusableBoxFuture<'a, (&'a mut LitePullConsumer, Option<MessageExt>)>,
}

impl<'a> Messages<'a> {
    pub(super) fn new(consumer: &'a mut LitePullConsumer, running: Arc<Running>) -> Self {
        let next = ReusableBoxFuture::new(next_of(consumer, Arc::clone(&running)));
        Self { running, next }
    }

    /// The next message; `None` once the consumer is shut down.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped before it is done.
    pub async fn next(&mut self) -> Option<MessageExt> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Messages<'_> {
    type Item = MessageExt;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<MessageExt>> {
        let this = self.get_mut();
        let (consumer, message) = ready!(this.next.poll(context));
        // It does nothing, and so acknowledges nothing, before it is polled.
        this.next.set(next_of(consumer, Arc::clone(&this.running)));
        Poll::Ready(message)
    }
}

async fn next_of(
    consumer: &mut LitePullConsumer,
    running: Arc<Running>,
) -> (&mut LitePullConsumer, Option<MessageExt>) {
    let message = consumer.next_message(&running).await;
    (consumer, message)
}

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("group", &self.running.group).finish_non_exhaustive()
    }
}
