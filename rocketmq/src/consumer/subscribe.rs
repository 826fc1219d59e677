//! What is subscribed by hand, before the start and while the consumer runs. Source: `behaviour.md` section 3.2.

use std::sync::Arc;

use tracing::{debug, info};

use super::pop::Pop;
use super::queue::OwnedQueue;
use super::{PushConsumer, Shared, Subscription};
use crate::client::ServiceState;
use crate::error::{Error, Result};
use crate::listener::{Filter, Handler, IntoConsumeResult};
use crate::message::MessageExt;
use crate::tasks::Boxed;

impl PushConsumer {
    /// Subscribes the messages of `topic` that match `filter`, for the listener of
    /// [`register_message_listener`](Self::register_message_listener).
    ///
    /// While the consumer runs, this comes in the place of all that was subscribed of the topic. It returns once brokers have
    /// heard of it; what waits here already still goes to the listener that it came for. The queues of a new topic are taken
    /// with the rebalance that follows. Where messages are popped, the pops that wait at brokers are given up before this returns:
    /// they would choose by the expression of before.
    ///
    /// All members of a group have to do the same: brokers believe the one that they heard last.
    ///
    /// # Errors
    ///
    /// Where the topic or the filter is none, or the consumer was shut down. While it runs, also where it has no such
    /// listener, or a broker does not filter by this expression: in its own words, and nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// Where the future is dropped, the subscription may have changed or not; brokers then hear of it with the next
    /// heartbeat.
    pub async fn subscribe(&self, topic: impl Into<Arc<str>>, filter: impl Into<Filter>) -> Result<()> {
        let (topic, filter) = self.checked(topic.into(), filter.into())?;
        let Some(shared) = self.running("subscribe")? else {
            self.wishes().plain.push((topic, filter));
            return Ok(());
        };
        let handler = self.wishes().listener.clone().ok_or_else(|| {
            let advice = "it has no listener for all topics: call `subscribe_with`, or `register_message_listener` before the start";
            Error::consumer(self.group(), advice)
        })?;
        shared.subscribe(topic, filter, handler).await
    }

    /// The same for a listener of this topic alone: a function from a list of messages (at most the group's `batch`) to what
    /// became of them.
    ///
    /// # Errors
    ///
    /// As with [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    ///
    /// As with [`subscribe`](Self::subscribe).
    pub async fn subscribe_with<F, Fut>(
        &self,
        topic: impl Into<Arc<str>>,
        filter: impl Into<Filter>,
        listener: F,
    ) -> Result<()>
    where
        F: Fn(Vec<MessageExt>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoConsumeResult> + Send + 'static,
    {
        let (topic, filter) = self.checked(topic.into(), filter.into())?;
        let place = format!("the listener of {topic} for {filter}");
        let handler = Handler::from_fn(place.clone(), listener).within(self.wishes().arounds.clone());
        match self.running("subscribe")? {
            Some(shared) => shared.subscribe(topic, filter, handler).await,
            None => {
                self.wishes().subscriptions.push(Subscription { topic, filter, handler, place });
                Ok(())
            }
        }
    }

    /// Takes nothing more of `topic`; whether it was subscribed.
    ///
    /// From now on no listener is called with new messages of it. Those that are at work finish, for `shutdown_timeout` at
    /// most, and then the offsets are stored from which the group goes on once the topic is subscribed again. This does not
    /// wait for that: a listener may call it.
    ///
    /// A message of it that failed before and is delivered again still goes to the listener that it had; where those were
    /// several, to the dead letter queue. What was popped and failed waits until the topic is subscribed again.
    ///
    /// # Errors
    ///
    /// Where the consumer was shut down.
    ///
    /// # Cancel safety
    ///
    /// As with [`subscribe`](Self::subscribe).
    pub async fn unsubscribe(&self, topic: &str) -> Result<bool> {
        if let Some(shared) = self.running("unsubscribe")? {
            return Ok(shared.unsubscribe(topic).await);
        }
        let mut wishes = self.wishes();
        let before = wishes.plain.len() + wishes.subscriptions.len();
        wishes.plain.retain(|(wish, _)| wish.as_ref() != topic);
        wishes.subscriptions.retain(|wish| wish.topic.as_ref() != topic);
        Ok(wishes.plain.len() + wishes.subscriptions.len() < before)
    }

    fn checked(&self, topic: Arc<str>, filter: Filter) -> Result<(Arc<str>, Filter)> {
        crate::config::check_topic(&topic).map_err(|error| Error::consumer(self.group(), error))?;
        filter.check().map_err(|error| Error::consumer(self.group(), error))?;
        Ok((topic, filter))
    }

    /// What is at work, unless the consumer is still to be started.
    fn running(&self, action: &'static str) -> Result<Option<&Arc<Shared>>> {
        if self.inner.state.get() == ServiceState::Running {
            return Ok(self.inner.running.get());
        }
        self.inner.state.expect(ServiceState::CreateJust, self, action)?;
        Ok(None)
    }
}

// Boxed, as an async fn is compiled where it is awaited.
impl Shared {
    fn subscribe(
        self: &Arc<Self>,
        topic: Arc<str>,
        filter: Filter,
        handler: Handler,
    ) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let _turn = self.subscriptions.turn().await;
            let data = self.subscriptions.data_of(&topic, &filter);
            let on_wire: Arc<str> = data.topic.as_str().into();
            // A topic that does not exist yet is looked for with every rebalance.
            if let Err(error) = self.client.route(&on_wire).await {
                debug!(group = %self.group, %topic, %error, "no route of a topic that is being subscribed");
            }
            let place = handler.name().to_owned();
            let checked = self.client.check_filter(&self.group, &data).await;
            checked.map_err(|reason| Error::consumer(&self.group, format!("{place}: {reason}")))?;
            if let Some(pop) = &self.pop {
                self.prepare_brokers(pop, [&on_wire]).await?;
            }
            info!(group = %self.group, %topic, %filter, "subscribed");
            self.subscriptions.subscribe(Subscription { topic, filter, handler, place });
            // Before the first pull: brokers refuse those of what they have not heard of.
            self.client.heartbeat_all().await;
            for owned in self.owned().into_iter().filter(|owned| owned.queue.topic == on_wire) {
                owned.room.notify_one();
            }
            if let Some(pop) = &self.pop {
                Pop::give_up_pops(pop.queues_of(&on_wire)).await;
            }
            self.wake.notify_one();
            Ok(())
        })
    }

    fn unsubscribe<'a>(self: &'a Arc<Self>, topic: &'a str) -> Boxed<'a, bool> {
        Box::pin(async move {
            let _turn = self.subscriptions.turn().await;
            let Some(topic) = self.subscriptions.unsubscribe(topic) else { return false };
            info!(group = %self.group, %topic, "unsubscribed");
            let popped: Vec<_> = self.pop.iter().flat_map(|pop| pop.queues_of(&topic)).collect();
            self.leave_unsubscribed();
            Pop::give_up_pops(popped).await;
            self.client.heartbeat_all().await;
            // A round that began before may have taken queues of it.
            self.wake.notify_one();
            true
        })
    }

    /// The version of what is subscribed of the topic of a queue, if it is.
    pub(super) fn version_of(&self, owned: &OwnedQueue) -> Option<i64> {
        self.subscriptions.table().version(&owned.queue.topic)
    }
}
