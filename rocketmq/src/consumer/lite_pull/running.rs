//! What the tasks of a running lite pull consumer share, and what holds for all of its queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, warn};

use super::LitePullError;
use super::queue::{AssignedQueue, Delivery};
use super::rebalance::Rebalancer;
use super::selection::{Selection, Wanted, Way};
use super::watch_queues::QueueWatch;
use crate::client::{Directly, GroupMember, MqClient, Offsets, namespace, no_listeners};
use crate::config::LitePullConfig;
use crate::consumer::allocate::{self, AllocateStrategy};
use crate::consumer::goodbye::say_goodbye;
use crate::consumer::offset_store::OffsetStore;
use crate::consumer::process_queue::FlowLimits;
use crate::consumer::releases::Releases;
use crate::consumer::start_offset::{first_offset, masters_offset};
use crate::consumer::stored_offset::Due;
use crate::consumer::subscription::union;
use crate::error::{Error, Result};
use crate::listener::Filter;
use crate::message::{MessageExt, MessageQueue};
use crate::protocol::body::{ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel, SubscriptionData};
use crate::protocol::broker_calls::ConsumerRunningInfo;
use crate::remoting::RequestError;
use crate::tasks::{Boxed, Tasks};

/// How long the tasks of the queues get to end; none of them waits for anything at that point.
const TASKS_END: Duration = Duration::from_secs(1);

/// A lite pull consumer at work.
pub(super) struct Running {
    /// The name on the wire.
    pub(super) group: Arc<str>,
    pub(super) config: LitePullConfig,
    pub(super) strategy: Arc<dyn AllocateStrategy>,
    pub(super) client: Arc<MqClient>,
    offsets: OffsetStore,
    selection: Arc<Mutex<Selection>>,
    watch: Arc<QueueWatch>,
    queues: Mutex<BTreeMap<MessageQueue, Arc<AssignedQueue>>>,
    /// Which queue is looked at first by the next poll.
    turn: AtomicUsize,
    /// Told when there are messages to poll.
    pub(super) arrived: Notify,
    /// Asks for a rebalance.
    pub(super) wake: Notify,
    balanced: watch::Sender<bool>,
    /// Pullers and scheduled tasks: ended at the beginning of a shutdown.
    pub(super) pulling: Tasks,
    /// Stores the offsets again and again: no more from then on, but what is on its way then is not cut short.
    storing: Tasks,
    /// Offsets of queues that were given up.
    pub(super) releases: Releases,
    pub(super) started_at: SystemTime,
    pub(super) max_body_bytes: usize,
}

impl Running {
    pub(super) fn new(
        group: &str,
        config: LitePullConfig,
        client: Arc<MqClient>,
        selection: Arc<Mutex<Selection>>,
        watch: Arc<QueueWatch>,
        strategy: Option<Arc<dyn AllocateStrategy>>,
    ) -> Arc<Self> {
        let namespace = client.config().namespace.as_deref();
        let strategy = strategy.unwrap_or_else(|| {
            allocate::configured(config.allocate, &config.rooms, &config.queues, namespace)
        });
        let group = namespace::wrap(namespace, group);
        Arc::new(Self {
            offsets: OffsetStore::at_brokers(Arc::clone(&client), Arc::clone(&group)),
            group,
            strategy,
            config,
            selection,
            watch,
            queues: Mutex::default(),
            turn: AtomicUsize::new(0),
            arrived: Notify::new(),
            wake: Notify::new(),
            balanced: watch::Sender::new(false),
            pulling: client.tasks().child(),
            storing: client.tasks().child(),
            releases: Releases::default(),
            started_at: SystemTime::now(),
            max_body_bytes: client.config().max_frame.as_usize(),
            client,
        })
    }

    /// Asks for routes, and makes this member known to the brokers.
    pub(super) async fn join(self: &Arc<Self>) -> Result<()> {
        let member: Arc<dyn GroupMember> = Arc::<Self>::clone(self);
        self.client.add_consumer(&self.group, Arc::downgrade(&member));
        self.client.find_routes(&self.group, &member.topics()).await?;
        for filter in self.filters() {
            let checked = self.client.check_filter(&self.group, &filter).await;
            checked.map_err(|reason| Error::consumer(&self.group, reason))?;
        }
        self.client.heartbeat_all().await;
        Ok(())
    }

    /// Asks the brokers of a topic whether they can filter so.
    pub(super) fn check_filter(&self, topic: &str, filter: &Filter) -> Boxed<'_, Result<()>> {
        let (topic, filter) = (self.topic_on_wire(topic), filter.clone());
        Box::pin(async move {
            // A topic that does not exist yet has nobody to be asked.
            if let Err(error) = self.client.route(&topic).await {
                debug!(group = %self.group, %topic, %error, "no route of a topic that is being subscribed");
            }
            let checked = self.client.check_filter(&self.group, &union(&topic, &[&filter], 0)).await;
            checked.map_err(|reason| Error::consumer(&self.group, reason))
        })
    }

    /// What is wanted of each topic, as it is on the wire.
    fn filters(&self) -> Vec<SubscriptionData> {
        let selection = self.selection();
        let wanted = selection.filters();
        wanted.map(|(topic, wanted)| wanted.data(&self.topic_on_wire(topic))).collect()
    }

    /// Begins to pull what is selected by now.
    pub(super) fn begin(self: &Arc<Self>) {
        self.adopt();
        let shared = Arc::clone(self);
        self.pulling.spawn_lasting("rebalance", move || Rebalancer::new(Arc::clone(&shared)).run());
        let shared = Arc::clone(self);
        self.storing.spawn_periodic("offsets", self.config.auto_commit_interval, move || {
            let shared = Arc::clone(&shared);
            async move { shared.store_all().await }
        });
        let shared = Arc::clone(self);
        self.pulling.spawn_lasting("queue watch", move || {
            let Self { watch, client, config, .. } = &*shared;
            let every = config.queue_check_interval;
            Arc::clone(watch).run(Arc::clone(client), every, shared.stopping().clone())
        });
    }

    /// Stops: ends the tasks; then stores how far the queues are consumed where that goes by itself, and says goodbye, within one
    /// `request_timeout`. `at_work` is let go before.
    pub(super) async fn stop(self: &Arc<Self>, at_work: Option<TaskTrackerToken>) {
        self.storing.cancel();
        self.pulling.cancel();
        let stuck = self.pulling.join(TASKS_END).await;
        if stuck > 0 {
            warn!(group = %self.group, stuck, "tasks did not end in time");
        }
        drop(at_work);
        let until = Instant::now() + self.client.config().request_timeout;
        let queues = self.queues().into_iter().map(|queue| Arc::clone(&queue.queue.broker_name));
        let brokers = queues.chain(self.releases.brokers()).collect();
        say_goodbye(&self.client, &self.group, until, brokers, |broker| Arc::clone(self).settle_at(broker))
            .await;
        // From here on nobody may move the offsets: others own the queues.
        for queue in self.queues() {
            queue.drop_queue(false);
        }
        let stuck = self.storing.join(until.saturating_duration_since(Instant::now())).await;
        if stuck > 0 {
            warn!(group = %self.group, stuck, "tasks did not end in time");
        }
    }

    /// Stores the last offsets at one broker.
    async fn settle_at(self: Arc<Self>, broker: Arc<str>) {
        self.releases.at(&broker).join(self.client.config().request_timeout).await;
        let mut queues = self.queues();
        queues.retain(|queue| queue.queue.broker_name == broker);
        for (queue, error) in self.store_each(queues.clone(), self.config.auto_commit).await {
            warn!(group = %self.group, queue = %queue.queue, %error, "the offset could not be stored, some messages will come twice");
        }
        for queue in queues {
            queue.drop_queue(false);
        }
    }

    /// Waits for messages and takes up to `most` of one queue; `None` once the consumer stops.
    ///
    /// Nothing is lost where the caller gives up waiting.
    pub(super) async fn next_messages(&self, most: usize) -> Option<(Delivery, Vec<MessageExt>)> {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            // From here on: what arrives after the look is not missed.
            arrived.as_mut().enable();
            if self.stopping().is_cancelled() {
                return None;
            }
            if let Some(taken) = self.take_messages(most) {
                return Some(taken);
            }
            tokio::select! {
                () = self.stopping().cancelled() => return None,
                () = arrived => {}
            }
        }
    }

    /// The messages of the next queue, in turn, that has some.
    fn take_messages(&self, most: usize) -> Option<(Delivery, Vec<MessageExt>)> {
        let queues = self.lock_queues();
        let first = self.turn.load(Ordering::Relaxed) % queues.len().max(1);
        let mut in_turn = queues.values().enumerate().cycle().skip(first).take(queues.len());
        let (at, taken) = in_turn.find_map(|(at, queue)| Some((at, queue.take(most)?)))?;
        self.turn.store(at + 1, Ordering::Relaxed);
        Some(taken)
    }

    /// Where to begin in a queue, and what the broker has stored for the group.
    pub(super) async fn start_offset(
        &self,
        queue: &MessageQueue,
    ) -> Result<(i64, Option<i64>), RequestError> {
        let (client, group, consume_from) = (&self.client, &self.group, self.config.consume_from);
        let stored = match client.query_offset(group, queue).await? {
            None => masters_offset(client, group, queue, consume_from).await?,
            stored => stored,
        };
        match stored {
            Some(offset) => Ok((offset, stored)),
            None => Ok((first_offset(client, queue, consume_from).await?, None)),
        }
    }

    /// Stores how far each queue is consumed, where that goes by itself, and again what a broker may have lost. Tells of
    /// failures in the log only: the next time may be better.
    async fn store_all(self: &Arc<Self>) {
        for (queue, error) in self.store_each(self.queues(), self.config.auto_commit).await {
            warn!(group = %self.group, queue = %queue.queue, %error, "the offset could not be stored, it is tried again");
        }
    }

    /// Stores how far each queue is consumed; the first of the failures.
    pub(super) async fn commit(self: &Arc<Self>) -> Result<(), RequestError> {
        self.store_each(self.queues(), true).await.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Stores what is to be stored of these queues at the same time, so that a broker that hangs costs the time of one request;
    /// the failures.
    async fn store_each(
        self: &Arc<Self>,
        queues: Vec<Arc<AssignedQueue>>,
        consumed: bool,
    ) -> Vec<(Arc<AssignedQueue>, RequestError)> {
        let mut stores = JoinSet::new();
        for queue in queues {
            let shared = Arc::clone(self);
            stores.spawn(async move {
                let stored = shared.store(&queue, consumed).await;
                stored.err().map(|error| (queue, error))
            });
        }
        stores.join_all().await.into_iter().flatten().collect()
    }

    async fn store(&self, queue: &AssignedQueue, consumed: bool) -> Result<(), RequestError> {
        let _turn = queue.storing.lock().await;
        // Not before it is our turn: another offset may have been committed until now.
        match queue.due(consumed) {
            Some(due) => self.tell(queue, due).await,
            None => Ok(()),
        }
    }

    /// Stores what is still to be stored of a queue that was given up.
    pub(super) async fn store_last(&self, queue: &AssignedQueue, due: Due) -> Result<(), RequestError> {
        let _turn = queue.storing.lock().await;
        self.tell(queue, due).await
    }

    /// Stores an offset that somebody chose.
    pub(super) async fn store_offset(&self, queue: &AssignedQueue, offset: i64) -> Result<(), RequestError> {
        let _turn = queue.storing.lock().await;
        queue.learn(self.offsets.write(&queue.queue, offset).await?);
        Ok(())
    }

    async fn tell(&self, queue: &AssignedQueue, due: Due) -> Result<(), RequestError> {
        queue.learn(self.offsets.tell(&queue.queue, due).await?);
        Ok(())
    }

    /// This queue, if it is assigned; `queue` is as users know it.
    pub(super) fn assigned(
        &self,
        queue: &MessageQueue,
        action: &'static str,
    ) -> Result<Arc<AssignedQueue>, LitePullError> {
        let assigned = self.lock_queues().get(&self.on_wire(queue)).cloned();
        assigned.ok_or_else(|| LitePullError::NotAssigned {
            group: namespace::strip(Some(self.namespace()), &self.group).to_owned(),
            action,
            queue: queue.clone(),
        })
    }

    /// The selection has changed.
    pub(super) fn reselect(self: &Arc<Self>) {
        if self.selection().way() == Some(Way::Subscribe) {
            self.balanced.send_replace(false);
        }
        self.adopt();
        // What waits at a broker was asked for by the filter of before.
        self.queues().iter().for_each(|queue| queue.interrupt.notify_one());
        self.client.heartbeat_soon();
        self.wake.notify_one();
    }

    /// What is wanted of a topic, as users know it.
    pub(super) fn wanted(&self, topic: &str) -> Arc<Wanted> {
        self.selection().wanted(topic).unwrap_or_else(|| Arc::new(Wanted::new(Filter::all(), 0)))
    }

    /// The topics whose queues the group shares, as they are on the wire.
    pub(super) fn subscribed_topics(&self) -> BTreeSet<Arc<str>> {
        self.selection().subscribed().map(|(topic, _)| self.topic_on_wire(topic)).collect()
    }

    pub(super) fn flow_limits(&self) -> FlowLimits {
        FlowLimits {
            messages: self.config.messages_per_queue as usize,
            bytes: (self.config.mib_per_queue as usize) << 20,
            span: self.config.span.into(),
        }
    }

    /// Whether all queues together hold enough.
    pub(super) fn is_full(&self) -> bool {
        let held: usize = self.lock_queues().values().map(|queue| queue.held()).sum();
        self.config.messages as usize <= held
    }

    pub(super) fn on_wire(&self, queue: &MessageQueue) -> MessageQueue {
        MessageQueue::new(self.topic_on_wire(&queue.topic), Arc::clone(&queue.broker_name), queue.queue_id)
    }

    /// The queues that this consumer has, as users know them.
    pub(super) fn assignment(&self) -> Vec<MessageQueue> {
        let shown = |queue: &Arc<AssignedQueue>| {
            let MessageQueue { broker_name, queue_id, .. } = &queue.queue;
            MessageQueue::new(Arc::clone(&queue.topic), Arc::clone(broker_name), *queue_id)
        };
        self.lock_queues().values().map(shown).collect()
    }

    pub(super) fn topic_on_wire(&self, topic: &str) -> Arc<str> {
        namespace::wrap(Some(self.namespace()), topic)
    }

    pub(super) fn namespace(&self) -> &str {
        self.client.config().namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn stopping(&self) -> &CancellationToken {
        self.pulling.stopping()
    }

    pub(super) fn note_balanced(&self) {
        self.balanced.send_replace(true);
    }

    pub(super) fn balanced(&self) -> watch::Receiver<bool> {
        self.balanced.subscribe()
    }

    pub(super) fn queues(&self) -> Vec<Arc<AssignedQueue>> {
        self.lock_queues().values().cloned().collect()
    }

    pub(super) fn lock_queues(&self) -> MutexGuard<'_, BTreeMap<MessageQueue, Arc<AssignedQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn selection(&self) -> MutexGuard<'_, Selection> {
        self.selection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupMember for Running {
    fn consumer_data(&self) -> ConsumerData {
        let selection = self.selection();
        let subscribed = selection.subscribed();
        ConsumerData {
            group_name: self.group.to_string(),
            consume_type: ConsumeType::ConsumeActively,
            message_model: MessageModel::Clustering,
            // Whatever the configuration says, as with Java's.
            consume_from_where: ConsumeFromWhere::ConsumeFromLastOffset,
            subscription_data_set: subscribed
                .map(|(topic, wanted)| wanted.data(&self.topic_on_wire(topic)))
                .collect(),
            unit_mode: false,
        }
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.selection().topics().into_iter().map(|topic| self.topic_on_wire(topic)).collect()
    }

    fn wake_rebalance(&self) {
        self.wake.notify_one();
    }

    fn doubt_stored(&self, broker: &str) {
        let queues = self.queues().into_iter().filter(|queue| *queue.queue.broker_name == *broker);
        queues.for_each(|queue| queue.doubt_stored());
    }

    fn offsets(&self, topic: &str) -> Offsets {
        let queues = self.queues().into_iter().filter(|queue| *queue.queue.topic == *topic);
        queues.filter_map(|queue| Some((queue.queue.clone(), queue.offset()?))).collect()
    }

    /// As with Java, it is up to the program where it goes on: [`seek`](crate::LitePullConsumer::seek).
    fn reset_offsets(self: Arc<Self>, topic: &str, _: Offsets) {
        warn!(group = %self.group, topic, "a broker asks to go on from other offsets; a lite pull consumer does that by `seek`");
    }

    fn running_info(&self, _: bool) -> ConsumerRunningInfo {
        self.describe()
    }

    fn consume_directly(self: Arc<Self>, message: MessageExt) -> Directly {
        no_listeners(&message)
    }
}
