//! The broker: which request is which, and what its answer looks like. The decisions are the state's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::clock::{BrokerClock, Now};
use super::effects::Effects;
use super::endpoint::{Connection, Service};
use super::names::REGION;
use super::sending::SendRequest;
use super::state::{Refusal, State};
use super::store::{Boundary, MAX_QUEUES, Queue, TopicConfig};
use crate::message::properties;
use crate::protocol::body::{CheckClientConfig, ConsumerList, HeartbeatData, LockBatch, LockedQueues};
use crate::protocol::header::{
    CreateTopic, GetConsumerList, GetEarliestMessageTime, GetMaxOffset, GetMinOffset, OffsetResponse,
    PullMessage, QueryConsumerOffset, RecallMessage, SearchOffset, SendMessageBack, SendMessageResponse,
    SendMessageV1, SendMessageV2, TimestampResponse, UnregisterClient, UpdateConsumerOffset, ViewMessage,
};
use crate::protocol::transactions::EndTransaction;
use crate::protocol::{Header, RemotingCommand, RequestCode, ResponseCode, json};
use crate::remoting::Answer;
use crate::tasks::Tasks;

/// A broker in this process.
#[derive(Debug)]
pub(super) struct Broker {
    state: Mutex<State>,
    clock: BrokerClock,
    alarm: Arc<Notify>,
    /// Whether its port is open.
    is_open: AtomicBool,
    /// Those of its port, as long as that is open.
    pub(super) tasks: Mutex<Tasks>,
}

impl Broker {
    /// `alarm` is the one that `state` rings.
    pub(super) fn new(state: State, clock: BrokerClock, alarm: Arc<Notify>) -> Self {
        Self {
            state: Mutex::new(state),
            clock,
            alarm,
            is_open: AtomicBool::new(false),
            tasks: Mutex::default(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Looks at the state, or changes what nobody waits for.
    pub(super) fn with_state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The time by which messages wait.
    pub(super) fn clock(&self) -> &BrokerClock {
        &self.clock
    }

    /// Changes the state, then carries out what follows for others.
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut State, Now, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let result = self.with_state(|state| act(state, self.clock.now(), &mut effects));
        effects.carry_out();
        result
    }

    /// Delivers what was delayed, and answers those who have waited long enough.
    async fn keep_time(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            let next = self.change(State::run_due);
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.alarm.notified() => {}
                () = self.clock.sleep_until(next) => {}
            }
        }
    }

    fn answer(&self, connection: &Connection, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        if let Some(answered) = self.answer_pop_request(command) {
            return answered;
        }
        match command.request_code() {
            RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => {
                Ok(self.send(connection, command))
            }
            RequestCode::RECALL_MESSAGE => self.recall(command),
            RequestCode::CONSUMER_SEND_MSG_BACK => self.send_back(command),
            RequestCode::QUERY_CONSUMER_OFFSET => self.query_consumer_offset(command),
            RequestCode::UPDATE_CONSUMER_OFFSET => self.update_consumer_offset(command),
            RequestCode::GET_MAX_OFFSET => self.get_max_offset(command),
            RequestCode::GET_MIN_OFFSET => self.get_min_offset(command),
            RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => self.search_offset(command),
            RequestCode::GET_EARLIEST_MSG_STORETIME => self.get_earliest_time(command),
            RequestCode::VIEW_MESSAGE_BY_ID => self.view_message(command),
            RequestCode::HEART_BEAT => self.heartbeat(connection, command),
            RequestCode::UNREGISTER_CLIENT => self.unregister(connection, command),
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => self.get_consumer_list(command),
            RequestCode::CHECK_CLIENT_CONFIG => self.check_client(command),
            RequestCode::LOCK_BATCH_MQ => self.lock(command),
            RequestCode::UNLOCK_BATCH_MQ => self.unlock(command),
            RequestCode::UPDATE_AND_CREATE_TOPIC => self.create_topic(command),
            _ => self.administer(connection, command),
        }
    }

    fn send(&self, connection: &Connection, command: &RemotingCommand) -> RemotingCommand {
        let sent = read_send(connection, command)
            .and_then(|send| self.change(|state, now, effects| state.send(&send, now, effects)));
        answer_of(sent)
    }

    /// Stores a reply, and answers when its requester has it.
    fn reply(&self, connection: &Connection, command: &RemotingCommand, answer: Answer) {
        let push = read_send(connection, command)
            .and_then(|send| self.change(|state, now, effects| state.reply(&send, now, effects)));
        match push {
            Ok(push) => {
                let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let stopping = tasks.stopping().clone();
                tasks.spawn("push of a reply", async move {
                    if let Some(pushed) = stopping.run_until_cancelled(push.carry_out()).await {
                        answer.send(answer_of(pushed));
                    }
                });
            }
            Err(refusal) => answer.send(answer_of(Err(refusal))),
        }
    }

    fn recall(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let request = RecallMessage::read(&command.ext_fields)?;
        let recalled = self.change(|state, now, _| state.recall(&request, now))?;
        Ok(success().with_fields(recalled.to_fields()))
    }

    fn send_back(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = SendMessageBack::read(&command.ext_fields)?;
        self.change(|state, now, effects| state.send_back(&header, command.version, now, effects))?;
        Ok(success())
    }

    /// That a transaction is still open is not answered, whoever says it.
    fn end_transaction(&self, command: &RemotingCommand, answer: Answer) {
        let ended = EndTransaction::read(&command.ext_fields)
            .map_err(Refusal::from)
            .and_then(|end| self.change(|state, now, effects| state.end_transaction(&end, now, effects)));
        match ended {
            Ok(true) => answer.send(success()),
            Ok(false) => {}
            Err(refusal) => answer.send(refusal.into_command()),
        }
    }

    fn pull(&self, connection: &Connection, command: &RemotingCommand, answer: Answer) {
        match PullMessage::read(&command.ext_fields) {
            Ok(header) => {
                self.change(|state, now, effects| state.pull(header, connection.id, answer, now, effects));
            }
            Err(error) => answer.send(Refusal::from(error).into_command()),
        }
    }

    /// A group without an offset begins at 0 where the queue still has its first message: such a queue is young.
    fn query_consumer_offset(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = QueryConsumerOffset::read(&command.ext_fields)?;
        let (committed, is_young) = self.with_state(|state| {
            let committed = state.offsets.committed(&header.consumer_group, &header.topic, header.queue_id);
            let queue = state.store.queue(&header.topic, header.queue_id);
            (committed, queue.is_some_and(|queue| queue.min_offset() == 0 && queue.max_offset() > 0))
        });
        let not_found = |remark| Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
        match committed {
            Some(offset) if offset >= 0 => Ok(offset_answer(offset)),
            _ if header.set_zero_if_not_found == Some(false) => {
                not_found("Not found, do not set to zero, maybe this group boot first")
            }
            _ if is_young => Ok(offset_answer(0)),
            _ => not_found("Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first"),
        }
    }

    fn update_consumer_offset(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = UpdateConsumerOffset::read(&command.ext_fields)?;
        let UpdateConsumerOffset { consumer_group: group, topic, queue_id, commit_offset } = &header;
        self.with_state(|state| {
            let Some(group) = state.groups.known(group) else {
                let remark = format!("Group {group} not exist!");
                return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
            };
            let Some(stored) = state.store.topic(topic) else {
                let remark = format!("Topic {topic} not exist!");
                return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
            };
            // Brokers take any queue, there or not; here the number of offsets has a bound.
            if !(0..MAX_QUEUES).contains(queue_id) {
                let remark = format!("queueId[{queue_id}] is illegal, topic:[{topic}]");
                return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
            }
            if state.offsets.is_reset(group, &stored.name, *queue_id) {
                let remark = "Offset has been previously reset".to_owned();
                return Ok(RemotingCommand::response(ResponseCode::SUCCESS, remark));
            }
            state.offsets.commit(group, &stored.name, *queue_id, *commit_offset);
            Ok(success())
        })
    }

    fn get_max_offset(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = GetMaxOffset::read(&command.ext_fields)?;
        Ok(offset_answer(
            self.with_queue(&header.topic, header.queue_id, Queue::max_offset).unwrap_or_default(),
        ))
    }

    fn get_min_offset(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = GetMinOffset::read(&command.ext_fields)?;
        Ok(offset_answer(
            self.with_queue(&header.topic, header.queue_id, Queue::min_offset).unwrap_or_default(),
        ))
    }

    fn search_offset(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = SearchOffset::read(&command.ext_fields)?;
        let boundary = command.ext_fields.get("boundaryType");
        let boundary = match boundary.is_some_and(|boundary| boundary.eq_ignore_ascii_case("upper")) {
            true => Boundary::Upper,
            false => Boundary::Lower,
        };
        let find = |queue: &Queue| queue.offset_at(header.timestamp, boundary);
        Ok(offset_answer(self.with_queue(&header.topic, header.queue_id, find).unwrap_or_default()))
    }

    fn get_earliest_time(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = GetEarliestMessageTime::read(&command.ext_fields)?;
        let timestamp = self.with_queue(&header.topic, header.queue_id, Queue::stored_at_ms).flatten();
        Ok(success().with_fields(TimestampResponse { timestamp: timestamp.unwrap_or(-1) }.to_fields()))
    }

    fn with_queue<T>(&self, topic: &str, queue_id: i32, look: impl FnOnce(&Queue) -> T) -> Option<T> {
        self.with_state(|state| state.store.queue(topic, queue_id).map(look))
    }

    fn view_message(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let offset = ViewMessage::read(&command.ext_fields)?.offset;
        let record = self.with_state(|state| state.store.find(offset).map(|record| record.bytes.clone()));
        let missing = || {
            let remark = format!("can not find message by the offset, {offset}");
            Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
        };
        Ok(success().with_body(record.ok_or_else(missing)?))
    }

    fn heartbeat(
        &self,
        connection: &Connection,
        command: &RemotingCommand,
    ) -> Result<RemotingCommand, Refusal> {
        let heartbeat: HeartbeatData = json::read(&command.body)?;
        self.change(|state, now, effects| {
            if !heartbeat.producer_data_set.is_empty() {
                let groups = heartbeat.producer_data_set.iter().map(|data| data.group_name.clone()).collect();
                state.requesters.register(connection, &heartbeat.client_id, groups, now.unmoved);
            }
            for data in &heartbeat.consumer_data_set {
                // A group that cannot be is passed over, as the broker does; its pulls will say why.
                let Ok(group) = state.group(&data.group_name) else { continue };
                let Ok(_) = state.group_topic(&super::names::retry_topic(&group)) else { continue };
                let id = &heartbeat.client_id;
                let without = heartbeat.without_sub;
                effects.tell(state.groups.register(&group, connection, id, data, without, now.unmoved));
                state.groups.describe(&group, connection, command);
            }
        });
        Ok(success())
    }

    fn unregister(
        &self,
        connection: &Connection,
        command: &RemotingCommand,
    ) -> Result<RemotingCommand, Refusal> {
        let header = UnregisterClient::read(&command.ext_fields)?;
        if let Some(group) = &header.producer_group {
            self.with_state(|state| state.requesters.leave(connection.id, group));
        }
        if let Some(group) = &header.consumer_group {
            self.change(|state, _, effects| effects.tell(state.groups.unregister(group, connection.id)));
        }
        Ok(success())
    }

    fn get_consumer_list(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let group = GetConsumerList::read(&command.ext_fields)?.consumer_group;
        let consumer_id_list = self.with_state(|state| state.groups.members(&group));
        if consumer_id_list.is_empty() {
            let remark = format!("no consumer for this group, {group}");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
        Ok(success().with_body(json::write(&ConsumerList { consumer_id_list })))
    }

    fn check_client(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let check: CheckClientConfig = json::read(&command.body)?;
        self.with_state(|state| state.check_client(&check.subscription_data))?;
        Ok(success())
    }

    fn lock(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let LockBatch { consumer_group, client_id, mq_set, .. } = json::read(&command.body)?;
        let lock_ok_mq_set = self.change(|state, now, _| {
            let group = state.group(&consumer_group)?;
            Ok::<_, Refusal>(state.locks.lock(&group, &client_id, mq_set, now.unmoved))
        })?;
        Ok(success().with_body(json::write(&LockedQueues { lock_ok_mq_set })))
    }

    fn unlock(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let LockBatch { consumer_group, client_id, mq_set, .. } = json::read(&command.body)?;
        self.with_state(|state| state.locks.unlock(&consumer_group, &client_id, &mq_set));
        Ok(success())
    }

    fn create_topic(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = CreateTopic::read(&command.ext_fields)?;
        let config = TopicConfig {
            read_queues: header.read_queue_nums,
            write_queues: header.write_queue_nums,
            perm: header.perm,
        };
        self.with_state(|state| state.create_topic(&header.topic, config))?;
        Ok(success())
    }
}

impl Service for Broker {
    fn opened(self: Arc<Self>, tasks: &Tasks) {
        self.is_open.store(true, Ordering::Relaxed);
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks.clone();
        let stopping = tasks.stopping().clone();
        tasks.spawn_lasting("embedded broker's clock", move || Arc::clone(&self).keep_time(stopping.clone()));
    }

    fn closed(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        self.with_state(State::forget_clients);
    }

    fn request(&self, connection: &Connection, command: RemotingCommand, answer: Answer) {
        match command.request_code() {
            RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => {
                self.pull(connection, &command, answer);
            }
            RequestCode::SEND_REPLY_MESSAGE | RequestCode::SEND_REPLY_MESSAGE_V2 => {
                self.reply(connection, &command, answer);
            }
            RequestCode::POP_MESSAGE => self.pop(connection, &command, answer),
            RequestCode::END_TRANSACTION => self.end_transaction(&command, answer),
            RequestCode::GET_CONSUMER_RUNNING_INFO
            | RequestCode::CONSUME_MESSAGE_DIRECTLY
            | RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => self.relay(&command, answer),
            _ => answer.send(self.answer(connection, &command).unwrap_or_else(Refusal::into_command)),
        }
    }

    fn disconnected(&self, connection: &Connection) {
        self.change(|state, _, effects| state.disconnect(connection.id, effects));
    }
}

pub(super) fn success() -> RemotingCommand {
    RemotingCommand::response(ResponseCode::SUCCESS, None)
}

/// Answers of sends say where they come from even when they say no.
fn answer_of(sent: Result<SendMessageResponse, Refusal>) -> RemotingCommand {
    match sent {
        Ok(sent) => success().with_fields(sent.to_fields()),
        Err(refusal) => {
            let mut command = refusal.into_command();
            command.ext_fields.put(properties::MSG_REGION, REGION);
            command.ext_fields.put(properties::TRACE_ON, "true");
            command
        }
    }
}

fn offset_answer(offset: i64) -> RemotingCommand {
    success().with_fields(OffsetResponse { offset }.to_fields())
}

fn read_send(connection: &Connection, command: &RemotingCommand) -> Result<SendRequest, Refusal> {
    let fields = &command.ext_fields;
    let header: SendMessageV2 = match command.request_code() {
        RequestCode::SEND_MESSAGE | RequestCode::SEND_REPLY_MESSAGE => SendMessageV1::read(fields)?.into(),
        _ => SendMessageV2::read(fields)?,
    };
    let is_batch = header.batch == Some(true);
    let body: Bytes = command.body.clone();
    Ok(SendRequest { header, body, is_batch, from: connection.remote, version: command.version })
}
