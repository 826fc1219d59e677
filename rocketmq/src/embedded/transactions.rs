//! Transactions: half messages, which no consumer gets, until their producers have decided.
//!
//! A real broker keeps them in a topic of its own and notes in a second one, the op topic, which of them are decided. Here
//! they wait in memory, where what is decided is simply gone; a half message that is put back moves to another place in
//! either. So a decision counts once, whichever of its places it names.
//!
//! Source: `TransactionalMessageServiceImpl`, `EndTransactionProcessor`, `AbstractTransactionalMessageCheckListener`;
//! `behaviour.md` section 2.8.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::clock::Now;
use super::effects::Effects;
use super::names::BROKER_NAME;
use super::state::{Refusal, State};
use super::store::{Appended, NewMessage, TopicConfig, edit_properties, encode};
use crate::message::topic::{CHECKED_TOO_OFTEN_TOPIC, HALF_TOPIC};
use crate::message::{id, properties, sys_flag};
use crate::protocol::transactions::{CheckTransactionState, EndTransaction};
use crate::protocol::{Header, RemotingCommand, Request, ResponseCode};

/// When and how often a producer is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckPolicy {
    /// From the birth of a message to the first check.
    pub(super) timeout: Duration,
    /// From one check to the next.
    pub(super) interval: Duration,
    /// After so many the message is given up.
    pub(super) max: u32,
}

/// The half messages that nobody has decided about.
#[derive(Debug)]
pub(super) struct Transactions {
    open: BTreeMap<u64, Half>,
    /// When each of them is looked at next.
    due: BTreeSet<(Instant, u64)>,
    /// By the places that they have had in the commit log, with their offsets there.
    places: HashMap<i64, (u64, i64)>,
    next_id: u64,
    /// The offset of the next half message in the one queue of all.
    next_offset: i64,
    bytes: usize,
    max_bytes: usize,
}

/// A half message. Its topic and queue are those that it is for.
#[derive(Debug)]
struct Half {
    message: NewMessage,
    due: Instant,
    checks: u32,
    /// Since when a producer that was asked has not answered.
    #[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "the test kit waits for the answer"))]
    asked: Option<Instant>,
    /// All places that it has had in the commit log; the last one is where it is.
    positions: Vec<i64>,
}

impl Transactions {
    /// Beyond `max_bytes` no half message is taken: what waits here is never dropped.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            places: HashMap::new(),
            next_id: 0,
            next_offset: 0,
            bytes: 0,
            max_bytes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn next_time(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The half messages, as those who may see them would get them.
    #[cfg(feature = "testing")]
    pub(super) fn records(&self, host: std::net::SocketAddr) -> Vec<Bytes> {
        self.open.values().map(|half| encode(&half.message, host, 0, 0, 0)).collect()
    }

    /// When the last producer was asked that has not answered.
    #[cfg(feature = "testing")]
    pub(super) fn asked_since(&self) -> Option<Instant> {
        self.open.values().filter_map(|half| half.asked).max()
    }

    fn hold(&mut self, mut message: NewMessage, position: i64, due: Instant) -> Result<i64, Refusal> {
        // A copy of its own: the body may be a slice of a much larger network buffer.
        message.body = Bytes::copy_from_slice(&message.body);
        let bytes = size(&message);
        if self.max_bytes < self.bytes + bytes {
            let remark = format!("the half messages would take more than {} bytes", self.max_bytes);
            return Err(Refusal::new(ResponseCode::SYSTEM_BUSY, remark));
        }
        self.bytes += bytes;
        let id = self.next_id;
        self.next_id += 1;
        self.due.insert((due, id));
        self.open.insert(id, Half { message, due, checks: 0, asked: None, positions: Vec::new() });
        Ok(self.place(id, position))
    }

    /// Gives a half message a place at the end of the queue.
    fn place(&mut self, id: u64, position: i64) -> i64 {
        let offset = self.next_offset;
        self.next_offset += 1;
        self.places.insert(position, (id, offset));
        if let Some(half) = self.open.get_mut(&id) {
            half.positions.push(position);
        }
        offset
    }

    fn remove(&mut self, id: u64) -> Option<NewMessage> {
        let half = self.open.remove(&id)?;
        self.due.remove(&(half.due, id));
        for position in half.positions {
            self.places.remove(&position);
        }
        self.bytes -= size(&half.message);
        Some(half.message)
    }

    /// The half message that a decision is about. Source: `EndTransactionProcessor.checkPrepareMessage`.
    fn find(&self, end: &EndTransaction) -> Result<u64, Refusal> {
        let refuse = |remark| Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        let Some((id, offset)) = self.places.get(&end.commit_log_offset) else {
            return refuse("Find prepared transaction message failed");
        };
        let group = self.open.get(id).and_then(|half| group(&half.message));
        if group != Some(&*end.producer_group) {
            return refuse("The producer group wrong");
        }
        if *offset != end.tran_state_table_offset {
            return refuse("The transaction state table offset wrong");
        }
        Ok(*id)
    }

    /// The half messages to be looked at now; each is next after `interval`.
    fn take_due(&mut self, now: Instant, interval: Duration) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some((due, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, id));
            ids.push(id);
        }
        for id in &ids {
            if let Some(half) = self.open.get_mut(id) {
                half.due = now + interval;
                self.due.insert((half.due, *id));
            }
        }
        ids
    }
}

impl State {
    /// Creates the topics of transactions, by whose routes producers know which brokers may ask them.
    pub(super) fn put_transaction_topics(&mut self) {
        for topic in [HALF_TOPIC, CHECKED_TOO_OFTEN_TOPIC] {
            self.store.put_topic(topic, TopicConfig::read_write(1));
        }
    }

    /// Keeps a half message back.
    pub(super) fn hold_half(&mut self, mut message: NewMessage, now: Now) -> Result<Appended, Refusal> {
        let queue_id = message.queue_id.to_string();
        let real = [
            (properties::REAL_TOPIC, Some(&*message.topic)),
            (properties::REAL_QUEUE_ID, Some(queue_id.as_str())),
        ];
        message.properties = edit_properties(&message.properties, &real);
        message.sys_flag &= !sys_flag::TRANSACTION_ROLLBACK;
        if properties::MAX_BYTES < message.properties.len() {
            return Err(Refusal::illegal_message());
        }
        let immunity = properties::find(&message.properties, properties::CHECK_IMMUNITY_TIME_IN_SECONDS);
        let immunity = immunity.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        // Longer than a server lives is for ever.
        let wait = immunity.unwrap_or(self.policy.checks.timeout).min(Duration::from_secs(1 << 30));
        let position = self.store.reserve(message.body.len() + message.properties.len());
        let due = now.instant + wait;
        let queue_offset = self.transactions.hold(message, position, due)?;
        self.wake_at(due);
        Ok(Appended { queue_offset, position })
    }

    /// A producer says what has become of a transaction (37); `false` where that is still not known.
    pub(super) fn end_transaction(
        &mut self,
        end: &EndTransaction,
        now: Now,
        effects: &mut Effects,
    ) -> Result<bool, Refusal> {
        if let Some((id, _)) = self.transactions.places.get(&end.commit_log_offset)
            && let Some(half) = self.transactions.open.get_mut(id)
        {
            half.asked = None;
        }
        match end.commit_or_rollback {
            sys_flag::TRANSACTION_COMMIT => {
                let id = self.transactions.find(end)?;
                if let Some(mut message) = self.transactions.remove(id) {
                    message.sys_flag |= sys_flag::TRANSACTION_COMMIT;
                    message.prepared_transaction_offset = end.commit_log_offset;
                    // The topic was there when the message came, and topics do not go.
                    self.append(&message, now, effects);
                }
            }
            sys_flag::TRANSACTION_ROLLBACK => {
                let id = self.transactions.find(end)?;
                self.transactions.remove(id);
            }
            _ => {
                debug!(group = %end.producer_group, message_id = end.msg_id, "a transaction is still open");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks about the transactions that have been open for too long, and gives up those that were asked about too often.
    pub(super) fn check_transactions(&mut self, now: Now, effects: &mut Effects) {
        let CheckPolicy { interval, max, .. } = self.policy.checks;
        for id in self.transactions.take_due(now.instant, interval) {
            let Some(checks) = self.transactions.open.get(&id).map(|half| half.checks) else { continue };
            if max <= checks {
                self.give_up(id, checks, now, effects);
            } else {
                self.ask(id, checks + 1, now, effects);
            }
        }
    }

    fn give_up(&mut self, id: u64, checks: u32, now: Now, effects: &mut Effects) {
        let Some(mut message) = self.transactions.remove(id) else { return };
        warn!(topic = %message.topic, checks, "nobody has decided about a transaction: its message is dropped");
        message.topic = CHECKED_TOO_OFTEN_TOPIC.into();
        message.queue_id = 0;
        self.append(&message, now, effects);
    }

    /// Puts the half message back, and asks any producer of its group. Where there is none now, that counts as well.
    fn ask(&mut self, id: u64, checks: u32, now: Now, effects: &mut Effects) {
        let Some(half) = self.transactions.open.get_mut(&id) else { return };
        let times = checks.to_string();
        let before = size(&half.message);
        half.checks = checks;
        half.message.properties =
            edit_properties(&half.message.properties, &[(properties::TRANSACTION_CHECK_TIMES, Some(&times))]);
        let (message, after) = (half.message.clone(), size(&half.message));
        self.transactions.bytes = self.transactions.bytes + after - before;
        let position = self.store.reserve(message.body.len() + message.properties.len());
        let queue_offset = self.transactions.place(id, position);
        let producer = group(&message).and_then(|group| self.requesters.any_of(group));
        let Some(producer) = producer else {
            return warn!(topic = %message.topic, group = group(&message), checks, "no producer of the group is here that could be asked about a transaction");
        };
        if let Some(half) = self.transactions.open.get_mut(&id) {
            half.asked = Some(now.unmoved);
        }
        let host = self.store.host();
        let unique_key = properties::find(&message.properties, properties::UNIQUE_KEY).map(str::to_owned);
        let header = CheckTransactionState {
            topic: Some(HALF_TOPIC.to_owned()),
            tran_state_table_offset: queue_offset,
            commit_log_offset: position,
            msg_id: unique_key.clone(),
            transaction_id: unique_key,
            offset_msg_id: Some(id::of_offset(host, position)),
            broker_name: Some(BROKER_NAME.to_owned()),
        };
        let record = encode(&message, host, queue_offset, position, now.unix_ms);
        effects.push([(
            producer,
            RemotingCommand::request(CheckTransactionState::CODE, header.to_fields(), record),
        )]);
    }
}

fn group(message: &NewMessage) -> Option<&str> {
    properties::find(&message.properties, properties::PRODUCER_GROUP)
}

fn size(message: &NewMessage) -> usize {
    512 + message.body.len() + message.properties.len()
}
