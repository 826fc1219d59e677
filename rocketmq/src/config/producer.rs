//! How messages are sent.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::documented::settings;
use super::names::check_group;
use super::problem::ConfigErrors;
use super::section::{Section, check_by_hand};
use super::units::ByteSize;
use super::value::{Hint, Raw, Value, Word};
use crate::protocol::ResponseCode;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Source: `behaviour.md` section 2.1, `retryResponseCodes`.
const RETRY_CODES: [ResponseCode; 8] = [
    ResponseCode::SYSTEM_ERROR,
    ResponseCode::SYSTEM_BUSY,
    ResponseCode::SERVICE_NOT_AVAILABLE,
    ResponseCode::NO_PERMISSION,
    ResponseCode::TOPIC_NOT_EXIST,
    ResponseCode::NO_BUYER_ID,
    ResponseCode::NOT_IN_CURRENT_UNIT,
    ResponseCode::GO_AWAY,
];

settings! {
/// The keys of one producer under `producers:`. Made by hand: `ProducerConfig::default()`, then set the
/// fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerConfig {
    /// Producer group, 1 to 120 characters; default: the producer's name under `producers:`.
    ///
    /// Brokers ask any member of the group about an open transaction, so producers of transactions
    /// must set it, and no other application may use the same.
    pub group: Option<String>,
    /// The cluster to send to, a name under `clusters:`; default: the one at the top level.
    ///
    /// For declared producers; one built by hand has its name servers.
    pub cluster: Option<String>,
    /// How long one send may take, all its retries included; default `3s`, 1ms to 10m.
    pub send_timeout: Duration,
    /// How long one attempt may take while another one is possible; default: all that is left of
    /// `send_timeout`, 1ms to 10m.
    ///
    /// Set it where brokers may hang: without it, one that does not answer uses up the whole time.
    pub attempt_timeout: Option<Duration>,
    /// How many times a failed send is tried again; default 2, 0 to 16.
    ///
    /// Where the queue is given, by the caller or by a sharding key, there is one attempt.
    pub retries: u32,
    /// The brokers' answers after which a send is tried again, as numbers; default 1, 2, 14, 16, 17, 204,
    /// 205 and 1500.
    ///
    /// Anything else that a broker says ends the send. A broker that cannot be reached, or does not
    /// answer, is always left for another one.
    pub retry_codes: Vec<ResponseCode>,
    /// Whether a message that was stored, but not yet on disk or on a replica, is sent again; default
    /// `false`.
    pub retry_other_broker: bool,
    /// Bodies of at least this size are compressed; default `4KiB`, 1B to 1GiB.
    pub compress_over: ByteSize,
    /// How bodies are compressed; default `zlib`, the only one that 4.x consumers read.
    ///
    /// `zstd` needs the feature `zstd`, for sending only.
    pub compression: Compression,
    /// How hard to try, from fast to small; default 5, 0 to 9. Not for `lz4`, which has no levels.
    pub compress_level: u32,
    /// Largest body accepted, before compression, and largest batch; default `4MiB`, 1B to 1GiB.
    ///
    /// The brokers' `maxMessageSize` must allow it too.
    pub max_message: ByteSize,
    /// Longest delay accepted, for messages that are delayed by time; default `3days`, 1s to 3650days.
    ///
    /// The brokers' `timerMaxDelaySec` must allow it too. Delay levels have no such limit.
    pub max_delay: Duration,
    /// Messages on their way at the same time; default 1024, 1 to 1000000.
    ///
    /// At the limit the next send waits, within its `send_timeout`.
    pub max_in_flight: u32,
    /// Bytes of bodies on their way at the same time; default `100MiB`, 1KiB to 1GiB.
    ///
    /// At the limit the next send waits, within its `send_timeout`. A single body may be larger.
    pub max_in_flight_bytes: ByteSize,
    /// Requests that wait for their replies at the same time; default 1024, 1 to 1000000.
    ///
    /// At the limit the next request waits, within its `send_timeout`.
    pub max_requests: u32,
    /// Messages that travel together.
    pub auto_batch: AutoBatchConfig,
    /// Leaving slow and failing brokers alone for a while.
    pub avoid_faults: AvoidFaultsConfig,
    /// Whether this producer sends in transactions; default `false`. Needs `group`, and a check:
    /// `#[rocketmq::transaction(producer = "…")]`, or by hand
    /// [`ProducerBuilder::check`](crate::ProducerBuilder::check).
    pub transaction: bool,
    /// Answering brokers that ask what has become of a transaction.
    pub check: CheckConfig,
}
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            group: None,
            cluster: None,
            send_timeout: Duration::from_secs(3),
            attempt_timeout: None,
            retries: 2,
            retry_codes: RETRY_CODES.to_vec(),
            retry_other_broker: false,
            compress_over: ByteSize::kib(4),
            compression: Compression::Zlib,
            compress_level: 5,
            max_message: ByteSize::mib(4),
            max_delay: 3 * DAY,
            max_in_flight: 1024,
            max_in_flight_bytes: ByteSize::mib(100),
            max_requests: 1024,
            auto_batch: AutoBatchConfig::default(),
            avoid_faults: AvoidFaultsConfig::default(),
            transaction: false,
            check: CheckConfig::default(),
        }
    }
}

impl ProducerConfig {
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
        let size = ByteSize::bytes(1)..=ByteSize::mib(1024);
        let group_rule = |group: &Option<String>| group.as_deref().map_or(Ok(()), check_group);
        keys.checked("group", &mut self.group, group_rule);
        keys.value("cluster", &mut self.cluster);
        let timeout = Duration::from_millis(1)..=Duration::from_secs(600);
        keys.within("send_timeout", &mut self.send_timeout, timeout.clone());
        keys.optional_within("attempt_timeout", &mut self.attempt_timeout, timeout);
        keys.within("retries", &mut self.retries, 0..=16);
        keys.value("retry_codes", &mut self.retry_codes);
        keys.value("retry_other_broker", &mut self.retry_other_broker);
        keys.within("compress_over", &mut self.compress_over, size.clone());
        keys.value("compression", &mut self.compression);
        keys.within("compress_level", &mut self.compress_level, 0..=9);
        keys.within("max_message", &mut self.max_message, size);
        keys.within("max_delay", &mut self.max_delay, Duration::from_secs(1)..=3650 * DAY);
        keys.within("max_in_flight", &mut self.max_in_flight, 1..=1_000_000);
        let in_flight = ByteSize::kib(1)..=ByteSize::mib(1024);
        keys.within("max_in_flight_bytes", &mut self.max_in_flight_bytes, in_flight);
        keys.within("max_requests", &mut self.max_requests, 1..=1_000_000);
        keys.section("auto_batch", |keys| self.auto_batch.read(keys));
        keys.section("avoid_faults", |keys| self.avoid_faults.read(keys));
        keys.value("transaction", &mut self.transaction);
        keys.section("check", |keys| self.check.read(keys));
        if keys.is_clean() {
            self.relate(keys);
        }
    }

    /// The rules between keys.
    fn relate(&self, keys: &mut Section<'_, '_>) {
        if self.transaction && self.group.is_none() {
            let message =
                "needs a `group` of this application: brokers ask its members about open transactions";
            keys.problem_with("transaction", message);
        }
        if self.auto_batch.enabled && self.send_timeout <= self.auto_batch.linger {
            let message = "must be longer than `auto_batch.linger`, or every batch is late";
            keys.problem_with("send_timeout", message);
        }
    }
}

settings! {
/// Messages of one topic and tag that are sent at nearly the same time travel together.
///
/// Fewer requests, for both sides, at the price of the time that the first message of a batch waits
/// for others. Each caller gets its own result. Messages that are delayed, or large enough to be
/// compressed, travel alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoBatchConfig {
    /// Whether messages are batched; default `false`.
    pub enabled: bool,
    /// How long the first message of a batch waits for others; default `10ms`, 1ms to 30s, and shorter
    /// than `send_timeout`.
    pub linger: Duration,
    /// A batch leaves at once when its bodies have so many bytes; default `32KiB`, 1B to 2MiB.
    pub bytes: ByteSize,
    /// A batch leaves at once when it has so many messages; default 1000, 2 to 100000.
    ///
    /// No more than `max_in_flight` can come together.
    pub messages: u32,
}
}

impl Default for AutoBatchConfig {
    fn default() -> Self {
        Self { enabled: false, linger: Duration::from_millis(10), bytes: ByteSize::kib(32), messages: 1000 }
    }
}

impl AutoBatchConfig {
    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        keys.value("enabled", &mut self.enabled);
        keys.within("linger", &mut self.linger, Duration::from_millis(1)..=Duration::from_secs(30));
        keys.within("bytes", &mut self.bytes, ByteSize::bytes(1)..=ByteSize::mib(2));
        keys.within("messages", &mut self.messages, 2..=100_000);
    }
}

settings! {
/// Brokers that are slow, or fail, get no messages for a while, if there are others.
///
/// How long follows from how long the last send took: 2s from 550ms on, up to 30s from 15s on; 10s
/// after a failure. Not for messages whose queue is given. Source: `behaviour.md` section 2.6.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AvoidFaultsConfig {
    /// Whether brokers are avoided; default `false`: only the retry of a message goes elsewhere.
    pub enabled: bool,
    /// Ask brokers that failed whether they answer again, and leave those alone longer that do not;
    /// default `false`.
    pub detector: bool,
    /// How long such a broker has for its answer; default `200ms`, 1ms to 10m.
    pub detect_timeout: Duration,
    /// How often such a broker is asked; default `2s`, 10ms to 1h.
    pub detect_interval: Duration,
}
}

impl Default for AvoidFaultsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            detector: false,
            detect_timeout: Duration::from_millis(200),
            detect_interval: Duration::from_secs(2),
        }
    }
}

impl AvoidFaultsConfig {
    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        let ms = Duration::from_millis;
        keys.value("enabled", &mut self.enabled);
        keys.value("detector", &mut self.detector);
        keys.within("detect_timeout", &mut self.detect_timeout, ms(1)..=ms(600_000));
        keys.within("detect_interval", &mut self.detect_interval, ms(10)..=ms(3_600_000));
    }
}

settings! {
/// How a producer of transactions answers brokers that ask what has become of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckConfig {
    /// Checks that run at the same time; default 20, 1 to 10000. Java's `checkThreadPoolMaxSize`, which is 1.
    pub concurrency: u32,
    /// Checks that wait for their turn beyond those; default 2000, 0 to 100000. Java's `checkRequestHoldMax`.
    ///
    /// At the limit a question is not answered, and the broker asks again. Each holds its message.
    pub queue: u32,
    /// A check that runs longer is stopped, and its transaction unknown; default `1m`, 1ms to 1h.
    ///
    /// Brokers ask again after 30 seconds (5.x) or a minute (4.x) unless configured otherwise.
    pub timeout: Duration,
}
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self { concurrency: 20, queue: 2000, timeout: Duration::from_secs(60) }
    }
}

impl CheckConfig {
    fn read(&mut self, keys: &mut Section<'_, '_>) {
        keys.document(Self::FIELDS);
        keys.within("concurrency", &mut self.concurrency, 1..=10_000);
        keys.within("queue", &mut self.queue, 0..=100_000);
        let timeout = Duration::from_millis(1)..=Duration::from_secs(3_600);
        keys.within("timeout", &mut self.timeout, timeout);
    }
}

impl Value for ResponseCode {
    fn expected() -> String {
        "the number of a response code".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": i32::MAX })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        let code = u32::read(raw)?;
        i32::try_from(code).map(Self).map_err(|_| None)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// How message bodies are compressed when they are sent. What others have compressed is read in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Read by every client.
    #[default]
    Zlib,
    /// Fast; for 5.x consumers.
    Lz4,
    /// Small; for 5.x consumers. Needs the feature `zstd`.
    Zstd,
}

impl Compression {
    /// What is missing in this build, and how to get it; `None`: nothing.
    pub(crate) fn lacks(self) -> Option<&'static str> {
        const FEATURE: &str = "`zstd` needs the feature `zstd`: `cargo add rocketmq --features zstd`";
        (self == Self::Zstd && !cfg!(feature = "zstd")).then_some(FEATURE)
    }
}

impl Word for Compression {
    const WORDS: &'static [(&'static str, Self)] =
        &[("zlib", Self::Zlib), ("lz4", Self::Lz4), ("zstd", Self::Zstd)];
}
