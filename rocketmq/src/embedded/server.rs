//! The server as its users see it: started, looked into, broken on purpose, stopped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::broker::Broker;
use super::clock::BrokerClock;
use super::delay::DelayedMessages;
use super::endpoint::{self, Endpoint};
use super::name_server::NameServer;
use super::names::{self, BROKER_NAME};
use super::state::{Policy, State};
use super::store::{Queue, Retention, Store, Topic, TopicConfig};
use super::transactions::{CheckPolicy, Transactions};
use crate::clock::Clock;
use crate::message::{MessageExt, stored};
use crate::tasks::Tasks;

/// RocketMQ's own delay levels, in seconds.
const DELAY_LEVELS: [u64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1_200, 1_800, 3_600, 7_200];
/// What an unpacked body may take where [`Server::messages`] shows it.
const MAX_UNPACKED_BYTES: usize = 64 << 20;

/// Why the embedded server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The port cannot be listened on.
    #[error("the embedded {what} cannot listen on port {port}")]
    Listen {
        /// Name server or broker.
        what: &'static str,
        /// The port; 0 where the system was to choose one.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The topic cannot be created.
    #[error("topic {topic:?} cannot be created: {reason}")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// How a [`Server`] is to be.
#[derive(Debug, Clone)]
#[must_use = "nothing is started before `start`"]
pub struct ServerBuilder {
    name_server_port: u16,
    broker_port: u16,
    delay_levels: Vec<Duration>,
    queues: u32,
    auto_create_topics: bool,
    property_filter: bool,
    max_bytes: usize,
    max_messages_per_queue: usize,
    server_side_reset_offset: bool,
    retry_topic_v2: bool,
    checks: CheckPolicy,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            name_server_port: 0,
            broker_port: 0,
            delay_levels: DELAY_LEVELS.map(Duration::from_secs).into(),
            queues: 8,
            auto_create_topics: true,
            property_filter: true,
            max_bytes: 256 << 20,
            max_messages_per_queue: 1_000_000,
            server_side_reset_offset: true,
            retry_topic_v2: false,
            checks: CheckPolicy {
                timeout: Duration::from_secs(6),
                interval: Duration::from_secs(30),
                max: 15,
            },
        }
    }
}

impl ServerBuilder {
    /// The name server's port; default 0, which leaves the choice to the system.
    pub fn name_server_port(mut self, port: u16) -> Self {
        self.name_server_port = port;
        self
    }

    /// The broker's port; default 0, which leaves the choice to the system.
    pub fn broker_port(mut self, port: u16) -> Self {
        self.broker_port = port;
        self
    }

    /// How long messages of each delay level wait, from level 1 on; default RocketMQ's 18 levels from 1 s to 2 h.
    ///
    /// A failed message is delivered again after level 3, then 4, and so on; a level beyond the last one means the
    /// last one. Short levels make tests of retries short. Without any level nothing waits.
    pub fn delay_levels(mut self, levels: impl IntoIterator<Item = Duration>) -> Self {
        self.delay_levels = levels.into_iter().collect();
        self
    }

    /// The most queues that a topic gets which a first message creates; default 8, at least 1.
    ///
    /// The sender may ask for fewer, and all clients do: for 4, by default.
    pub fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// Whether the first message creates its topic; default `true`.
    ///
    /// Production brokers often do not: with `false`, a topic that was forgotten is found in the test.
    pub fn auto_create_topics(mut self, auto_create: bool) -> Self {
        self.auto_create_topics = auto_create;
        self
    }

    /// Whether consumers may choose messages by SQL92; default `true`.
    ///
    /// Real brokers have `enablePropertyFilter=false` unless told otherwise: `false` shows what a program says then.
    pub fn property_filter(mut self, enabled: bool) -> Self {
        self.property_filter = enabled;
        self
    }

    /// What all messages together may take in memory; default 256 MiB.
    ///
    /// Beyond it the oldest messages are dropped, whether consumed or not, and the smallest offset of their queue
    /// moves on. As much again may wait for its delay, and as much for the end of its transaction; beyond that, such
    /// messages are refused.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many messages a queue may hold; default 1,000,000. Beyond it, its oldest are dropped.
    pub fn max_messages_per_queue(mut self, messages: usize) -> Self {
        self.max_messages_per_queue = messages;
        self
    }

    /// Whether the next pull tells a group that its offset was reset, as with brokers from 5.1 on; default `true`.
    ///
    /// With `false` the members that are there are told at once, as older brokers do it. What a 5.x broker has as
    /// `useServerSideResetOffset`.
    pub fn server_side_reset_offset(mut self, server_side: bool) -> Self {
        self.server_side_reset_offset = server_side;
        self
    }

    /// Whether popped messages that come again wait in `%RETRY%group+topic` instead of `%RETRY%group_topic`, where the names
    /// of two groups cannot be taken for each other; default `false`.
    ///
    /// What a 5.x broker has as `enableRetryTopicV2`.
    pub fn retry_topic_v2(mut self, enabled: bool) -> Self {
        self.retry_topic_v2 = enabled;
        self
    }

    /// How long a transaction may be open before a producer of its group is asked about it; default 6 s, the
    /// `transactionTimeOut` of a real broker.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.checks.timeout = timeout;
        self
    }

    /// How long after that it is asked again; default 30 s, at least 1 ms: the `transactionCheckInterval` of a real broker.
    pub fn transaction_check_interval(mut self, interval: Duration) -> Self {
        self.checks.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How often it is asked before the message is dropped; default 15, the `transactionCheckMax` of a real broker.
    ///
    /// What was dropped is in `TRANS_CHECK_MAX_TIME_TOPIC`: see [`Server::messages`].
    pub fn transaction_check_max(mut self, times: u32) -> Self {
        self.checks.max = times;
        self
    }

    /// Starts name server and broker on the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// [`ServerError::Listen`] where a port is taken.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind by a start that is given up.
    pub async fn start(self) -> Result<Server, ServerError> {
        self.start_by(Clock::movable()).await
    }

    /// The same with a clock that others have, too.
    pub(crate) async fn start_by(self, clock: Clock) -> Result<Server, ServerError> {
        let listen_error = |what, port| move |source| ServerError::Listen { what, port, source };
        let (name_server_address, name_server_socket) = endpoint::reserve(self.name_server_port)
            .map_err(listen_error("name server", self.name_server_port))?;
        let (broker_address, broker_socket) =
            endpoint::reserve(self.broker_port).map_err(listen_error("broker", self.broker_port))?;
        let retention = Retention {
            max_bytes: self.max_bytes,
            max_messages_per_queue: self.max_messages_per_queue.max(1),
        };
        let alarm = Arc::new(Notify::new());
        let delayed = DelayedMessages::new(self.delay_levels.len(), self.max_bytes);
        let policy = Policy {
            delay_levels: self.delay_levels,
            property_filter: self.property_filter,
            pushes_resets: !self.server_side_reset_offset,
            retry_topic_v2: self.retry_topic_v2,
            checks: self.checks,
        };
        let (store, transactions) =
            (Store::new(broker_address, retention), Transactions::new(self.max_bytes));
        let mut state = State::new(policy, store, delayed, transactions, Arc::clone(&alarm));
        if self.auto_create_topics {
            state.put_template(i32::try_from(self.queues).unwrap_or(i32::MAX).max(1));
        }
        state.put_reply_topic();
        state.put_transaction_topics();
        let broker = Arc::new(Broker::new(state, BrokerClock::start(clock), alarm));
        let name_server = Arc::new(NameServer::new(Arc::clone(&broker), broker_address));
        let tasks = Tasks::default();
        let server = Server {
            broker: Endpoint::new(broker, broker_address, broker_socket, tasks.clone()),
            name_server: Endpoint::new(name_server, name_server_address, name_server_socket, tasks.clone()),
            tasks,
        };
        server.start_broker().await?;
        server.start_name_server().await?;
        Ok(server)
    }
}

/// A name server and a broker in this process. Ends when it is dropped; [`Server::shutdown`] also waits for the end.
#[derive(Debug)]
pub struct Server {
    name_server: Endpoint<NameServer>,
    broker: Endpoint<Broker>,
    tasks: Tasks,
}

impl Server {
    /// A server with the defaults of a real one, on ports that the system chooses.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The name server's address, `127.0.0.1:port`, which clients are configured with.
    pub fn name_server(&self) -> String {
        self.name_server.address().to_string()
    }

    /// The broker's address, `127.0.0.1:port`, which clients learn from the name server.
    pub fn broker(&self) -> String {
        self.broker.address().to_string()
    }

    /// Creates a topic, or changes how many queues it has.
    ///
    /// # Errors
    ///
    /// [`ServerError::Topic`] where RocketMQ does not allow the name, or there would be too many queues.
    pub fn create_topic(&self, topic: &str, queues: u32) -> Result<(), ServerError> {
        let queues = i32::try_from(queues).unwrap_or(i32::MAX);
        let created = self
            .broker
            .service()
            .with_state(|state| state.create_topic(topic, TopicConfig::read_write(queues)));
        created.map_err(|refusal| ServerError::Topic { topic: topic.to_owned(), reason: refusal.remark })
    }

    /// Moves the clock of the broker forward: messages that are due by then are delivered at once, without waiting.
    ///
    /// What runs by it is what messages wait for: delays and retries. Clients have their own clocks, and are not
    /// forgotten because of it. Whoever tests an application uses the kit in `rocketmq::testing`, whose clients go along.
    pub fn advance(&self, by: Duration) {
        self.broker.service().clock().advance(by);
    }

    /// Stops the broker as if its process had been killed: its connections are cut, whatever is under way on them, and
    /// the name server forgets its topics. Its messages, offsets and delays are kept, its port stays its own.
    ///
    /// Returns when the last connection is gone. Nothing happens where the broker is stopped.
    pub async fn stop_broker(&self) {
        self.broker.close().await;
    }

    /// Starts the broker again, on the same port and with what it had stored.
    ///
    /// What has become due in the meantime is delivered at once. Nothing happens where the broker runs.
    ///
    /// # Errors
    ///
    /// [`ServerError::Listen`] where the port was lost to another process.
    pub async fn start_broker(&self) -> Result<(), ServerError> {
        let port = self.broker.address().port();
        self.broker.open().map_err(|source| ServerError::Listen { what: "broker", port, source })
    }

    /// Stops the name server as if its process had been killed. The broker goes on.
    pub async fn stop_name_server(&self) {
        self.name_server.close().await;
    }

    /// Starts the name server again. It knows the broker at once, where a real one has to wait for its registration.
    ///
    /// # Errors
    ///
    /// [`ServerError::Listen`] where the port was lost to another process.
    pub async fn start_name_server(&self) -> Result<(), ServerError> {
        let port = self.name_server.address().port();
        self.name_server.open().map_err(|source| ServerError::Listen { what: "name server", port, source })
    }

    /// Stops both, and waits until nothing of them is left.
    pub async fn shutdown(self) {
        self.stop().await;
    }

    pub(crate) async fn stop(&self) {
        self.stop_name_server().await;
        self.stop_broker().await;
    }

    /// The names of all topics, those of the broker and of the groups among them.
    pub fn topics(&self) -> Vec<String> {
        self.broker.service().with_state(|state| {
            state.store.topics().into_iter().map(|topic| topic.name.to_string()).collect()
        })
    }

    /// The messages of a topic in the order in which they were stored, as a consumer would get them; none where there
    /// is no such topic. Those that wait for their delay are not there yet.
    ///
    /// Names like `%RETRY%group` and `%DLQ%group` work as well. A message whose body cannot be unpacked is left out.
    pub fn messages(&self, topic: &str) -> Vec<MessageExt> {
        let mut records: Vec<_> = self.broker.service().with_state(|state| {
            let queues = state.store.topic(topic).map(Topic::queues).unwrap_or_default();
            let records = queues.iter().flat_map(|queue| queue.from(queue.min_offset()));
            records.map(|record| (record.position, record.bytes.clone())).collect()
        });
        records.sort_unstable_by_key(|(position, _)| *position);
        let messages = records.into_iter().map(|(_, record)| stored::decode(record, MAX_UNPACKED_BYTES));
        messages
            .filter_map(Result::ok)
            .map(|mut message| {
                message.set_broker_name(BROKER_NAME.into());
                message
            })
            .collect()
    }

    /// How far a group has come in a queue: the offset of the message that it wants next; `None` where it has not
    /// committed yet.
    pub fn committed(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.broker.service().with_state(|state| state.offsets.committed(group, topic, queue_id))
    }

    /// The offset of the first message that a queue still has; 0 where there is no such queue.
    pub fn min_offset(&self, topic: &str, queue_id: i32) -> i64 {
        let find = |state: &mut State| state.store.queue(topic, queue_id).map(Queue::min_offset);
        self.broker.service().with_state(find).unwrap_or_default()
    }

    /// The offset that the next message of a queue will have; 0 where there is no such queue.
    pub fn max_offset(&self, topic: &str, queue_id: i32) -> i64 {
        let find = |state: &mut State| state.store.queue(topic, queue_id).map(Queue::max_offset);
        self.broker.service().with_state(find).unwrap_or_default()
    }

    /// The client ids of those who are in a consumer group now, in the order in which they came.
    pub fn members(&self, group: &str) -> Vec<String> {
        self.broker.service().with_state(|state| state.groups.members(group))
    }

    /// How many messages a group has given up.
    pub fn dead_letters(&self, group: &str) -> usize {
        self.count(&names::dead_letter_topic(group))
    }

    /// How many messages were put before a group again, and are still stored. One that failed twice counts twice;
    /// those that still wait for their delay do not count.
    pub fn retries(&self, group: &str) -> usize {
        self.count(&names::retry_topic(group))
    }

    /// How many messages of all topics wait for their delay.
    pub fn delayed(&self) -> usize {
        self.broker.service().with_state(|state| state.delayed.len())
    }

    /// How many half messages there are: transactions that nobody has decided about.
    pub fn open_transactions(&self) -> usize {
        self.broker.service().with_state(|state| state.transactions.len())
    }

    /// The messages that wait for their time, the next one first, and how long each still waits.
    pub fn scheduled(&self) -> Vec<(Duration, MessageExt)> {
        let broker = self.broker.service();
        let now = broker.clock().now().instant;
        let records = broker.with_state(|state| state.delayed.records(state.store.host()));
        let messages = records.into_iter().filter_map(|(due, record)| {
            let mut message = stored::decode(record, MAX_UNPACKED_BYTES).ok()?;
            message.set_broker_name(BROKER_NAME.into());
            Some((due.saturating_duration_since(now), message))
        });
        messages.collect()
    }

    /// When the time of the next message comes that waits for it.
    #[cfg(feature = "testing")]
    pub(crate) fn next_due(&self) -> Option<tokio::time::Instant> {
        self.broker.service().with_state(|state| state.next_due())
    }

    /// How many queues a topic has; 0 where there is no such topic.
    #[cfg(feature = "testing")]
    pub(crate) fn queues_of(&self, topic: &str) -> i32 {
        self.broker.service().with_state(|state| {
            let queues = state.store.topic(topic).map_or(0, |topic| topic.queues().len());
            i32::try_from(queues).unwrap_or(i32::MAX)
        })
    }

    /// Whether a group waits for messages of a queue: then there is none for it.
    #[cfg(feature = "testing")]
    pub(crate) fn is_awaited(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        self.broker.service().with_state(|state| state.held.has(group, topic, queue_id))
    }

    /// Whether a group waits in a pop: then there is nothing for it.
    #[cfg(feature = "testing")]
    pub(crate) fn is_pop_awaited(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        self.broker.service().with_state(|state| state.held_pops.has(group, topic, queue_id))
    }

    /// The messages of the transactions that are open.
    #[cfg(feature = "testing")]
    pub(crate) fn half_messages(&self) -> Vec<MessageExt> {
        let records =
            self.broker.service().with_state(|state| state.transactions.records(state.store.host()));
        let messages = records.into_iter().map(|record| stored::decode(record, MAX_UNPACKED_BYTES));
        messages.filter_map(Result::ok).collect()
    }

    /// Since when the last one waits of the producers that were asked about a transaction.
    #[cfg(feature = "testing")]
    pub(crate) fn asked_since(&self) -> Option<tokio::time::Instant> {
        self.broker.service().with_state(|state| state.transactions.asked_since())
    }

    fn count(&self, topic: &str) -> usize {
        let count = |state: &mut State| {
            let queues = state.store.topic(topic).map(Topic::queues).unwrap_or_default();
            queues.iter().map(|queue| queue.max_offset() - queue.min_offset()).sum::<i64>()
        };
        usize::try_from(self.broker.service().with_state(count)).unwrap_or_default()
    }
}

/// Cuts all connections, without waiting for their end.
impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}
