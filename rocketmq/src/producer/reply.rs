//! Answering requests: by hand, and for listeners that return a reply.
//!
//! Source: `behaviour.md` section 2.9.

use std::sync::Arc;

use super::deliver::Target;
use super::running::Running;
use super::send::Call;
use super::{Hooks, Producer, SendError};
use crate::client::{INNER_PRODUCER, MqClient};
use crate::config::ProducerConfig;
use crate::listener::IntoReply;
use crate::message::{Message, MessageExt};

impl Producer {
    /// Answers a request, and waits until its requester has the reply. For consumers that answer by hand: a listener
    /// may return [`Reply`](crate::Reply) instead.
    ///
    /// # Errors
    ///
    /// A message that is no request, and those of [`send`](Self::send). A broker refuses with `SYSTEM_ERROR` where the
    /// requester is gone, or not connected to it.
    ///
    /// # Cancel safety
    ///
    /// That of [`send`](Self::send).
    pub async fn reply(&self, request: &MessageExt, reply: impl IntoReply) -> Result<(), SendError> {
        self.running()?.reply(request, reply.into_reply()).await
    }
}

impl Running {
    /// Answers a request: through the broker that it came from if that will do, for its requester is connected there.
    async fn reply(self: &Arc<Self>, request: &MessageExt, reply: Message) -> Result<(), SendError> {
        let reply = reply.in_reply_to(request)?;
        let target = match request.broker_name() {
            "" => Target::Any,
            broker => Target::First(broker.into()),
        };
        Call::begin(self, reply)?.send(Some(target)).await?;
        Ok(())
    }
}

/// What sends the replies of a consumer's listeners: the producer that every client has.
#[derive(Debug)]
pub(crate) struct Replier(Arc<Running>);

impl Replier {
    pub(crate) fn new(client: Arc<MqClient>) -> Self {
        let (config, hooks) = (ProducerConfig::default(), Hooks::default());
        Self(Running::start(client, INNER_PRODUCER.into(), config, hooks, None))
    }

    /// Answers a request, and waits until its requester has the reply.
    pub(crate) async fn reply(&self, request: &MessageExt, reply: Message) -> Result<(), SendError> {
        self.0.reply(request, reply).await
    }
}
