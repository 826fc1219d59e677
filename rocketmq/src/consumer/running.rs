//! A push consumer at work: what its tasks share, how they are started, and what brokers hear of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::ConsumeHooks;
use super::allocate::AllocateStrategy;
use super::journal::Journal;
use super::locks::Order;
use super::offset_store::OffsetStore;
use super::pop::Pop;
use super::process_queue::FlowLimits;
use super::queue::OwnedQueue;
use super::queue_listener::QueueListener;
use super::rate_limit::RateLimit;
use super::rebalance::Rebalancer;
use super::releases::Releases;
use super::stats;
use super::subscriptions::Subscriptions;
use crate::client::{Directly, GroupMember, MqClient, Offsets};
use crate::clock::Clock;
use crate::config::{ConsumeFrom, ConsumerConfig};
use crate::error::{Error, Result};
use crate::message::{MessageExt, MessageQueue};
use crate::producer::Replier;
use crate::protocol::body::{self, ConsumeType, ConsumerData, MessageModel, SubscriptionData};
use crate::protocol::broker_calls::ConsumerRunningInfo;
use crate::tasks::Tasks;

/// What the tasks of a running consumer share.
pub(crate) struct Shared {
    /// The name on the wire.
    pub(super) group: Arc<str>,
    pub(super) config: ConsumerConfig,
    pub(super) clock: Clock,
    pub(super) journal: Journal,
    pub(super) client: Arc<MqClient>,
    pub(super) offsets: OffsetStore,
    pub(super) subscriptions: Subscriptions,
    pub(super) strategy: Arc<dyn AllocateStrategy>,
    pub(super) queue_listener: Option<QueueListener>,
    /// One for each handler that may run at the same time.
    pub(super) permits: Arc<Semaphore>,
    pub(super) owned: Mutex<HashMap<MessageQueue, (Arc<OwnedQueue>, CancellationToken)>>,
    pub(super) flow: Mutex<FlowLimits>,
    /// Only where the group consumes in order.
    pub(super) order: Option<Order>,
    /// Only where brokers are asked for the share.
    pub(super) pop: Option<Pop>,
    pub(super) rate_limit: RateLimit,
    /// What was stored before is passed over.
    pub(super) skip_before: Option<SystemTime>,
    pub(super) suspended: AtomicBool,
    /// Asks for a rebalance.
    pub(super) wake: Notify,
    /// Whether a round of rebalance was complete.
    pub(super) is_balanced: AtomicBool,
    /// Whether each queue had its place then, or has had it since; it stays so.
    pub(super) ready: watch::Sender<bool>,
    /// Pullers and scheduled tasks: ended at the beginning of a shutdown.
    pub(super) pulling: Tasks,
    /// Stores the offsets again and again: no more from then on, but what is on its way then is not cut short.
    pub(super) storing: Tasks,
    /// Handlers and what follows from them: waited for.
    pub(super) handlers: Tasks,
    /// Cancelled once no handler is waited for any more.
    pub(super) drained: CancellationToken,
    /// What brokers are still told when handlers have ended, or a queue is given up.
    pub(super) releases: Releases,
    /// Told to handlers when the consumer stops.
    pub(super) shutdown: CancellationToken,
    pub(super) hooks: ConsumeHooks,
    pub(super) stats: stats::Topics,
    pub(super) started_at: SystemTime,
    /// Made for the first reply of a listener.
    pub(super) replier: OnceLock<Replier>,
    pub(super) max_body_bytes: usize,
}

impl Shared {
    pub(super) async fn start(self: &Arc<Self>) -> Result<()> {
        let member: Arc<dyn GroupMember> = Arc::<Self>::clone(self);
        self.client.add_consumer(&self.group, Arc::downgrade(&member));
        self.client.find_routes(&self.group, self.subscriptions.table().topics()).await?;
        self.check_filters().await?;
        // Brokers refuse the pulls of a group that they do not know.
        self.client.heartbeat_all().await;
        if let Some(pop) = &self.pop {
            self.prepare_brokers(pop, self.subscriptions.table().topics()).await?;
        }
        let shared = Arc::clone(self);
        self.pulling.spawn_lasting("rebalance", move || Rebalancer::new(Arc::clone(&shared)).run());
        let every = self.client.config().offset_interval;
        let shared = Arc::clone(self);
        self.storing.spawn_periodic("offsets", every, move || {
            let shared = Arc::clone(&shared);
            async move { shared.persist_all().await }
        });
        self.spawn_periodic("statistics", stats::SAMPLE_INTERVAL, |shared| async move {
            shared.stats.sample(Instant::now());
        });
        if self.order.is_some() {
            self.keep_locks();
            return Ok(());
        }
        let every =
            (self.config.consume_timeout / 4).clamp(Duration::from_millis(100), Duration::from_secs(60));
        self.spawn_periodic("clean expired", every, |shared| async move { shared.clean_expired().await });
        Ok(())
    }

    /// Asks the brokers whether they can filter as the listeners want.
    async fn check_filters(&self) -> Result<()> {
        for data in self.subscriptions.data() {
            if let Err(reason) = self.client.check_filter(&self.group, &data).await {
                let table = self.subscriptions.table();
                let listener = table.place(&data.topic).unwrap_or_default();
                return Err(Error::consumer(&self.group, format!("{listener}: {reason}")));
            }
        }
        Ok(())
    }

    pub(super) async fn persist_all(self: &Arc<Self>) {
        self.persist_each(self.owned(), "it is tried again").await;
    }

    /// Stores the offsets of these queues at the same time, so that a broker that hangs costs the time of one request. Says
    /// `what` follows where one is not stored.
    pub(super) async fn persist_each(self: &Arc<Self>, queues: Vec<Arc<OwnedQueue>>, what: &'static str) {
        let mut stores = JoinSet::new();
        for owned in queues {
            let shared = Arc::clone(self);
            stores.spawn(async move {
                if let Err(error) = owned.persist(&shared.offsets).await {
                    warn!(group = %shared.group, queue = %owned.queue, %error, "the offset could not be stored: {what}");
                }
            });
        }
        while stores.join_next().await.is_some() {}
        self.offsets.flush().await;
    }

    fn spawn_periodic<F>(
        self: &Arc<Self>,
        name: &'static str,
        period: Duration,
        work: impl Fn(Arc<Self>) -> F + Copy + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let shared = Arc::clone(self);
        self.pulling.spawn_periodic(name, period, move || work(Arc::clone(&shared)));
    }

    pub(super) fn subscription_data(&self) -> Vec<SubscriptionData> {
        let leftovers = self.pop.iter().flat_map(Pop::leftovers);
        self.subscriptions.data().into_iter().chain(leftovers).collect()
    }

    pub(super) fn stopping(&self) -> &CancellationToken {
        self.pulling.stopping()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    pub(super) fn flow_limits(&self) -> FlowLimits {
        *self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round of rebalance is complete.
    pub(super) fn note_balanced(&self) {
        self.is_balanced.store(true, Ordering::SeqCst);
        self.note_begun();
    }

    /// A queue may have got its place; to be called after it has.
    pub(super) fn note_begun(&self) {
        if *self.ready.borrow() || !self.is_balanced.load(Ordering::SeqCst) {
            return;
        }
        let have_begun = self.owned().iter().all(|owned| owned.has_begun());
        if have_begun && self.pop.as_ref().is_none_or(Pop::has_begun) {
            self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
        }
    }

    pub(super) fn owned(&self) -> Vec<Arc<OwnedQueue>> {
        self.lock_owned().values().map(|(owned, _)| Arc::clone(owned)).collect()
    }

    pub(super) fn lock_owned(
        &self,
    ) -> MutexGuard<'_, HashMap<MessageQueue, (Arc<OwnedQueue>, CancellationToken)>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupMember for Shared {
    fn consumer_data(&self) -> ConsumerData {
        ConsumerData {
            group_name: self.group.to_string(),
            consume_type: ConsumeType::ConsumePassively,
            message_model: match self.offsets.is_local() {
                true => MessageModel::Broadcasting,
                false => MessageModel::Clustering,
            },
            consume_from_where: match self.config.consume_from {
                ConsumeFrom::Last => body::ConsumeFromWhere::ConsumeFromLastOffset,
                ConsumeFrom::First => body::ConsumeFromWhere::ConsumeFromFirstOffset,
                ConsumeFrom::Timestamp(_) => body::ConsumeFromWhere::ConsumeFromTimestamp,
            },
            subscription_data_set: self.subscription_data(),
            unit_mode: false,
        }
    }

    fn topics(&self) -> Vec<Arc<str>> {
        let leftovers = self.pop.iter().flat_map(Pop::leftover_topics);
        self.subscriptions.table().topics().cloned().chain(leftovers).collect()
    }

    fn wake_rebalance(&self) {
        self.wake.notify_one();
        // What woke it may be a broker that was restarted, and brokers keep locks in memory only.
        self.order.iter().for_each(Order::renew_soon);
    }

    fn doubt_stored(&self, broker: &str) {
        if !self.offsets.is_local() {
            let owned = self.owned().into_iter().filter(|owned| *owned.queue.broker_name == *broker);
            owned.for_each(|owned| owned.doubt_stored());
        }
    }

    fn offsets(&self, topic: &str) -> Offsets {
        self.offsets_of(topic)
    }

    fn reset_offsets(self: Arc<Self>, topic: &str, offsets: Offsets) {
        self.reset(topic, offsets);
    }

    fn running_info(&self, with_handlers: bool) -> ConsumerRunningInfo {
        self.describe(with_handlers)
    }

    fn consume_directly(self: Arc<Self>, message: MessageExt) -> Directly {
        self.directly(message)
    }
}
