//! How a consumer group pulls, hands over and retries.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::documented::settings;
use super::names::check_topic;
use super::problem::ConfigErrors;
use super::rate::Rate;
use super::section::{Section, check_by_hand};
use super::skip_before::SkipBefore;
use super::units::{ByteSize, format_rfc3339, parse_rfc3339};
use super::value::{Hint, Raw, Value, ValueError, Word};

settings! {
/// The keys under `defaults:`, and of each group under `groups:`, which overrides them key by key.
///
/// Made by hand: `ConsumerConfig::default()`, then set the fields. Ranges are those of the Java client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// Whether the group is started; default `true`. A disabled one needs no listener.
    pub enabled: bool,
    /// Handlers of the group that run at the same time; default 20, 1 to 65535.
    ///
    /// One number, always in effect, over all topics and queues. An orderly group runs at most one
    /// handler per queue (see `max_continuous`). Raise it for handlers that wait on others, not for those that compute.
    pub concurrency: u32,
    /// Largest batch handed to a listener of `Vec<…>`; default 1, 1 to 1024.
    ///
    /// A batch succeeds or fails as one, and holds messages of one queue.
    pub batch: u32,
    /// Messages asked for in one pull; default 32, 1 to 1024.
    ///
    /// A broker gives no more than its own `maxTransferCountOnMessageInMemory`, which is 32 unless its operators have
    /// raised it, and fewer of those that it has to read from the disk.
    pub pull_batch: u32,
    /// Bytes asked for in one pull; default `256KiB`, 1KiB to 64MiB.
    ///
    /// A wish that Apache's brokers, up to 5.5.0, do not look at: what they give is limited by their own
    /// `maxTransferBytesOnMessageInMemory`, 256KiB, and `maxTransferBytesOnMessageInDisk`, 64KiB. One message comes at least,
    /// however large it is. What a member holds is limited by `flow`.
    pub pull_batch_bytes: ByteSize,
    /// Pause after a pull that brought messages; default `0s`, 0s to 65535ms.
    pub pull_interval: Duration,
    /// Pause after a pull that failed; default `1s`, 1ms to 10m.
    pub pull_error_delay: Duration,
    /// Send the subscription with each pull; default `false`, as heartbeats carry it.
    ///
    /// `true` lets members of a group differ in their subscriptions while a new version rolls out.
    pub post_subscription: bool,
    /// Where a queue begins for which the group has no offset yet; default `last`.
    ///
    /// Brokers answer `last` with the first message where a topic still has all that were ever sent to it.
    pub consume_from: ConsumeFrom,
    /// How many times a message is tried again before it goes to `%DLQ%group`; default: 16, and without
    /// end for orderly groups; 0 to 2147483647.
    ///
    /// Without end, an orderly queue waits for ever behind a message that cannot succeed. There this member
    /// counts, and begins anew with a queue that comes from another one.
    pub max_reconsume: Option<u32>,
    /// How long until a message is tried again; default `broker`: longer each time. Concurrent groups only.
    pub retry_delay: RetryDelay,
    /// Orderly: pause of the queue after a failure; default `1s`, 10ms to 30s.
    pub suspend: Duration,
    /// Orderly: how long a queue may have one of the `concurrency` handlers for itself while others wait;
    /// default `1m`, 10ms to 1h.
    ///
    /// It matters where queues are more than handlers, and always have messages: a shorter time lets more of
    /// them have a turn.
    pub max_continuous: Duration,
    /// A handler that runs longer is stopped; default `15m`, 1s to 1day.
    ///
    /// Its message is handed back to the broker, for another try elsewhere; in an orderly group its queue
    /// pauses, and goes on with the same message.
    pub consume_timeout: Duration,
    /// What happens to a message whose body does not decode; default `dead_letter`.
    ///
    /// A dead letter says why in its property `BAD_PAYLOAD`. Broadcast groups have neither retries nor a dead letter
    /// queue: they drop the message, and say so in the log.
    pub on_bad_payload: BadPayload,
    /// What happens to a message that cannot be read, damaged on its broker or on its way; default `dead_letter`.
    pub on_undecodable: Undecodable,
    /// Messages handed over in a time by this member; default: no limit. `100/s`, `6000/m`, `50/h`, or a number of
    /// messages a second.
    ///
    /// Beyond it messages wait here, and then at the brokers, as flow control has it. A message that waited may be followed
    /// by a tenth of a second's worth at once. [`PushConsumer::set_rate_limit`](crate::PushConsumer::set_rate_limit)
    /// changes it.
    pub rate_limit: Option<Rate>,
    /// Passes over what was stored before: `1h` before the start, or before `2026-01-31T00:00:00Z`; default: nothing.
    ///
    /// A queue of which the group has stored an older offset goes on from the first message that is not older, and says
    /// how many it has passed over. Messages that are to be delivered again are never passed over.
    pub skip_before: Option<SkipBefore>,
    /// When to stop pulling because handlers are behind.
    pub flow: FlowConfig,
    /// How the queues of a topic are shared among the members of the group; default `averagely`.
    ///
    /// All members must agree.
    pub allocate: Allocate,
    /// For `allocate: machine_room`: the rooms whose brokers, named `room@broker`, this member serves.
    pub rooms: Vec<String>,
    /// For `allocate: by_config`: the queues of this member, each written `topic/broker/0`.
    pub queues: Vec<FixedQueue>,
    /// How messages come; default `pull`. `pop` needs 5.x brokers; concurrent groups only.
    ///
    /// With `pop` the consumer sees to it that the brokers know (`mqadmin setConsumeMode`, which asks for the right to do
    /// so where brokers check rights), and asks them for its share. An operator may change the mode back while
    /// consumers run, and they follow; the next start sets it again.
    pub mode: ConsumeMode,
    /// Who shares the queues; default `client`. `broker` asks a 5.x broker, and obeys whichever mode it says,
    /// for each topic: PULL or POP; concurrent groups only. With `mode: pop` brokers are asked whatever stands here.
    pub rebalance: Rebalance,
    /// POP consumption, in force where messages come in that mode.
    pub pop: PopConfig,
}
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            concurrency: 20,
            batch: 1,
            pull_batch: 32,
            pull_batch_bytes: ByteSize::kib(256),
            pull_interval: Duration::ZERO,
            pull_error_delay: Duration::from_secs(1),
            post_subscription: false,
            consume_from: ConsumeFrom::Last,
            max_reconsume: None,
            retry_delay: RetryDelay::Broker,
            suspend: Duration::from_secs(1),
            max_continuous: Duration::from_secs(60),
            consume_timeout: Duration::from_secs(15 * 60),
            on_bad_payload: BadPayload::DeadLetter,
            on_undecodable: Undecodable::DeadLetter,
            rate_limit: None,
            skip_before: None,
            flow: FlowConfig::default(),
            allocate: Allocate::Averagely,
            rooms: Vec::new(),
            queues: Vec::new(),
            mode: ConsumeMode::Pull,
            rebalance: Rebalance::Client,
            pop: PopConfig::default(),
        }
    }
}

impl ConsumerConfig {
    /// Checks a value made by hand against the ranges and rules that hold for the file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        check_by_hand(|keys| self.clone().read(keys))
    }

    pub(super) fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        let ms = Duration::from_millis;
        let secs = Duration::from_secs;
        keys.value("enabled", &mut self.enabled);
        keys.within("concurrency", &mut self.concurrency, 1..=65535);
        keys.within("batch", &mut self.batch, 1..=1024);
        keys.within("pull_batch", &mut self.pull_batch, 1..=1024);
        keys.within("pull_batch_bytes", &mut self.pull_batch_bytes, ByteSize::kib(1)..=ByteSize::mib(64));
        keys.within("pull_interval", &mut self.pull_interval, ms(0)..=ms(65535));
        keys.within("pull_error_delay", &mut self.pull_error_delay, ms(1)..=secs(600));
        keys.value("post_subscription", &mut self.post_subscription);
        keys.value("consume_from", &mut self.consume_from);
        keys.optional_within("max_reconsume", &mut self.max_reconsume, 0..=i32::MAX.unsigned_abs());
        keys.checked("retry_delay", &mut self.retry_delay, RetryDelay::check);
        keys.within("suspend", &mut self.suspend, ms(10)..=secs(30));
        keys.within("max_continuous", &mut self.max_continuous, ms(10)..=secs(3600));
        keys.within("consume_timeout", &mut self.consume_timeout, secs(1)..=secs(24 * 3600));
        keys.value("on_bad_payload", &mut self.on_bad_payload);
        keys.value("on_undecodable", &mut self.on_undecodable);
        keys.value("rate_limit", &mut self.rate_limit);
        keys.value("skip_before", &mut self.skip_before);
        keys.section("flow", |keys| self.flow.read(keys));
        keys.value("allocate", &mut self.allocate);
        keys.value("rooms", &mut self.rooms);
        keys.value("queues", &mut self.queues);
        keys.value("mode", &mut self.mode);
        keys.value("rebalance", &mut self.rebalance);
        keys.section("pop", |keys| self.pop.read(keys));
        if keys.is_clean() {
            self.relate(keys);
        }
    }

    /// Whether brokers are asked for this member's share of the queues, and for the mode.
    pub(crate) fn asks_brokers(&self) -> bool {
        self.mode == ConsumeMode::Pop || self.rebalance == Rebalance::Broker
    }

    /// Why listeners of this kind cannot have what is configured, if they cannot: what brokers hand out one by one has no
    /// order, and goes to one member.
    pub(crate) fn mode_problem(&self, orderly: bool, broadcast: bool) -> Option<String> {
        let (key, instead) = match (self.mode, self.rebalance) {
            (ConsumeMode::Pop, _) => ("mode: pop", "mode: pull"),
            (_, Rebalance::Broker) => ("rebalance: broker", "rebalance: client"),
            _ => return None,
        };
        let kind = match (orderly, broadcast) {
            (true, _) => "orderly",
            (_, true) => "broadcast",
            _ => return None,
        };
        Some(format!("`{key}` is for concurrent groups, and this one is {kind}: set `{instead}` for it"))
    }

    /// The rules between keys.
    fn relate(&self, keys: &mut Section<'_, '_>) {
        let is_known_to_brokers = matches!(self.allocate, Allocate::Averagely | Allocate::Circle);
        if self.asks_brokers() && !is_known_to_brokers {
            let word = self.allocate.show();
            keys.problem_with(
                "allocate",
                format!(
                    "`mode: pop` and `rebalance: broker` leave the share to brokers, which know `averagely` and \
                     `circle`, not `{word}`"
                ),
            );
        }
        check_allocate(self.allocate, &self.rooms, &self.queues, keys);
    }
}

/// That a strategy has what it needs.
pub(super) fn check_allocate(
    allocate: Allocate,
    rooms: &[String],
    queues: &[FixedQueue],
    keys: &mut Section<'_, '_>,
) {
    if allocate == Allocate::ByConfig && queues.is_empty() {
        keys.problem_with("allocate", "`by_config` needs `queues`, such as `queues: [topic/broker-a/0]`");
    }
    if allocate == Allocate::MachineRoom && rooms.is_empty() {
        keys.problem_with("allocate", "`machine_room` needs `rooms`, such as `rooms: [room1]`");
    }
}

settings! {
/// How much may wait in memory between the network and the handlers.
///
/// At a limit, that queue is not pulled until handlers catch up; the others go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowConfig {
    /// Messages of one queue; default 1000, 1 to 65535.
    pub messages_per_queue: u32,
    /// MiB of bodies of one queue; default 100, 1 to 1024. Memory grows as this × queues.
    pub mib_per_queue: u32,
    /// Distance between the first and the last offset held of one queue; default 2000, 1 to 65535.
    ///
    /// One slow message holds back the stored offset: after a crash up to this many come again.
    /// Concurrent groups only.
    pub span: u32,
    /// Messages over all queues of this member; default: no such limit, 1 to 6553500. Takes the place of
    /// `messages_per_queue`.
    ///
    /// Each queue may have this ÷ the number of queues that this member has, and 1 at least. All count
    /// that it pulls for the group, of whichever topic, the retry topic too, as with the Java client's
    /// `pullThresholdForTopic`. Computed anew whenever the member gets or loses queues.
    pub messages_per_topic: Option<u32>,
    /// MiB over all queues of this member; default: no such limit, 1 to 102400. Takes the place of
    /// `mib_per_queue`. Shared as `messages_per_topic` is; each queue may have 1 MiB at least.
    pub mib_per_topic: Option<u32>,
}
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            messages_per_queue: 1000,
            mib_per_queue: 100,
            span: 2000,
            messages_per_topic: None,
            mib_per_topic: None,
        }
    }
}

impl FlowConfig {
    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        keys.within("messages_per_queue", &mut self.messages_per_queue, 1..=65535);
        keys.within("mib_per_queue", &mut self.mib_per_queue, 1..=1024);
        keys.within("span", &mut self.span, 1..=65535);
        keys.optional_within("messages_per_topic", &mut self.messages_per_topic, 1..=6_553_500);
        keys.optional_within("mib_per_topic", &mut self.mib_per_topic, 1..=102_400);
    }
}

settings! {
/// POP consumption: the broker hands out messages one by one and wants each acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PopConfig {
    /// For how long a message is invisible to others once handed out; default `1m`, 5s to 5m.
    ///
    /// A member that dies keeps its messages from the others for so long. While a handler works, the time is
    /// prolonged.
    pub invisible_time: Duration,
    /// Messages asked for at once; default 32, 1 to 32.
    pub batch: u32,
    /// Messages of one broker, or of one queue where they are shared, that may be unacknowledged; default 96, 1 to
    /// 65535.
    ///
    /// At the limit no more are asked for; one answer may go beyond it.
    pub messages_per_queue: u32,
    /// With `mode: pop`: how many other members' queues each member pops beside its own, 0 to 65535; 0: every member
    /// pops from all queues. Default: 0 for a topic that was pulled before; what was set for one that was popped
    /// before stays.
    pub share_queues: Option<u32>,
}
}

impl Default for PopConfig {
    fn default() -> Self {
        Self {
            invisible_time: Duration::from_secs(60),
            batch: 32,
            messages_per_queue: 96,
            share_queues: None,
        }
    }
}

impl PopConfig {
    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        let invisible_time = Duration::from_secs(5)..=Duration::from_secs(300);
        keys.within("invisible_time", &mut self.invisible_time, invisible_time);
        keys.within("batch", &mut self.batch, 1..=32);
        keys.within("messages_per_queue", &mut self.messages_per_queue, 1..=65535);
        keys.optional_within("share_queues", &mut self.share_queues, 0..=65535);
    }
}

/// How messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ConsumeMode {
    /// Each queue belongs to one member, which pulls it and stores how far it is.
    #[default]
    Pull,
    /// Brokers hand out messages one by one, to any member, and want each acknowledged (5.x).
    ///
    /// More members than queues have work, and a member that hangs holds up nothing but what it has.
    Pop,
}

impl Word for ConsumeMode {
    const WORDS: &'static [(&'static str, Self)] = &[("pull", Self::Pull), ("pop", Self::Pop)];
}

/// Where a queue begins for which the group has no offset yet. Without effect once it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ConsumeFrom {
    /// `last`: messages sent from now on. (A broker may still say 0 for a young topic.)
    #[default]
    Last,
    /// `first`: the oldest message that is still there.
    First,
    /// `"2026-01-31T00:00:00Z"`, or with an offset such as `+08:00`: the first message stored at or after
    /// that time.
    Timestamp(SystemTime),
}

impl Value for ConsumeFrom {
    fn expected() -> String {
        "`last`, `first` or a time such as `2026-01-31T00:00:00Z`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        let time =
            r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$";
        json!({ "anyOf": [{ "enum": ["last", "first"] }, { "type": "string", "pattern": time }] })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        match raw.text().ok_or(None)? {
            "last" => Ok(Self::Last),
            "first" => Ok(Self::First),
            time => parse_rfc3339(time).map(Self::Timestamp).ok_or(None),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Last => "last".to_owned(),
            Self::First => "first".to_owned(),
            Self::Timestamp(time) => format_rfc3339(*time),
        }
    }
}

/// How long until a failed message is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RetryDelay {
    /// `broker`: longer with each attempt, 10s, 30s, 1m, … 2h.
    #[default]
    Broker,
    /// `1` to `18`: the same level each time, of 1s 5s 10s 30s 1m 2m … 10m 20m 30m 1h 2h.
    Level(u8),
}

impl RetryDelay {
    fn check(&self) -> Result<(), ValueError> {
        match self {
            Self::Broker | Self::Level(1..=18) => Ok(()),
            Self::Level(level) => Err(ValueError::new(format!("there are levels 1 to 18, not {level}"))),
        }
    }
}

impl Value for RetryDelay {
    fn expected() -> String {
        "`broker` or a level from 1 to 18".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "anyOf": [{ "const": "broker" }, { "type": "integer", "minimum": 1, "maximum": 18 }] })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        match raw.text().ok_or(None)? {
            "broker" => Ok(Self::Broker),
            level => level.parse().map(Self::Level).map_err(|_| None),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Broker => "broker".to_owned(),
            Self::Level(level) => level.to_string(),
        }
    }
}

/// What happens to a message whose body does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BadPayload {
    /// To `%DLQ%group` at once: no number of tries makes it decode.
    #[default]
    DeadLetter,
    /// Tried again like any failure, for when a newer version of the program may understand it.
    Retry,
    /// Acknowledged and forgotten, with a warning.
    Skip,
}

impl Word for BadPayload {
    const WORDS: &'static [(&'static str, Self)] =
        &[("dead_letter", Self::DeadLetter), ("retry", Self::Retry), ("skip", Self::Skip)];
}

/// What happens to a message that cannot be read: its checksum is wrong, its body cannot be unpacked, it is cut short.
///
/// It concerns that message alone, is reported with topic, queue and offset, and never stops the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Undecodable {
    /// To `%DLQ%group` as it is, by its broker. Where that cannot find it, it is reported as lost and passed over.
    #[default]
    DeadLetter,
    /// Passed over, with an error in the log.
    Skip,
}

impl Word for Undecodable {
    const WORDS: &'static [(&'static str, Self)] = &[("dead_letter", Self::DeadLetter), ("skip", Self::Skip)];
}

/// How the queues of a topic are shared among the members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Allocate {
    /// Neighbouring queues to each member, as even as can be.
    #[default]
    Averagely,
    /// Queues dealt out in turn.
    Circle,
    /// Few queues move when a member comes or goes.
    ConsistentHash,
    /// A fixed list: `queues`.
    ByConfig,
    /// Only brokers of certain rooms: `rooms`.
    MachineRoom,
    /// Brokers of the member's own room, and those of rooms without members: brokers are named `room@broker`, and
    /// `client.unit` is the room of a member.
    MachineRoomNearby,
}

impl Word for Allocate {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("averagely", Self::Averagely),
        ("circle", Self::Circle),
        ("consistent_hash", Self::ConsistentHash),
        ("by_config", Self::ByConfig),
        ("machine_room", Self::MachineRoom),
        ("machine_room_nearby", Self::MachineRoomNearby),
    ];
}

/// Who shares the queues among the members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Rebalance {
    /// Each member, all with the same result.
    #[default]
    Client,
    /// The broker (5.x).
    Broker,
}

impl Word for Rebalance {
    const WORDS: &'static [(&'static str, Self)] = &[("client", Self::Client), ("broker", Self::Broker)];
}

/// One queue of `allocate: by_config`, written `topic/broker/0`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FixedQueue {
    /// The topic.
    pub topic: String,
    /// The broker's name.
    pub broker: String,
    /// The queue's number on that broker, from 0.
    pub queue: u32,
}

impl std::str::FromStr for FixedQueue {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parts: Vec<&str> = text.split('/').collect();
        match (parts.as_slice(), parts.last().and_then(|queue| queue.parse::<u32>().ok())) {
            ([topic, broker, _], Some(queue))
                if check_topic(topic).is_ok() && !broker.is_empty() && queue <= i32::MAX.unsigned_abs() =>
            {
                Ok(Self { topic: (*topic).to_owned(), broker: (*broker).to_owned(), queue })
            }
            _ => Err(ValueError::new(format!("`{text}` is not a queue such as `topic/broker-a/0`"))),
        }
    }
}

impl fmt::Display for FixedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.broker, self.queue)
    }
}

impl Value for FixedQueue {
    fn expected() -> String {
        "a queue such as `topic/broker-a/0`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "type": "string", "pattern": "^[^/]+/[^/]+/[0-9]+$", "examples": ["topic/broker-a/0"] })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.text().ok_or(None)?.parse().map_err(|error: ValueError| Some(error.to_string()))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
