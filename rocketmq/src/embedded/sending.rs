//! Sends: single messages and batches, and what takes one back. Source: `SendMessageProcessor`, `AbstractSendMessageProcessor.msgCheck`,
//! `TopicConfigManager`; `protocol.md` section 2.4.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::clock::Now;
use super::delay::{Delay, MAX_TIMER};
use super::effects::Effects;
use super::names::{self, BROKER_NAME, CLUSTER_NAME, REGION};
use super::state::{Refusal, State};
use super::store::{Appended, MAX_QUEUES, NewMessage, TopicConfig, edit_properties};
use crate::message::{RecallHandle, batch, id, properties};
use crate::protocol::ResponseCode;
use crate::protocol::body::perm;
use crate::protocol::header::{RecallMessage, RecallMessageResponse, SendMessageResponse, SendMessageV2};

const MAX_BODY_BYTES: usize = 4 << 20;

/// A message or a batch, and who sent it.
#[derive(Debug)]
pub(super) struct SendRequest {
    pub(super) header: SendMessageV2,
    pub(super) body: Bytes,
    pub(super) is_batch: bool,
    pub(super) from: SocketAddr,
    /// The version of the sender: those before 3.4.9 do not say how often a message may be consumed.
    pub(super) version: i32,
}

impl State {
    pub(super) fn send(
        &mut self,
        send: &SendRequest,
        now: Now,
        effects: &mut Effects,
    ) -> Result<SendMessageResponse, Refusal> {
        let (topic, config) = self.destination(&send.header)?;
        if send.body.is_empty() {
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "the message has no body"));
        }
        if MAX_BODY_BYTES < send.body.len() {
            return Err(Refusal::illegal_message());
        }
        let queue_id = match send.header.queue_id {
            ..0 => fastrand::i32(0..config.write_queues.max(1)),
            chosen => chosen,
        };
        let SendRequest { header, body, .. } = send;
        let message = NewMessage {
            topic,
            queue_id,
            flag: header.flag,
            sys_flag: header.sys_flag,
            born_timestamp_ms: header.born_timestamp,
            born_host: send.from,
            reconsume_times: header.reconsume_times.unwrap_or_default(),
            prepared_transaction_offset: 0,
            body: body.clone(),
            properties: header.properties.clone().unwrap_or_default(),
        };
        match send.is_batch {
            true => self.send_batch(&message, now, effects),
            false => self.send_one(message, send, now, effects),
        }
    }

    fn send_one(
        &mut self,
        mut message: NewMessage,
        send: &SendRequest,
        now: Now,
        effects: &mut Effects,
    ) -> Result<SendMessageResponse, Refusal> {
        let unique_key = match properties::find(&message.properties, properties::UNIQUE_KEY) {
            Some(key) => key.to_owned(),
            None => id::unique(),
        };
        let queue_id = message.queue_id;
        message.properties = edit_properties(
            &message.properties,
            &[
                // The handle by which POP consumers acknowledge is not the sender's to set.
                (properties::POP_CK, None),
                (properties::UNIQUE_KEY, Some(&unique_key)),
                (properties::CLUSTER, Some(CLUSTER_NAME)),
                (properties::MSG_REGION, Some(REGION)),
                (properties::TRACE_ON, Some("true")),
            ],
        );
        self.divert_retry(&mut message, &send.header, send.version, now)?;
        let delay = Delay::of(&message.properties, &self.policy.delay_levels, now)?;
        let is_half = properties::find(&message.properties, properties::TRANSACTION_PREPARED) == Some("true");
        if is_half && !(message.reconsume_times > 0 && delay.is_some()) {
            let held = self.hold_half(message, now)?;
            let msg_id = id::of_offset(self.store.host(), held.position);
            return Ok(response(msg_id, queue_id, held.queue_offset, Some(unique_key)));
        }
        let timer_out_ms = delay.and_then(|delay| delay.timer_out_ms());
        let recall_handle = timer_out_ms.filter(|_| names::group_of_retry_topic(&message.topic).is_none());
        let recall_handle = recall_handle.map(|ms| {
            let handle = RecallHandle {
                topic: message.topic.to_string(),
                broker_name: BROKER_NAME.to_owned(),
                // What was rounded down is not due before the next millisecond.
                deliver_ms: ms + 1,
                message_id: unique_key.clone(),
            };
            handle.encode()
        });
        let stored = self.put(message, delay, now, effects)?;
        let msg_id = id::of_offset(self.store.host(), stored.position);
        let response = response(msg_id, queue_id, stored.queue_offset, Some(unique_key));
        Ok(SendMessageResponse { recall_handle, ..response })
    }

    /// Takes a timer message back (370); one that is not there any more cannot be told from one that never was.
    ///
    /// Source: `RecallMessageProcessor`.
    pub(super) fn recall(
        &mut self,
        request: &RecallMessage,
        now: Now,
    ) -> Result<RecallMessageResponse, Refusal> {
        let refuse = |code, why: &str| Err(Refusal::new(code, format!("recall failed, {why}")));
        if self.store.topic(&request.topic).is_none() {
            let why = format!("the topic[{}] not exist", request.topic);
            return refuse(ResponseCode::TOPIC_NOT_EXIST, &why);
        }
        let Ok(handle) = RecallHandle::decode(&request.recall_handle) else {
            return Err(Refusal::new(ResponseCode::ILLEGAL_OPERATION, "recall handle is invalid"));
        };
        let left_ms = handle.deliver_ms.saturating_sub(now.unix_ms);
        if handle.topic != *request.topic {
            return refuse(ResponseCode::ILLEGAL_OPERATION, "topic not match");
        }
        if handle.broker_name != BROKER_NAME {
            return refuse(ResponseCode::ILLEGAL_OPERATION, "broker service not available");
        }
        if left_ms <= 0 || MAX_TIMER.as_millis() as i64 <= left_ms {
            return refuse(ResponseCode::ILLEGAL_OPERATION, "timestamp invalid");
        }
        self.delayed.take_back(&handle.message_id);
        Ok(RecallMessageResponse { msg_id: handle.message_id })
    }

    /// Stores the messages of a batch next to each other, all or none of them.
    fn send_batch(
        &mut self,
        batch: &NewMessage,
        now: Now,
        effects: &mut Effects,
    ) -> Result<SendMessageResponse, Refusal> {
        if names::group_of_retry_topic(&batch.topic).is_some() {
            let remark = format!("batch request does not support retry group {}", batch.topic);
            return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark));
        }
        let items = batch::decode(batch.body.clone()).collect::<Result<Vec<_>, _>>();
        let items = items.map_err(|reason| Refusal::new(ResponseCode::SYSTEM_ERROR, reason))?;
        let unique_key = properties::find(&batch.properties, properties::UNIQUE_KEY).map(str::to_owned);
        let mut stored = Vec::with_capacity(items.len());
        for item in items {
            let message =
                NewMessage { flag: item.flag, body: item.body, properties: item.properties, ..batch.clone() };
            stored.extend(self.store.append(&message, now));
        }
        let Some(first) = stored.first() else { return Err(Refusal::illegal_message()) };
        self.wake_waiting(&batch.topic, batch.queue_id, first.queue_offset, now, effects);
        let ids: Vec<_> =
            stored.iter().map(|stored| id::of_offset(self.store.host(), stored.position)).collect();
        Ok(response(ids.join(","), batch.queue_id, first.queue_offset, unique_key))
    }

    /// Stores a message now, or lets it wait for its time.
    pub(super) fn put(
        &mut self,
        message: NewMessage,
        delay: Option<Delay>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Appended, Refusal> {
        if properties::MAX_BYTES < message.properties.len() {
            return Err(Refusal::illegal_message());
        }
        let Some(delay) = delay else {
            let missing =
                || Refusal::new(ResponseCode::SYSTEM_ERROR, format!("no queue {}", message.queue_id));
            return self.append(&message, now, effects).ok_or_else(missing);
        };
        let position = self.store.reserve(message.body.len() + message.properties.len());
        let queue_offset = self.delayed.park(message, delay, now)?;
        if let Some(due) = self.delayed.next_time() {
            self.wake_at(due);
        }
        Ok(Appended { queue_offset, position })
    }

    /// The topic that a send goes to, which a first send may create.
    fn destination(&mut self, header: &SendMessageV2) -> Result<(Arc<str>, TopicConfig), Refusal> {
        names::check_topic(&header.topic)?;
        names::check_sendable(&header.topic)?;
        if self.store.topic(&header.topic).is_none() {
            self.create_for_send(header);
        }
        let Some(topic) = self.store.topic(&header.topic) else {
            let remark = format!("topic[{}] not exist, apply first please!", header.topic);
            return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
        };
        // A 5.x broker does not look at the topic's write permission here: it is the clients that keep to it.
        if topic.config.write_queues.max(topic.config.read_queues) <= header.queue_id {
            let remark = format!("request queueId[{}] is illegal, {:?}", header.queue_id, topic.config);
            return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
        }
        Ok((Arc::clone(&topic.name), topic.config))
    }

    /// Creates the topic of a send: as the template that the sender names, if that may be inherited from.
    fn create_for_send(&mut self, header: &SendMessageV2) {
        let template = self.store.topic(&header.default_topic).map(|topic| topic.config);
        let config = match template {
            Some(template) if template.perm & perm::INHERIT != 0 => {
                let queues = header.default_topic_queue_nums.min(template.write_queues).max(1);
                TopicConfig { perm: template.perm & !perm::INHERIT, ..TopicConfig::read_write(queues) }
            }
            _ if names::group_of_retry_topic(&header.topic).is_some() => TopicConfig::read_write(1),
            _ => return,
        };
        self.store.put_topic(&header.topic, config);
    }

    /// Creates a topic or changes it, as an operator asks.
    pub(super) fn create_topic(&mut self, name: &str, config: TopicConfig) -> Result<(), Refusal> {
        names::check_creatable(name)?;
        let allowed = 0..=MAX_QUEUES;
        if !allowed.contains(&config.read_queues) || !allowed.contains(&config.write_queues) {
            let remark = format!("a topic has at most {} queues, not {config:?}", allowed.end());
            return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
        }
        let created = self.store.put_topic(name, config).map(|_| ());
        created.ok_or_else(|| Refusal::new(ResponseCode::SYSTEM_ERROR, "there are too many topics"))
    }
}

fn response(
    msg_id: String,
    queue_id: i32,
    queue_offset: i64,
    transaction_id: Option<String>,
) -> SendMessageResponse {
    SendMessageResponse {
        msg_id,
        queue_id,
        queue_offset,
        transaction_id,
        batch_uniq_id: None,
        recall_handle: None,
        region_id: Some(REGION.to_owned()),
        trace_on: Some(true),
    }
}
