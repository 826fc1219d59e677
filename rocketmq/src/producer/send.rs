//! The ways of sending.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::accumulator::Key;
use super::deliver::Target;
use super::in_flight::OnItsWay;
use super::prepare::Item;
use super::running::Running;
use super::stats::{Amount, Topic};
use super::{Producer, SendError, SendResult, batch, queue_choice};
use crate::client::namespace;
use crate::message::{Message, MessageError, MessageQueue, properties};

impl Producer {
    /// Sends a message and waits until a broker has stored it.
    ///
    /// A broker that fails is left for another one, up to `retries` times, all within `send_timeout`. A message with a
    /// [sharding key](Message::sharding_key) goes to the queue of its key, as with
    /// [`send_ordered`](Self::send_ordered). Where `max_in_flight` other messages are on their way, this one waits for
    /// its turn.
    ///
    /// # Errors
    ///
    /// Where the message cannot be sent as it is, the queues of its topic are not known, or no broker stored it in
    /// time. Nothing is reported as sent that no broker confirmed; the reverse may happen (see [`SendError::Failed`] and
    /// [`SendError::TimedOut`]).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up waiting, not the message: what has left the process may be stored, and what waits in
    /// a batch leaves with it. Connections are not harmed, and other sends do not notice.
    pub async fn send(&self, message: Message) -> Result<SendResult, SendError> {
        let running = self.running()?;
        Call::begin(running, message)?.send(None).await
    }

    /// Sends a message to this queue of its topic; [`queues`](Self::queues) says which ones there are.
    ///
    /// There is one attempt: what the queue is chosen for, such as an order, a retry might break.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and a queue of another topic.
    ///
    /// # Cancel safety
    ///
    /// That of [`send`](Self::send).
    pub async fn send_to(&self, queue: &MessageQueue, message: Message) -> Result<SendResult, SendError> {
        let running = self.running()?;
        let call = Call::begin(running, message)?;
        let target = call.only(queue)?;
        call.send(Some(target)).await
    }

    /// Sends a message to the queue that all messages with this key go to, so that they are consumed in the order in
    /// which they were sent; send the next one when this one has succeeded.
    ///
    /// The same as [`send`](Self::send) of a message with that [sharding key](Message::sharding_key). The key's queue
    /// is that of Java's `SelectMessageQueueByHash`. There is one attempt, and never another queue: a message that
    /// failed may be sent again, before those that follow it.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// That of [`send`](Self::send).
    pub async fn send_ordered(
        &self,
        message: Message,
        sharding_key: impl AsRef<str>,
    ) -> Result<SendResult, SendError> {
        self.send(message.sharding_key(sharding_key)).await
    }

    /// Sends a message to the queue that `selector` chooses among those of its topic. There is one attempt.
    ///
    /// ```no_run
    /// # async fn example(producer: rocketmq::Producer, message: rocketmq::Message) -> Result<(), rocketmq::SendError> {
    /// producer.send_with(message, |queues, message| queues.get(message.payload().len() % queues.len())).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and a selector that chooses nothing.
    ///
    /// # Cancel safety
    ///
    /// That of [`send`](Self::send).
    pub async fn send_with(
        &self,
        message: Message,
        selector: impl for<'a> FnOnce(&'a [MessageQueue], &Message) -> Option<&'a MessageQueue>,
    ) -> Result<SendResult, SendError> {
        let running = self.running()?;
        let call = Call::begin(running, message)?;
        let queues = running.queues(&call.topic, call.deadline).await?;
        let chosen = selector(&queues, &call.message).ok_or_else(|| SendError::NoQueueSelected {
            topic: call.topic.name.to_string(),
            queues: queues.len(),
        })?;
        let target = call.only(chosen)?;
        call.send(Some(target)).await
    }

    /// Sends a message without waiting for an answer, and returns when the connection to a broker has taken it.
    ///
    /// The fastest way, for what may be lost: nobody learns whether a broker has stored the message.
    ///
    /// # Errors
    ///
    /// Where the message cannot be sent as it is, the queues of its topic are not known, or no connection took it in
    /// time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up waiting for the connection, and maybe the message.
    pub async fn send_oneway(&self, message: Message) -> Result<(), SendError> {
        let running = self.running()?;
        Call::begin(running, message)?.send_oneway().await
    }

    /// Sends messages of one topic together to one queue, and waits until a broker has stored them: all of them, next to
    /// each other, or none. Returns their results in their order.
    ///
    /// Much cheaper than as many sends. The bodies are not compressed. A broker that fails is left for another one, as
    /// with [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and messages that cannot travel together: of several topics or sharding keys, some
    /// of which wait until they are stored while others do not, delayed ones, or more bytes than `max_message`.
    ///
    /// # Cancel safety
    ///
    /// That of [`send`](Self::send).
    pub async fn send_batch(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<SendResult>, SendError> {
        let running = self.running()?;
        let began = Instant::now();
        let messages: Vec<Message> =
            messages.into_iter().map(|message| running.complete(message)).collect::<Result<_, _>>()?;
        let (name, key) = {
            let first = batch::check(&messages)?;
            (first.topic().to_owned(), first.get(properties::SHARDING_KEY).map(str::to_owned))
        };
        let bytes = messages.iter().map(|message| message.payload().len()).sum();
        let (topic, amount) = (running.topics.get(&name), Amount { messages: messages.len(), bytes });
        let sent = running.send_batch(&topic, key.as_deref(), messages, amount, began).await;
        topic.count(amount, began.elapsed(), &sent);
        sent
    }

    /// The queues of a topic that messages can be sent to, in an order that all producers share.
    ///
    /// # Errors
    ///
    /// Where they are not known, and no name server says which they are.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, SendError> {
        let running = self.running()?;
        let deadline = Instant::now() + running.config.send_timeout;
        running.queues(&running.topics.get(topic), deadline).await
    }
}

/// One message that its sender waits for.
pub(super) struct Call<'a> {
    running: &'a Arc<Running>,
    pub(super) topic: Arc<Topic>,
    message: Message,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
}

impl<'a> Call<'a> {
    pub(super) fn begin(running: &'a Arc<Running>, message: Message) -> Result<Self, SendError> {
        Self::begin_within(running, message, running.config.send_timeout)
    }

    /// The same with so much time for the sending.
    pub(super) fn begin_within(
        running: &'a Arc<Running>,
        message: Message,
        limit: Duration,
    ) -> Result<Self, SendError> {
        let began = Instant::now();
        let message = running.complete(message)?;
        let topic = running.topics.of(&message);
        Ok(Self { running, topic, message, began, deadline: began + limit })
    }

    /// This queue, if it is one of the message's topic.
    pub(super) fn only(&self, queue: &MessageQueue) -> Result<Target, SendError> {
        let namespace = self.running.client.config().namespace.as_deref();
        let topic = namespace::wrap(namespace, &queue.topic);
        if topic != self.topic.wire_name {
            let (queue, topic) = (queue.to_string(), self.topic.name.to_string());
            return Err(MessageError::WrongQueue { queue, topic }.into());
        }
        Ok(Target::Only(MessageQueue::new(topic, Arc::clone(&queue.broker_name), queue.queue_id)))
    }

    /// Sends the message, to `queue` if that is given.
    pub(super) async fn send(self, queue: Option<Target>) -> Result<SendResult, SendError> {
        let (topic, amount, began) = (Arc::clone(&self.topic), self.amount(), self.began);
        let sent = self.send_uncounted(queue).await;
        topic.count(amount, began.elapsed(), &sent);
        sent
    }

    async fn send_uncounted(self, queue: Option<Target>) -> Result<SendResult, SendError> {
        let (target, on_its_way) = self.ready(queue).await?;
        let Self { running, topic, message, deadline, .. } = self;
        if running.is_batched(&message) {
            let key = Key::of(&message, &topic, target);
            return running.accumulate(key, topic, running.item(message)?, on_its_way, deadline).await;
        }
        running.send_item(&topic, target, running.item(message)?, deadline).await
    }

    async fn send_oneway(self) -> Result<(), SendError> {
        let (topic, amount) = (Arc::clone(&self.topic), self.amount());
        let sent = self.send_oneway_uncounted().await;
        topic.count_oneway(amount, &sent);
        sent
    }

    async fn send_oneway_uncounted(self) -> Result<(), SendError> {
        let (target, _on_its_way) = self.ready(None).await?;
        let Self { running, topic, message, deadline, .. } = self;
        let prepared = running.prepare(&topic.wire_name, running.item(message)?).await;
        running.deliver_oneway(&topic, prepared, target, deadline).await
    }

    /// Finds out where the message may go, and waits for its turn.
    async fn ready(&self, queue: Option<Target>) -> Result<(Target, OnItsWay), SendError> {
        let target = match queue {
            Some(target) => target,
            None => {
                let key = self.message.system(properties::SHARDING_KEY);
                self.running.target_of(&self.topic, key, self.deadline).await?
            }
        };
        let on_its_way = self.running.admit(&self.topic, self.amount(), self.deadline).await?;
        Ok((target, on_its_way))
    }

    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    pub(super) fn amount(&self) -> Amount {
        Amount { messages: 1, bytes: self.message.payload().len() }
    }
}

impl Running {
    async fn send_batch(
        &self,
        topic: &Topic,
        sharding_key: Option<&str>,
        messages: Vec<Message>,
        amount: Amount,
        began: Instant,
    ) -> Result<Vec<SendResult>, SendError> {
        let items: Vec<Item> =
            messages.into_iter().map(|message| self.item(message)).collect::<Result<_, _>>()?;
        let (len, limit) = (items.iter().map(Item::size).sum(), self.config.max_message.as_usize());
        if limit < len {
            return Err(MessageError::BatchTooLarge { len, limit, messages: items.len() }.into());
        }
        let deadline = began + self.config.send_timeout;
        let target = self.target_of(topic, sharding_key, deadline).await?;
        let _on_its_way = self.admit(topic, amount, deadline).await?;
        self.send_items(topic, target, items, deadline).await
    }

    /// Sends several messages together; one alone is no batch.
    pub(super) async fn send_items(
        &self,
        topic: &Topic,
        target: Target,
        mut items: Vec<Item>,
        deadline: Instant,
    ) -> Result<Vec<SendResult>, SendError> {
        if items.len() == 1
            && let Some(only) = items.pop()
        {
            return self.send_item(topic, target, only, deadline).await.map(|result| vec![result]);
        }
        let (prepared, ids) = self.prepare_batch(&topic.wire_name, items);
        let sent = self.deliver(topic, prepared, target, deadline).await?;
        Ok(sent.split(ids))
    }

    async fn send_item(
        &self,
        topic: &Topic,
        target: Target,
        item: Item,
        deadline: Instant,
    ) -> Result<SendResult, SendError> {
        let prepared = self.prepare(&topic.wire_name, item).await;
        self.deliver(topic, prepared, target, deadline).await
    }

    /// The queue of a sharding key, or any.
    async fn target_of(
        &self,
        topic: &Topic,
        sharding_key: Option<&str>,
        deadline: Instant,
    ) -> Result<Target, SendError> {
        let Some(key) = sharding_key else { return Ok(Target::Any) };
        let route = self.publish_route(topic, deadline).await?;
        let queue = queue_choice::of_key(&route.publish, key);
        // A route without queues is none.
        Ok(queue.map_or(Target::Any, |queue| Target::Only(queue.clone())))
    }

    /// The queues that can be written, with the topic as the sender knows it.
    async fn queues(&self, topic: &Topic, deadline: Instant) -> Result<Vec<MessageQueue>, SendError> {
        let route = self.publish_route(topic, deadline).await?;
        let queues = route.publish.iter();
        Ok(queues.map(|queue| MessageQueue { topic: Arc::clone(&topic.name), ..queue.clone() }).collect())
    }
}
