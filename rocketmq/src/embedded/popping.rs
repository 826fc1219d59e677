//! Pops: messages are handed out one by one, and come again unless they are acknowledged in time.
//!
//! Source: `PopMessageProcessor`, `PopReviveService`, `AckMessageProcessor`, `ChangeInvisibleTimeProcessor`;
//! `protocol.md` section 2.11.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::clock::Now;
use super::effects::Effects;
use super::endpoint::ConnectionId;
use super::held_pops::HeldPop;
use super::leases::LeaseKey;
use super::names::BROKER_NAME;
use super::pulling::Filter;
use super::state::{Refusal, State};
use super::store::{self, NewMessage, Queue, StoredRecord, TopicConfig, edit_properties};
use crate::message::properties;
use crate::protocol::body::perm;
use crate::protocol::pop::{
    BatchAck, ChangeInvisibleTimeResponse, OffsetInfo, PopHandle, PopMessage, PopMessageResponse, RetryFlag,
    init_mode, origin_of_retry, retry_topic_v1, retry_topic_v2,
};
use crate::protocol::{Header, RemotingCommand, ResponseCode};
use crate::remoting::Answer;

/// What one answer holds at most.
const MAX_MESSAGES: i32 = 32;
const MAX_BYTES: usize = 256 << 10;
/// How many messages that do not match are passed over in one queue for one answer.
const MAX_SCANNED: usize = 800;
/// One pop of so many looks at what comes again before it looks at what is new.
const RETRY_FIRST: u64 = 5;
/// Into how many queues of its own a broker writes what it waits for.
const REVIVE_QUEUES: u64 = 8;
/// No pop waits longer, and no message stays invisible for longer, whatever is asked for.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a pop brings together, queue after queue.
struct Basket {
    room: usize,
    starts: OffsetInfo,
    offsets: OffsetInfo,
    records: Vec<Bytes>,
    bytes: usize,
    /// Messages behind those that were looked at.
    rest: i64,
    pop_time: i64,
    revive_qid: i32,
}

impl State {
    /// Answers a pop, or lets it wait.
    pub(super) fn pop(
        &mut self,
        header: PopMessage,
        connection: ConnectionId,
        answer: Answer,
        now: Now,
        effects: &mut Effects,
    ) {
        match self.try_pop(&header, now) {
            Err(refusal) => effects.send(answer, refusal.into_command()),
            Ok(Some(found)) => effects.send(answer, found),
            Ok(None) if self.held_pops.is_full() => {
                effects.send(answer, nothing(ResponseCode::POLLING_FULL, &header, now));
            }
            Ok(None) => {
                let deadline = now.unmoved + millis(header.poll_time);
                if deadline <= now.unmoved {
                    return effects.send(answer, nothing(ResponseCode::POLLING_TIMEOUT, &header, now));
                }
                self.wake_at(now.moved(deadline));
                self.held_pops.hold(HeldPop { header, connection, deadline, answer });
            }
        }
    }

    /// A message has come to `topic`: answers those who wait for it.
    pub(super) fn wake_pops(&mut self, topic: &str, now: Now, effects: &mut Effects) {
        for group in self.held_pops.groups(topic) {
            self.answer_waiting(topic, &group, now, effects);
        }
        if !topic.starts_with("%RETRY%") {
            return;
        }
        for (asked_for, group) in self.held_pops.topics() {
            if origin_of_retry(&group, topic).is_some_and(|(_, origin)| origin == asked_for.as_ref()) {
                self.answer_waiting(&asked_for, &group, now, effects);
            }
        }
    }

    fn answer_waiting(&mut self, topic: &str, group: &str, now: Now, effects: &mut Effects) {
        for pop in self.held_pops.take(topic, group) {
            match self.try_pop(&pop.header, now) {
                Ok(None) => self.held_pops.hold(pop),
                Ok(Some(found)) => effects.send(pop.answer, found),
                Err(refusal) => effects.send(pop.answer, refusal.into_command()),
            }
        }
    }

    /// Answers those who have waited long enough, and makes messages visible again whose time is up.
    pub(super) fn run_due_pops(&mut self, now: Now, effects: &mut Effects) {
        while let Some(key) = self.leases.next_over(now.instant) {
            self.revive(&key, now, effects);
        }
        for pop in self.held_pops.expired(now.unmoved) {
            effects.send(pop.answer, nothing(ResponseCode::POLLING_TIMEOUT, &pop.header, now));
        }
    }

    /// Puts a message that was not acknowledged into the group's retry topic of its topic.
    fn revive(&mut self, key: &LeaseKey, now: Now, effects: &mut Effects) {
        let record = self.record(key).and_then(|record| NewMessage::from_record(&record.bytes));
        let Some((mut message, stored)) = record else { return };
        let first = stored.property(properties::FIRST_POP_TIME).map(str::to_owned);
        let first = first.unwrap_or_else(|| key.pop_time.to_string());
        message.topic = match origin_of_retry(&key.group, &key.topic) {
            Some(_) => Arc::clone(&key.topic),
            None if self.policy.retry_topic_v2 => retry_topic_v2(&key.group, &key.topic),
            None => retry_topic_v1(&key.group, &key.topic),
        };
        message.queue_id = 0;
        message.reconsume_times = message.reconsume_times.saturating_add(1);
        message.properties =
            edit_properties(&message.properties, &[(properties::FIRST_POP_TIME, Some(&first))]);
        if self.group_topic(&message.topic).is_ok() {
            self.append(&message, now, effects);
        }
    }

    fn record(&self, key: &LeaseKey) -> Option<&StoredRecord> {
        let queue = self.store.queue(&key.topic, key.queue_id)?;
        (queue.min_offset()..queue.max_offset())
            .contains(&key.offset)
            .then(|| queue.from(key.offset).next())?
    }

    /// What there is for a pop now.
    fn try_pop(&mut self, header: &PopMessage, now: Now) -> Result<Option<RemotingCommand>, Refusal> {
        let config = self.check_pop(header)?;
        let group = self.group(&header.consumer_group)?;
        let expression = header.exp.as_deref().unwrap_or_default();
        let filter = Filter::parse(expression, header.exp_type.as_deref().unwrap_or_default(), &self.policy)?;
        if let Filter::Unsupported(kind) = &filter {
            return Err(super::pulling::unsupported_filter(kind));
        }
        self.pops += 1;
        let mut basket = Basket {
            room: (header.max_msg_nums.max(0) as usize).min(self.leases.room()),
            starts: OffsetInfo::default(),
            offsets: OffsetInfo::default(),
            records: Vec::new(),
            bytes: 0,
            rest: 0,
            pop_time: now.unix_ms,
            revive_qid: (self.pops % REVIVE_QUEUES) as i32,
        };
        // Of both kinds: the broker may have been told otherwise before.
        let again = [RetryFlag::V1, RetryFlag::V2].into_iter().flat_map(|flag| {
            let retry_topic = flag.topic(&group, &header.topic);
            let queues = self.store.topic(&retry_topic).map_or(0, |topic| topic.config.read_queues);
            (0..queues).map(move |id| (flag, Arc::clone(&retry_topic), id))
        });
        let again: Vec<_> = again.collect();
        let queues = match header.queue_id {
            id if id < 0 => 0..config.read_queues,
            id => id..id + 1,
        };
        // Another queue comes first each time.
        let turn = (self.pops % config.read_queues.max(1) as u64) as i32;
        let count = queues.len().max(1) as i32;
        let first = queues.start;
        let new = queues
            .map(|id| (RetryFlag::Normal, Arc::clone(&header.topic), first + (id - first + turn) % count));
        let order: Vec<_> = match self.pops % RETRY_FIRST {
            0 => again.into_iter().chain(new).collect(),
            _ => new.chain(again).collect(),
        };
        for (flag, topic, queue_id) in order {
            self.pop_queue(header, &group, flag, &topic, queue_id, &filter, &mut basket, now);
        }
        Ok((!basket.records.is_empty()).then(|| basket.into_answer(header)))
    }

    fn check_pop(&self, header: &PopMessage) -> Result<TopicConfig, Refusal> {
        let name = &header.topic;
        if MAX_MESSAGES < header.max_msg_nums {
            let remark = "the broker[127.0.0.1] pop message's num is greater than 32";
            return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
        }
        if header.order == Some(true) {
            let remark = "the embedded broker hands out nothing in order";
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
        let Some(topic) = self.store.topic(name) else { return Err(no_topic(name)) };
        if topic.config.perm & perm::READ == 0 {
            let remark = format!("the topic[{name}] peeking message is forbidden");
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        if topic.config.read_queues <= header.queue_id {
            let queues = topic.config.read_queues;
            let remark = format!(
                "queueId[{}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{queues}]",
                header.queue_id
            );
            return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
        }
        Ok(topic.config)
    }

    #[expect(clippy::too_many_arguments, reason = "one queue of one pop, and all that a pop is about")]
    fn pop_queue(
        &mut self,
        header: &PopMessage,
        group: &Arc<str>,
        flag: RetryFlag,
        topic: &Arc<str>,
        queue_id: i32,
        filter: &Filter,
        basket: &mut Basket,
        now: Now,
    ) {
        let Some(queue) = self.store.queue(topic, queue_id) else { return };
        let committed = self.offsets.committed(group, topic, queue_id).filter(|offset| *offset >= 0);
        let start = match committed {
            Some(offset) => offset,
            None if flag != RetryFlag::Normal || header.init_mode == init_mode::MIN => queue.min_offset(),
            None if queue.min_offset() == 0 => 0,
            None => queue.max_offset() - 1,
        };
        let start = start.clamp(queue.min_offset(), queue.max_offset());
        let mut next = start;
        let mut taken = Vec::new();
        for record in queue.from(start).take(MAX_SCANNED) {
            let is_full = basket.room == taken.len() || MAX_BYTES <= basket.bytes;
            if is_full {
                break;
            }
            if filter.matches(record) {
                basket.bytes += record.bytes.len();
                taken.push((next, record.bytes.clone(), record.position, record.stored_at_ms));
            }
            next += 1;
        }
        basket.rest += queue.max_offset() - next;
        if next != start || committed.is_none() {
            self.offsets.commit(group, topic, queue_id, next);
        }
        if taken.is_empty() {
            return;
        }
        basket.room -= taken.len();
        let key = (flag, queue_id);
        basket.starts.0.insert(key, vec![start]);
        basket.offsets.0.insert(key, taken.iter().map(|(offset, ..)| *offset).collect());
        let end = now.instant + millis(header.invisible_time);
        self.wake_at(end);
        for (offset, record, position, stored_at_ms) in taken {
            let lease = LeaseKey {
                group: Arc::clone(group),
                topic: Arc::clone(topic),
                queue_id,
                offset,
                pop_time: basket.pop_time,
            };
            self.leases.put(lease, end);
            let record = match flag {
                RetryFlag::Normal => Some(record),
                _ => {
                    let handle = PopHandle {
                        start_offset: start,
                        pop_time: basket.pop_time,
                        invisible_time: header.invisible_time,
                        revive_qid: basket.revive_qid,
                        retry: flag,
                        broker_name: BROKER_NAME.into(),
                        queue_id,
                        queue_offset: offset,
                    };
                    self.under_own_name(&record, &header.topic, &handle, position, stored_at_ms)
                }
            };
            basket.records.extend(record);
        }
    }

    /// A record of a retry topic as it is handed out: under the topic that it was sent to, with its handle.
    fn under_own_name(
        &self,
        record: &Bytes,
        topic: &Arc<str>,
        handle: &PopHandle,
        position: i64,
        stored_at_ms: i64,
    ) -> Option<Bytes> {
        let (mut message, _) = NewMessage::from_record(record)?;
        message.topic = Arc::clone(topic);
        message.properties =
            edit_properties(&message.properties, &[(properties::POP_CK, Some(&handle.to_string()))]);
        Some(store::encode(&message, self.store.host(), handle.queue_offset, position, stored_at_ms))
    }

    /// A message is done.
    pub(super) fn ack(
        &mut self,
        group: &Arc<str>,
        topic: &Arc<str>,
        handle: &PopHandle,
    ) -> Result<(), Refusal> {
        self.check_popped(topic, handle, Queue::max_offset)?;
        self.leases.remove(&key_of(group, topic, handle));
        Ok(())
    }

    /// Many are done; what is not there is passed over.
    pub(super) fn ack_batch(&mut self, acks: &[BatchAck]) {
        for ack in acks {
            let (Some(retry), Some(offsets)) = (ack.retry(), ack.offsets()) else { continue };
            let group: Arc<str> = ack.consumer_group.as_str().into();
            let topic = retry.topic(&group, &ack.topic.as_str().into());
            for offset in offsets {
                let (group, topic) = (Arc::clone(&group), Arc::clone(&topic));
                let (queue_id, pop_time) = (ack.queue_id, ack.pop_time);
                self.leases.remove(&LeaseKey { group, topic, queue_id, offset, pop_time });
            }
        }
    }

    /// A message is to be visible to others after `invisible_time`, whether it still is invisible or not.
    pub(super) fn change_invisible_time(
        &mut self,
        group: &Arc<str>,
        topic: &Arc<str>,
        handle: &PopHandle,
        invisible_time: i64,
        now: Now,
    ) -> Result<ChangeInvisibleTimeResponse, Refusal> {
        self.check_popped(topic, handle, |queue| queue.max_offset() - 1)?;
        self.leases.remove(&key_of(group, topic, handle));
        let end = now.instant + millis(invisible_time);
        self.leases.put(LeaseKey { pop_time: now.unix_ms, ..key_of(group, topic, handle) }, end);
        self.wake_at(end);
        let revive_qid = handle.revive_qid;
        Ok(ChangeInvisibleTimeResponse { pop_time: now.unix_ms, invisible_time, revive_qid })
    }

    fn check_popped(
        &self,
        topic: &str,
        handle: &PopHandle,
        last: impl Fn(&Queue) -> i64,
    ) -> Result<(), Refusal> {
        let Some(stored) = self.store.topic(topic) else { return Err(no_topic(topic)) };
        let Some(queue) = stored.queue(handle.queue_id) else {
            let remark = format!("queueId[{}] is illegal, topic:[{topic}]", handle.queue_id);
            return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark));
        };
        if (queue.min_offset()..=last(queue)).contains(&handle.queue_offset) {
            return Ok(());
        }
        let remark = format!("offset is illegal, key:{topic}@{}", handle.queue_id);
        Err(Refusal::new(ResponseCode::NO_MESSAGE, remark))
    }
}

impl Basket {
    fn into_answer(self, header: &PopMessage) -> RemotingCommand {
        let answer = PopMessageResponse {
            pop_time: self.pop_time,
            invisible_time: header.invisible_time,
            revive_qid: self.revive_qid,
            rest_num: self.rest,
            start_offset_info: Some(self.starts.encode()),
            msg_offset_info: Some(self.offsets.encode()),
        };
        let mut body = BytesMut::with_capacity(self.records.iter().map(Bytes::len).sum());
        self.records.iter().for_each(|record| body.extend_from_slice(record));
        RemotingCommand::response(ResponseCode::SUCCESS, "FOUND".to_owned())
            .with_fields(answer.to_fields())
            .with_body(body.freeze())
    }
}

fn key_of(group: &Arc<str>, topic: &Arc<str>, handle: &PopHandle) -> LeaseKey {
    LeaseKey {
        group: Arc::clone(group),
        topic: Arc::clone(topic),
        queue_id: handle.queue_id,
        offset: handle.queue_offset,
        pop_time: handle.pop_time,
    }
}

/// The answer to a pop that brings nothing.
fn nothing(code: ResponseCode, header: &PopMessage, now: Now) -> RemotingCommand {
    let answer = PopMessageResponse {
        pop_time: now.unix_ms,
        invisible_time: header.invisible_time,
        revive_qid: 0,
        rest_num: 0,
        start_offset_info: None,
        msg_offset_info: None,
    };
    RemotingCommand::response(code, "NO_MESSAGE_IN_QUEUE".to_owned()).with_fields(answer.to_fields())
}

fn no_topic(name: &str) -> Refusal {
    Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{name}] not exist, apply first please!"))
}

fn millis(time: i64) -> Duration {
    Duration::from_millis(u64::try_from(time).unwrap_or_default()).min(MAX_WAIT)
}
