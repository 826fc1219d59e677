//! How a consumer is made by hand.

use std::sync::Arc;

use super::allocate::AllocateStrategy;
use super::queue_listener::OnQueues;
use super::{ConsumeHook, ConsumeHooks, FilterHook, PushConsumer, QueueChange, Subscription, Way, Wishes};
use crate::config::{ClusterConfig, ConsumerConfig, NameServers, check_group, check_topic};
use crate::error::{Error, Result};
use crate::listener::{Around, Delivery, Filter, Handler, IntoConsumeResult, Next, Outcome};
use crate::message::MessageExt;

/// A consumer that is being put together.
///
/// Mistakes are remembered and reported by [`build`](Self::build) or [`create`](Self::create).
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct PushConsumerBuilder {
    group: String,
    config: ConsumerConfig,
    orderly: bool,
    broadcasting: bool,
    cluster: Option<ClusterConfig>,
    subscriptions: Vec<Subscription>,
    hooks: ConsumeHooks,
    on_queues: OnQueues,
    arounds: Vec<Around>,
}

impl PushConsumerBuilder {
    pub(super) fn new(group: String) -> Self {
        let config = ConsumerConfig::default();
        Self {
            group,
            config,
            orderly: false,
            broadcasting: false,
            cluster: None,
            subscriptions: Vec::new(),
            hooks: ConsumeHooks::default(),
            on_queues: OnQueues::default(),
            arounds: Vec::new(),
        }
    }

    /// Sets how the group pulls, hands over and retries; what the file has under `groups:`.
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// Consumes in order: the messages of a queue are handled one after the other (or one batch after the other), each
    /// until it succeeds or is given up, by one member of the group at a time.
    ///
    /// For messages that belong together and were sent to the same queue. A message that fails holds up its queue: it
    /// pauses for the group's `suspend` and goes on with the same message, `max_reconsume` times, or without end where
    /// that is not set. Queues do not wait for each other. All members of the group have to consume in order.
    ///
    /// What the Java client does with a `MessageListenerOrderly`. Source: `behaviour.md` section 3.8.
    pub fn orderly(mut self) -> Self {
        self.orderly = true;
        self
    }

    /// Shares the queues of every topic by `strategy`, in place of what the group's `allocate` says. All members of the group
    /// need the same one. Without effect where brokers share them (`rebalance: broker`).
    pub fn allocate_strategy(mut self, strategy: impl AllocateStrategy) -> Self {
        self.on_queues.strategy = Some(Arc::new(strategy));
        self
    }

    /// Calls `listener` whenever the consumer has got or lost queues of a topic, with all queues of it and those that it has
    /// then.
    ///
    /// It is called by the task that shares the queues, after their messages have begun to come: it must not block. What Java's
    /// `MessageQueueListener` is.
    pub fn message_queue_listener(
        mut self,
        listener: impl Fn(&QueueChange<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.on_queues.listener = Some(Arc::new(listener));
        self
    }

    /// Broadcasts: every member of the group gets every message.
    ///
    /// Each member keeps its own offsets, in a file below [`offset_dir`](crate::config::ClientConfig::offset_dir), and
    /// goes on from there after a restart. A message whose handling fails is logged and dropped: there are no retries
    /// and no dead letters, except that a consumer [in order](Self::orderly) tries it again, `max_reconsume` times. All
    /// members of the group have to broadcast. Two members on one machine need an
    /// [`instance`](crate::config::ClientConfig::instance) each.
    ///
    /// What the Java client does with `MessageModel.BROADCASTING`. Source: `behaviour.md` sections 3.4, 3.8, 3.10.
    pub fn broadcasting(mut self) -> Self {
        self.broadcasting = true;
        self
    }

    /// Connects to these name servers (`host:port`) in place of the manager's.
    pub fn name_servers<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        let addresses = addresses.into_iter().map(Into::into).collect();
        self.cluster.get_or_insert_default().name_servers = NameServers::Addresses(addresses);
        self
    }

    /// Connects to this cluster in place of the manager's.
    pub fn cluster(mut self, cluster: ClusterConfig) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Subscribes the messages of `topic` that match `filter`, with a listener of their own: a function from a list of
    /// messages (at most the group's `batch`) to what became of them.
    pub fn subscribe<F, Fut>(self, topic: impl Into<Arc<str>>, filter: impl Into<Filter>, listener: F) -> Self
    where
        F: Fn(Vec<MessageExt>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoConsumeResult> + Send + 'static,
    {
        let (topic, filter) = (topic.into(), filter.into());
        let place = format!("the listener of {topic} for {filter}");
        let handler = Handler::from_fn(place.clone(), listener);
        self.subscription(Subscription { topic, filter, handler, place })
    }

    /// Runs `function` around every delivery; the one that was added first is the outermost. See
    /// [`AppBuilder::around`](crate::AppBuilder::around); state is what the function captures.
    #[track_caller]
    pub fn around<F, Fut>(mut self, function: F) -> Self
    where
        F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.arounds.push(Around::new(function));
        self
    }

    /// Runs `hook` before and after every call of a listener, after those that were added before.
    pub fn consume_hook(mut self, hook: impl ConsumeHook) -> Self {
        self.hooks.add(hook);
        self
    }

    /// Asks `hook` of every message that was pulled whether a listener is to get it, after those that were added before.
    pub fn filter_hook(mut self, hook: impl FilterHook) -> Self {
        self.hooks.add_filter(hook);
        self
    }

    pub(crate) fn consume_hooks(mut self, hooks: ConsumeHooks) -> Self {
        self.hooks = hooks;
        self
    }

    pub(crate) fn subscription(mut self, subscription: Subscription) -> Self {
        self.subscriptions.push(subscription);
        self
    }

    /// Makes the consumer, to be registered with
    /// [`MqClientManager::register_consumer`](crate::client::MqClientManager::register_consumer).
    ///
    /// # Errors
    ///
    /// Where a name or a filter is none, or an option is out of its range.
    pub fn create(self) -> Result<PushConsumer> {
        let fail = |reason: &dyn std::fmt::Display| Error::consumer(&self.group, reason);
        check_group(&self.group).map_err(|error| fail(&error))?;
        self.config.check()?;
        if let Some(cluster) = &self.cluster {
            cluster.name_servers.check().map_err(|error| fail(&error))?;
        }
        for Subscription { topic, filter, .. } in &self.subscriptions {
            check_topic(topic).map_err(|error| fail(&error))?;
            filter.check().map_err(|error| fail(&error))?;
        }
        let Self {
            group,
            config,
            orderly,
            broadcasting,
            cluster,
            mut subscriptions,
            hooks,
            on_queues,
            arounds,
        } = self;
        if !arounds.is_empty() {
            for subscription in &mut subscriptions {
                subscription.handler = subscription.handler.within(arounds.clone());
            }
        }
        let way = Way { orderly, broadcasting };
        let OnQueues { strategy, listener: queue_listener } = on_queues;
        let wishes = Wishes { subscriptions, queue_listener, arounds, ..Wishes::default() };
        Ok(PushConsumer::new(group, config, way, cluster, wishes, hooks, strategy))
    }
}
