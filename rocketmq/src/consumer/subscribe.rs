//! What is subscribed by hand, before the start and while the consumer runs. Source: `behaviour.md` section 3.2.

use std::sync::Arc;

use tokio::sync::oneshot;
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
    /// Once it has begun, the change is made to its end, also where the future is dropped: nobody hears then of an error.
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
            return shared.unsubscribe(topic.to_owned()).await;
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
        let shared = Arc::clone(self);
        self.to_the_end(Box::pin(async move {
            let _turn = shared.subscriptions.turn().await;
            let data = shared.subscriptions.data_of(&topic, &filter);
            let on_wire: Arc<str> = data.topic.as_str().into();
            // A topic that does not exist yet is looked for with every rebalance.
            if let Err(error) = shared.client.route(&on_wire).await {
                debug!(group = %shared.group, %topic, %error, "no route of a topic that is being subscribed");
            }
            let place = handler.name().to_owned();
            let checked = shared.client.check_filter(&shared.group, &data).await;
            checked.map_err(|reason| Error::consumer(&shared.group, format!("{place}: {reason}")))?;
            if let Some(pop) = &shared.pop {
                shared.prepare_brokers(pop, [&on_wire]).await?;
            }
            info!(group = %shared.group, %topic, %filter, "subscribed");
            shared.subscriptions.subscribe(Subscription { topic, filter, handler, place });
            // Before the first pull: brokers refuse those of what they have not heard of.
            shared.client.heartbeat_all().await;
            for owned in shared.owned().into_iter().filter(|owned| owned.queue.topic == on_wire) {
                owned.room.notify_one();
            }
            if let Some(pop) = &shared.pop {
                Pop::give_up_pops(pop.queues_of(&on_wire)).await;
            }
            shared.wake.notify_one();
            Ok(())
        }))
    }

    fn unsubscribe(self: &Arc<Self>, topic: String) -> Boxed<'_, Result<bool>> {
        let shared = Arc::clone(self);
        self.to_the_end(Box::pin(async move {
            let _turn = shared.subscriptions.turn().await;
            let Some(topic) = shared.subscriptions.unsubscribe(&topic) else { return Ok(false) };
            info!(group = %shared.group, %topic, "unsubscribed");
            let popped: Vec<_> = shared.pop.iter().flat_map(|pop| pop.queues_of(&topic)).collect();
            shared.leave_unsubscribed();
            Pop::give_up_pops(popped).await;
            shared.client.heartbeat_all().await;
            // A round that began before may have taken queues of it.
            shared.wake.notify_one();
            Ok(true)
        }))
    }

    /// Makes a change to its end, also where nobody waits for that any more: as long as pops wait at brokers that choose by the
    /// expression of before, they pass over messages for the whole group.
    fn to_the_end<T: Send + 'static>(&self, change: Boxed<'static, Result<T>>) -> Boxed<'_, Result<T>> {
        Box::pin(async move {
            let (stopping, (sender, done)) = (self.stopping().clone(), oneshot::channel());
            self.pulling.spawn("change what is subscribed", async move {
                if let Some(changed) = stopping.run_until_cancelled(change).await {
                    // Whoever asked for it may have given up.
                    let _ = sender.send(changed);
                }
            });
            let stopped = || Err(Error::consumer(&self.group, "it is being shut down"));
            done.await.unwrap_or_else(|_| stopped())
        })
    }

    /// The version of what is subscribed of the topic of a queue, if it is.
    pub(super) fn version_of(&self, owned: &OwnedQueue) -> Option<i64> {
        self.subscriptions.table().version(&owned.queue.topic)
    }
}
