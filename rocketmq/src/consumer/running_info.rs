//! What a push consumer is doing, for operators: its settings, its queues, its rates, and what each handler has in hand.
//!
//! Settings have the names of Java's fields where Java has them, so that tools and habits work. Source: `behaviour.md`
//! sections 3.1 and 5, `protocol.md` section 3.8.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Shared;
use super::pop::Pop;
use super::process_queue::{AtWork, Held};
use super::queue::OwnedQueue;
use super::start_offset::unix_ms;
use crate::client::{Offsets, namespace};
use crate::config::{
    Allocate, BadPayload, ConsumeFrom, ConsumeMode, ConsumerConfig, FlowConfig, PopConfig, Rebalance,
    RetryDelay, Undecodable,
};
use crate::listener::{Delivery, Handler};
use crate::message::{MessageExt, MessageQueue};
use crate::protocol::broker_calls::{ConsumerRunningInfo, ProcessQueueInfo};

/// Messages that are listed as being handled; a group may have more handlers.
const MAX_LISTED: usize = 1_000;

impl Shared {
    pub(super) fn describe(&self, with_handlers: bool) -> ConsumerRunningInfo {
        let clock = Clock::now();
        let owned = self.owned();
        let mut properties = self.properties();
        properties.extend(self.client_properties());
        ConsumerRunningInfo {
            properties,
            subscription_set: self.subscription_data(),
            mq_table: owned
                .iter()
                .map(|owned| (owned.queue.as_ref().clone(), queue_info(owned, clock)))
                .collect(),
            mq_pop_table: self.pop.as_ref().map(|pop| pop.describe(clock)).unwrap_or_default(),
            status_table: self
                .stats
                .stats(clock.instant)
                .iter()
                .map(|(topic, stats)| (topic.to_string(), stats.status()))
                .collect(),
            jstack: with_handlers.then(|| self.describe_handlers(clock.instant)),
        }
    }

    /// How far the group is in the queues of `topic` that are owned here.
    pub(super) fn offsets_of(&self, topic: &str) -> Offsets {
        let owned = self.owned().into_iter().filter(|owned| *owned.queue.topic == *topic);
        owned.filter_map(|owned| Some((owned.queue.as_ref().clone(), owned.offset()?))).collect()
    }

    fn properties(&self) -> BTreeMap<String, String> {
        let mut properties = properties(&self.config);
        properties.extend(common_properties("CONSUME_PASSIVELY", &self.group, self.started_at));
        properties.insert("allocateMessageQueueStrategy".to_owned(), self.strategy.name().to_owned());
        let (orderly, concurrency) = (self.order.is_some(), self.config.concurrency);
        properties.insert("PROP_CONSUMEORDERLY".to_owned(), orderly.to_string());
        properties.insert("PROP_THREADPOOL_CORE_SIZE".to_owned(), concurrency.to_string());
        properties.insert("suspended".to_owned(), self.is_suspended().to_string());
        properties
    }

    fn client_properties(&self) -> BTreeMap<String, String> {
        client_properties(self.client.config())
    }

    /// What takes the place of a Java client's thread stacks: the messages that handlers have, the longest-held first.
    fn describe_handlers(&self, now: Instant) -> String {
        let mut in_hand = self.pulled_in_hand();
        in_hand.extend(self.pop.as_ref().map(Pop::calls).into_iter().flatten().flat_map(popped_in_hand));
        in_hand.sort_by_key(|one| one.since);
        let busy = self.config.concurrency as usize - self.permits.available_permits();
        let mut text = format!(
            "{} messages are being handled by the group {}; {busy} of {} handlers are busy\n",
            in_hand.len(),
            self.group,
            self.config.concurrency,
        );
        for InHand { since, listener, queue, message } in in_hand.iter().take(MAX_LISTED) {
            let seconds = now.saturating_duration_since(*since).as_secs_f64();
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{seconds:9.3} s  {listener}  {queue} offset {}  {}  attempt {}",
                message.queue_offset(),
                message.message_id(),
                message.reconsume_times().saturating_add(1),
            );
        }
        if MAX_LISTED < in_hand.len() {
            let _ = writeln!(text, "and {} more", in_hand.len() - MAX_LISTED);
        }
        text
    }

    fn pulled_in_hand(&self) -> Vec<InHand> {
        let table = self.subscriptions.table();
        let namespace = Some(self.subscriptions.namespace());
        let in_hand = |queue: &Arc<MessageQueue>, AtWork { message, since }| {
            let topic = namespace::wrap(namespace, message.topic());
            let listener = table.listener_of_retried(&topic, || message.tag()).map_or("", Handler::name);
            InHand { since, listener: listener.to_owned(), queue: Arc::clone(queue), message }
        };
        let of_queue = |owned: Arc<OwnedQueue>| {
            let at_work = owned.with(|messages| messages.at_work());
            at_work.into_iter().map(|one| in_hand(&owned.queue, one)).collect::<Vec<_>>()
        };
        self.owned().into_iter().flat_map(of_queue).collect()
    }
}

/// A message that a listener has.
struct InHand {
    since: Instant,
    listener: String,
    queue: Arc<MessageQueue>,
    message: MessageExt,
}

fn popped_in_hand((since, delivery): (Instant, Delivery)) -> Vec<InHand> {
    let queue = Arc::new(delivery.queue().clone());
    let in_hand = |message: &MessageExt| InHand {
        since,
        listener: delivery.listener().to_owned(),
        queue: Arc::clone(&queue),
        message: message.clone(),
    };
    delivery.messages().iter().map(in_hand).collect()
}

/// The same moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) instant: Instant,
    unix_ms: i64,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), unix_ms: unix_ms(SystemTime::now()) }
    }

    pub(super) fn unix_ms(self, instant: Instant) -> i64 {
        self.unix_ms - self.instant.saturating_duration_since(instant).as_millis() as i64
    }
}

/// What the messages of a queue look like from outside; the rest is the caller's.
pub(super) fn held_info(held: Held, clock: Clock) -> ProcessQueueInfo {
    let (first, last) = held.span.unwrap_or_default();
    ProcessQueueInfo {
        cached_msg_min_offset: first,
        cached_msg_max_offset: last,
        cached_msg_count: held.messages,
        cached_msg_mib: held.bytes >> 20,
        last_consume_timestamp: held.taken_at.map_or(0, |taken_at| clock.unix_ms(taken_at)),
        ..ProcessQueueInfo::default()
    }
}

fn queue_info(owned: &OwnedQueue, clock: Clock) -> ProcessQueueInfo {
    let (held, offset, at_work) = owned.with(|messages| {
        let in_order = owned.order.is_some();
        let at_work = if in_order { messages.at_work() } else { Vec::new() };
        (messages.summary(), messages.offset(), at_work)
    });
    let offsets = || at_work.iter().map(|one| one.message.queue_offset());
    let locked_at = owned.order.as_ref().and_then(|order| order.lock.renewed_at());
    ProcessQueueInfo {
        commit_offset: offset.unwrap_or(-1),
        transaction_msg_min_offset: offsets().min().unwrap_or_default(),
        transaction_msg_max_offset: offsets().max().unwrap_or_default(),
        transaction_msg_count: at_work.len(),
        locked: owned.order.is_some() && owned.is_ours(),
        last_lock_timestamp: locked_at.map_or(0, |at| clock.unix_ms(at.into_std())),
        droped: owned.is_dropped(),
        last_pull_timestamp: clock.unix_ms(owned.pulled_at()),
        // One that nothing was taken from yet counts from its beginning, as with Java: else it would look blocked.
        last_consume_timestamp: clock.unix_ms(held.taken_at.unwrap_or(owned.taken_over_at)),
        ..held_info(held, clock)
    }
}

/// What tools want to know of every consumer.
pub(super) fn common_properties(
    consume_type: &str,
    group: &str,
    started_at: SystemTime,
) -> impl Iterator<Item = (String, String)> {
    [
        ("PROP_CONSUME_TYPE", consume_type.to_owned()),
        ("PROP_CONSUMER_START_TIMESTAMP", unix_ms(started_at).to_string()),
        ("consumerGroup", group.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
}

/// The settings of the client that matter to who looks at a consumer.
pub(super) fn client_properties(config: &crate::config::ClientConfig) -> BTreeMap<String, String> {
    let ms = |time: Duration| time.as_millis().to_string();
    [
        ("namespace", config.namespace.clone().unwrap_or_default()),
        ("namespaceV2", config.namespace_v2.clone().unwrap_or_default()),
        ("unitName", config.unit.clone().unwrap_or_default()),
        ("mqClientApiTimeout", ms(config.request_timeout)),
        ("vipChannelEnabled", config.vip_channel.to_string()),
        ("pollNameServerInterval", ms(config.route_interval)),
        ("heartbeatBrokerInterval", ms(config.heartbeat_interval)),
        ("rebalanceInterval", ms(config.rebalance_interval)),
        ("persistConsumerOffsetInterval", ms(config.offset_interval)),
        ("brokerSuspendMaxTimeMillis", ms(config.pull_suspend)),
        ("consumerTimeoutMillisWhenSuspend", ms(config.pull_timeout)),
        ("awaitTerminationMillisWhenShutdown", ms(config.shutdown_timeout)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

pub(super) fn consume_from(consume_from: ConsumeFrom) -> &'static str {
    match consume_from {
        ConsumeFrom::Last => "CONSUME_FROM_LAST_OFFSET",
        ConsumeFrom::First => "CONSUME_FROM_FIRST_OFFSET",
        ConsumeFrom::Timestamp(_) => "CONSUME_FROM_TIMESTAMP",
    }
}

pub(super) fn strategy(allocate: Allocate) -> &'static str {
    match allocate {
        Allocate::Averagely => "AVG",
        Allocate::Circle => "AVG_BY_CIRCLE",
        Allocate::ConsistentHash => "CONSISTENT_HASH",
        Allocate::ByConfig => "CONFIG",
        Allocate::MachineRoom => "MACHINE_ROOM",
        Allocate::MachineRoomNearby => "MACHINE_ROOM_NEARBY",
    }
}

fn mode_word(mode: ConsumeMode) -> &'static str {
    match mode {
        ConsumeMode::Pull => "PULL",
        ConsumeMode::Pop => "POP",
    }
}

/// Every setting of the group: a new one has to be shown here, or this does not compile.
fn properties(config: &ConsumerConfig) -> BTreeMap<String, String> {
    let ConsumerConfig {
        enabled,
        concurrency,
        batch,
        pull_batch,
        pull_batch_bytes,
        pull_interval,
        pull_error_delay,
        post_subscription,
        consume_from: from,
        max_reconsume,
        retry_delay,
        suspend,
        max_continuous,
        consume_timeout,
        on_bad_payload,
        on_undecodable,
        rate_limit,
        skip_before,
        flow,
        allocate,
        rooms,
        queues,
        mode,
        rebalance,
        pop,
    } = config;
    let FlowConfig { messages_per_queue, mib_per_queue, span, messages_per_topic, mib_per_topic } = flow;
    let PopConfig { invisible_time, batch: pop_batch, messages_per_queue: pop_messages, share_queues } = pop;
    let ms = |time: &Duration| time.as_millis().to_string();
    let or_none = |limit: &Option<u32>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    let mut properties = vec![
        ("enabled", enabled.to_string()),
        ("consumeThreadMin", concurrency.to_string()),
        ("consumeThreadMax", concurrency.to_string()),
        ("consumeMessageBatchMaxSize", batch.to_string()),
        ("pullBatchSize", pull_batch.to_string()),
        ("pullBatchSizeInBytes", pull_batch_bytes.as_usize().to_string()),
        ("pullInterval", ms(pull_interval)),
        ("pullTimeDelayMillsWhenException", ms(pull_error_delay)),
        ("postSubscriptionWhenPull", post_subscription.to_string()),
        ("consumeFromWhere", consume_from(*from).to_owned()),
        ("maxReconsumeTimes", or_none(max_reconsume)),
        ("suspendCurrentQueueTimeMillis", ms(suspend)),
        ("maxTimeConsumeContinuously", ms(max_continuous)),
        // In minutes, as with Java.
        ("consumeTimeout", (consume_timeout.as_secs_f64() / 60.0).to_string()),
        ("pullThresholdForQueue", messages_per_queue.to_string()),
        ("pullThresholdSizeForQueue", mib_per_queue.to_string()),
        ("pullThresholdForTopic", or_none(messages_per_topic)),
        ("pullThresholdSizeForTopic", or_none(mib_per_topic)),
        ("consumeConcurrentlyMaxSpan", span.to_string()),
        ("allocateMessageQueueStrategy", strategy(*allocate).to_owned()),
        ("clientRebalance", (*rebalance == Rebalance::Client && *mode == ConsumeMode::Pull).to_string()),
        ("messageRequestMode", mode_word(*mode).to_owned()),
        ("popShareQueueNum", or_none(share_queues)),
        ("popInvisibleTime", ms(invisible_time)),
        ("popBatchNums", pop_batch.to_string()),
        ("popThresholdForQueue", pop_messages.to_string()),
    ];
    if let ConsumeFrom::Timestamp(time) = from {
        properties.push(("consumeTimestamp", unix_ms(*time).to_string()));
    }
    if !rooms.is_empty() {
        properties.push(("rooms", rooms.join(",")));
    }
    if !queues.is_empty() {
        let queues: Vec<_> = queues.iter().map(ToString::to_string).collect();
        properties.push(("queues", queues.join(",")));
    }
    properties.push((
        "retryDelay",
        match retry_delay {
            RetryDelay::Broker => "broker".to_owned(),
            RetryDelay::Level(level) => level.to_string(),
        },
    ));
    let word = match on_bad_payload {
        BadPayload::DeadLetter => "dead_letter",
        BadPayload::Retry => "retry",
        BadPayload::Skip => "skip",
    };
    properties.push(("onBadPayload", word.to_owned()));
    let word = match on_undecodable {
        Undecodable::DeadLetter => "dead_letter",
        Undecodable::Skip => "skip",
    };
    properties.push(("onUndecodable", word.to_owned()));
    properties.extend(rate_limit.map(|rate| ("rateLimit", rate.to_string())));
    properties
        .extend(skip_before.map(|skip| ("skipBefore", unix_ms(skip.time(SystemTime::now())).to_string())));
    properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_names_and_units_of_java() {
        let mut config = ConsumerConfig::default();
        config.consume_timeout = Duration::from_secs(90);
        let properties = properties(&config);
        for (name, value) in [
            ("consumeThreadMin", "20"),
            ("pullBatchSizeInBytes", "262144"),
            ("consumeTimeout", "1.5"),
            ("pullThresholdForTopic", "-1"),
            ("maxReconsumeTimes", "-1"),
            ("consumeFromWhere", "CONSUME_FROM_LAST_OFFSET"),
            ("allocateMessageQueueStrategy", "AVG"),
            ("suspendCurrentQueueTimeMillis", "1000"),
            ("onBadPayload", "dead_letter"),
        ] {
            assert_eq!(properties[name], value, "{name}");
        }
    }

    #[test]
    fn a_moment_is_the_same_on_both_clocks() {
        let clock = Clock { instant: Instant::now(), unix_ms: 10_000 };
        assert_eq!(clock.unix_ms(clock.instant), 10_000);
        assert_eq!(clock.unix_ms(clock.instant + Duration::from_secs(5)), 10_000, "never ahead");
        if let Some(before) = clock.instant.checked_sub(Duration::from_secs(1)) {
            assert_eq!(clock.unix_ms(before), 9_000);
        }
    }
}
