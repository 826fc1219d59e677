//! All that the broker knows, behind one lock that is held for a few lines at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::assigning::RequestModes;
use super::clock::Now;
use super::delay::DelayedMessages;
use super::effects::Effects;
use super::endpoint::ConnectionId;
use super::groups::Groups;
use super::held_pops::HeldPops;
use super::held_pulls::HeldPulls;
use super::leases::Leases;
use super::locks::Locks;
use super::names;
use super::offsets::Offsets;
use super::pulling::Filter;
use super::replying::Requesters;
use super::store::{Appended, NewMessage, Store, TopicConfig};
use super::transactions::{CheckPolicy, Transactions};
use crate::message::reply_topic;
use crate::protocol::body::perm;
use crate::protocol::{HeaderError, RemotingCommand, ResponseCode};

/// How often silent members and forgotten locks are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ResponseCode,
    pub(super) remark: String,
}

impl Refusal {
    pub(super) fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into() }
    }

    /// Too large, or not what the store can hold.
    pub(super) fn illegal_message() -> Self {
        let remark = "the message is illegal, maybe msg body or properties length not matched. msg body length limit \
                      4194304B, msg properties length limit 32KB.";
        Self::new(ResponseCode::MESSAGE_ILLEGAL, remark)
    }

    pub(super) fn into_command(self) -> RemotingCommand {
        RemotingCommand::response(self.code, self.remark)
    }
}

/// A header or a body that cannot be read.
impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Self::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

/// What the broker does as it was told at its start.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) delay_levels: Vec<Duration>,
    /// Whether members are told to go on from other offsets, as brokers before 5.1 do it.
    pub(super) pushes_resets: bool,
    pub(super) checks: CheckPolicy,
    /// Whether messages may be filtered by their properties.
    pub(super) property_filter: bool,
    /// Where popped messages wait that come again: in `%RETRY%group+topic`, else in `%RETRY%group_topic`.
    pub(super) retry_topic_v2: bool,
}

/// All that the broker knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) policy: Policy,
    pub(super) store: Store,
    pub(super) delayed: DelayedMessages,
    pub(super) held: HeldPulls,
    pub(super) held_pops: HeldPops,
    /// Pops so far: what takes turns goes by them.
    pub(super) pops: u64,
    pub(super) leases: Leases,
    pub(super) modes: RequestModes,
    pub(super) groups: Groups,
    pub(super) offsets: Offsets,
    pub(super) locks: Locks,
    pub(super) requesters: Requesters,
    pub(super) transactions: Transactions,
    /// Wakes the task that calls [`State::run_due`].
    alarm: Arc<Notify>,
    /// When that task will wake by itself.
    alarm_at: Option<Instant>,
}

impl State {
    pub(super) fn new(
        policy: Policy,
        store: Store,
        delayed: DelayedMessages,
        transactions: Transactions,
        alarm: Arc<Notify>,
    ) -> Self {
        Self {
            policy,
            store,
            delayed,
            held: HeldPulls::default(),
            held_pops: HeldPops::default(),
            pops: 0,
            leases: Leases::default(),
            modes: RequestModes::default(),
            groups: Groups::default(),
            offsets: Offsets::default(),
            locks: Locks::default(),
            requesters: Requesters::default(),
            transactions,
            alarm,
            alarm_at: None,
        }
    }

    /// Does what has become due; returns when to call again.
    pub(super) fn run_due(&mut self, now: Now, effects: &mut Effects) -> Instant {
        while let Some(message) = self.delayed.next_due(now.instant) {
            // The topic was there when the message came, and topics do not go.
            self.append(&message, now, effects);
        }
        for pull in self.held.expired(now.unmoved) {
            self.answer_held(pull, effects);
        }
        self.run_due_pops(now, effects);
        self.check_transactions(now, effects);
        effects.tell(self.groups.expire(now.unmoved));
        self.locks.sweep(now.unmoved);
        self.requesters.expire(now.unmoved);
        let held = [self.held.next_deadline(), self.held_pops.next_deadline()];
        let held = held.into_iter().flatten().min().map(|deadline| now.moved(deadline));
        let due = [self.next_due(), held, Some(now.instant + SWEEP_INTERVAL)];
        let next = due.into_iter().flatten().min().unwrap_or(now.instant);
        self.alarm_at = Some(next);
        next
    }

    /// When the time of the next message comes that waits for it: for its delay, or for the end of a lease.
    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.delayed.next_time(), self.leases.next_end(), self.transactions.next_time()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Makes sure that [`State::run_due`] is called at `time`, or before.
    pub(super) fn wake_at(&mut self, time: Instant) {
        if self.alarm_at.is_none_or(|planned| time < planned) {
            self.alarm_at = Some(time);
            self.alarm.notify_one();
        }
    }

    /// Stores messages of one queue and answers those who wait for them.
    pub(super) fn append(
        &mut self,
        message: &NewMessage,
        now: Now,
        effects: &mut Effects,
    ) -> Option<Appended> {
        let appended = self.store.append(message, now)?;
        self.wake_waiting(&message.topic, message.queue_id, appended.queue_offset, now, effects);
        Some(appended)
    }

    /// Answers those who wait for one of the messages of a queue that came from this offset on.
    pub(super) fn wake_waiting(
        &mut self,
        topic: &str,
        queue_id: i32,
        from: i64,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(queue) = self.store.queue(topic, queue_id) else { return };
        let wants = |filter: &Filter| queue.from(from).any(|record| filter.matches(record));
        for pull in self.held.arrived(topic, queue_id, wants) {
            self.answer_held(pull, effects);
        }
        self.wake_pops(topic, now, effects);
    }

    /// A connection is gone.
    pub(super) fn disconnect(&mut self, connection: ConnectionId, effects: &mut Effects) {
        self.held.disconnect(connection);
        self.requesters.disconnect(connection);
        self.held_pops.disconnect(connection);
        effects.tell(self.groups.disconnect(connection));
    }

    /// The broker has stopped: what a real one does not write to disk is gone.
    pub(super) fn forget_clients(&mut self) {
        self.held.clear();
        self.held_pops.clear();
        self.groups.clear_members();
        self.locks.clear();
        self.requesters.clear();
        self.alarm_at = None;
    }

    /// Creates the topic from which others are made.
    pub(super) fn put_template(&mut self, queues: i32) {
        let config =
            TopicConfig { perm: perm::READ | perm::WRITE | perm::INHERIT, ..TopicConfig::read_write(queues) };
        self.store.put_topic(names::TEMPLATE_TOPIC, config);
    }

    /// Creates the topic of the replies.
    pub(super) fn put_reply_topic(&mut self) {
        self.store.put_topic(&reply_topic(names::CLUSTER_NAME), TopicConfig::read_write(1));
    }

    /// A group's own topic, which is created when it is first needed: one queue, read and written.
    pub(super) fn group_topic(&mut self, name: &str) -> Result<Arc<str>, Refusal> {
        if let Some(topic) = self.store.topic(name) {
            return Ok(Arc::clone(&topic.name));
        }
        match self.store.put_topic(name, TopicConfig::read_write(1)) {
            Some(topic) => Ok(Arc::clone(&topic.name)),
            None => Err(Refusal::new(ResponseCode::SYSTEM_ERROR, format!("topic[{name}] not exist"))),
        }
    }

    /// The group, which is created when it is first named.
    pub(super) fn group(&mut self, name: &str) -> Result<Arc<str>, Refusal> {
        self.groups.configure(name).ok_or_else(|| {
            let remark = format!("subscription group [{name}] does not exist");
            Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
        })
    }
}
