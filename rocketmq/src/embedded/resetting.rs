//! A group goes on from other offsets, because an operator wants it to.
//!
//! As brokers from 5.1 on do it, the next pull of each queue is answered with the new offset, and nothing else that the
//! group commits for the queue counts until then. As those before did, and later ones may, members are told. Source:
//! `protocol.md` section 3.5, `AdminBrokerProcessor.resetOffset`, `Broker2Client.resetOffset`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::broker::{Broker, success};
use super::effects::Effects;
use super::names::BROKER_NAME;
use super::state::{Refusal, State};
use super::store::{Boundary, Topic};
use crate::message::MessageQueue;
use crate::protocol::broker_calls::{ResetOffset, write_offset_table};
use crate::protocol::header::Header;
use crate::protocol::{RemotingCommand, RequestCode, ResponseCode, json};

impl Broker {
    pub(super) fn reset_offset(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = ResetOffset::read(&command.ext_fields)?;
        // What members are told has the form that the operator's tool is written in, and not they.
        let write = if command.language_name() == "CPP" { write_offset_list } else { write_offset_table };
        let offsets = self.change(|state, _, effects| state.reset_offset(&header, write, effects))?;
        Ok(success().with_body(write_offset_table(&offsets)))
    }
}

/// How offsets are written for those who are told.
type Write = fn(&BTreeMap<MessageQueue, i64>) -> Vec<u8>;

impl State {
    fn reset_offset(
        &mut self,
        header: &ResetOffset,
        write: Write,
        effects: &mut Effects,
    ) -> Result<BTreeMap<MessageQueue, i64>, Refusal> {
        let ResetOffset { topic, group, .. } = header;
        let Some(found) = self.store.topic(topic) else {
            return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("Topic {topic} does not exist")));
        };
        let Some(known) = self.groups.known(group).map(Arc::clone) else {
            let remark = format!("Group {group} does not exist");
            return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        };
        let topic = Arc::clone(&found.name);
        let targets = targets(found, header)?;
        if self.policy.pushes_resets {
            return self.push_reset(header, &topic, &known, targets, write, effects);
        }
        for (queue_id, offset) in &targets {
            self.offsets.reset(&known, &topic, *queue_id, *offset);
            // Apache's brokers leave those who wait alone, for up to 15 seconds.
            for pull in self.held.take_queue(&topic, *queue_id) {
                self.answer_held(pull, effects);
            }
        }
        Ok(named(&topic, targets))
    }

    fn push_reset(
        &self,
        header: &ResetOffset,
        topic: &Arc<str>,
        group: &Arc<str>,
        mut targets: BTreeMap<i32, i64>,
        write: Write,
        effects: &mut Effects,
    ) -> Result<BTreeMap<MessageQueue, i64>, Refusal> {
        for (queue_id, target) in &mut targets {
            let Some(current) = self.offsets.committed(group, topic, *queue_id) else {
                let remark = format!("THe consumer group <{group}> not exist");
                return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
            };
            if header.is_force != Some(true) {
                *target = current.min(*target);
            }
        }
        let peers = self.groups.peers(group);
        if peers.is_empty() {
            let remark = format!(
                "Consumer not online, so can not reset its offset, Group: {group} Topic: {topic} Timestamp: {}",
                header.timestamp
            );
            return Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark));
        }
        let offsets = named(topic, targets);
        let code = RequestCode::RESET_CONSUMER_CLIENT_OFFSET;
        let body = write(&offsets);
        let command = RemotingCommand::request(code, header.to_fields(), body.into());
        effects.push(peers.into_iter().map(|(_, peer)| (peer, command.clone())));
        Ok(offsets)
    }
}

/// Where each queue is to go on: all of them, or the one that is named.
fn targets(topic: &Topic, header: &ResetOffset) -> Result<BTreeMap<i32, i64>, Refusal> {
    let at = |queue_id: i32| {
        let queue = topic.queue(queue_id)?;
        let offset = match header.timestamp {
            ..0 => queue.max_offset(),
            time => queue.offset_at(time, Boundary::Lower),
        };
        Some((queue_id, offset))
    };
    let Some(queue_id) = header.queue_id.filter(|id| *id >= 0) else {
        return Ok((0..topic.config.read_queues).filter_map(at).collect());
    };
    let Some(queue) = topic.queue(queue_id) else {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "No queues to reset."));
    };
    let (min, max) = (queue.min_offset(), queue.max_offset());
    match header.offset.filter(|offset| *offset != -1) {
        None => Ok(at(queue_id).into_iter().collect()),
        Some(offset) if (min..=max).contains(&offset) => Ok([(queue_id, offset)].into()),
        Some(offset) => {
            let remark = format!("Target offset {offset} not in consume queue range [{min}-{max}]");
            Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
        }
    }
}

/// Offsets in the form for clients in C, which have no maps with such keys.
fn write_offset_list(offsets: &BTreeMap<MessageQueue, i64>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Entry<'a> {
        #[serde(flatten)]
        queue: &'a MessageQueue,
        offset: i64,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        offset_table: Vec<Entry<'a>>,
    }

    let entry = |(queue, offset): (_, &i64)| Entry { queue, offset: *offset };
    json::write(&Body { offset_table: offsets.iter().map(entry).collect() })
}

fn named(topic: &Arc<str>, targets: BTreeMap<i32, i64>) -> BTreeMap<MessageQueue, i64> {
    let name = |(queue_id, offset)| (MessageQueue::new(Arc::clone(topic), BROKER_NAME, queue_id), offset);
    targets.into_iter().map(name).collect()
}
