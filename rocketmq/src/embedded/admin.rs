//! What operators ask a broker, so that Apache's `mqadmin` works here unchanged: topics, groups, who is in them and how far
//! they are.
//!
//! Source: `protocol.md` sections 2.10, 3.4, 3.10 and 6.3 to 6.5, `AdminBrokerProcessor`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::broker::{Broker, success};
use super::endpoint::Connection;
use super::names::BROKER_NAME;
use super::state::{Refusal, State};
use super::store::{Queue, Topic, TopicConfig};
use crate::message::MessageQueue;
use crate::protocol::body::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use crate::protocol::header::{Header, header};
use crate::protocol::{ExtFields, Field, HeaderError, RemotingCommand, RequestCode, ResponseCode, json};

header! {
    /// About a topic (202, 300, 351).
    OfTopic { topic: String = "topic", }
}

header! {
    /// About a group (203, and 208, there perhaps only in one topic).
    OfGroup {
        consumer_group: String = "consumerGroup",
        topic: Option<String> = "topic",
    }
}

header! {
    /// What does this group subscribe to? (343, and 345, of one topic)
    Subscribed {
        group: String = "group",
        topic: Option<String> = "topic",
    }
}

/// How a topic is made (the answer to 351).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicConfigBody<'a> {
    topic_name: &'a str,
    read_queue_nums: i32,
    write_queue_nums: i32,
    perm: i32,
    topic_filter_type: &'static str,
    topic_sys_flag: i32,
    order: bool,
    attributes: BTreeMap<String, String>,
}

/// One queue of a topic (202).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicOffset {
    min_offset: i64,
    max_offset: i64,
    last_update_timestamp: i64,
}

/// How far a group is in one queue (208).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    broker_offset: i64,
    consumer_offset: i64,
    pull_offset: i64,
    last_timestamp: i64,
}

/// Who is in a group (the answer to 203).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConsumerConnection {
    pub(super) connection_set: Vec<Member>,
    pub(super) subscription_table: BTreeMap<String, SubscriptionData>,
    pub(super) consume_type: ConsumeType,
    pub(super) message_model: MessageModel,
    pub(super) consume_from_where: ConsumeFromWhere,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Member {
    pub(super) client_addr: String,
    pub(super) client_id: String,
    pub(super) language: &'static str,
    pub(super) version: i32,
}

impl Broker {
    /// Answers what is nobody else's to answer.
    pub(super) fn administer(
        &self,
        connection: &Connection,
        command: &RemotingCommand,
    ) -> Result<RemotingCommand, Refusal> {
        match command.request_code() {
            RequestCode::GET_BROKER_RUNTIME_INFO => Ok(self.runtime_info()),
            RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => self.create_group(command),
            RequestCode::GET_TOPIC_STATS_INFO => self.of_topic(command, topic_stats),
            RequestCode::GET_CONSUMER_CONNECTION_LIST => self.connections(command),
            RequestCode::GET_CONSUME_STATS => self.consume_stats(command),
            RequestCode::INVOKE_BROKER_TO_RESET_OFFSET => self.reset_offset(command),
            RequestCode::QUERY_TOPIC_CONSUME_BY_WHO => self.consumed_by(command),
            RequestCode::VIEW_BROKER_STATS_DATA => {
                Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "the embedded broker keeps no statistics"))
            }
            RequestCode::QUERY_TOPICS_BY_CONSUMER => self.topics_of(command),
            RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER => self.subscription_of(command),
            RequestCode::GET_TOPIC_CONFIG => self.of_topic(command, topic_config),
            other => {
                debug!(code = %other, remote = %connection.remote, "a request that the embedded broker does not know");
                let remark = format!(" request type {} not supported", command.code);
                Err(Refusal::new(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark))
            }
        }
    }

    /// The figures that `clusterList` and `brokerStatus` show; the broker measures none of them.
    fn runtime_info(&self) -> RemotingCommand {
        const RATES: &str = "0.0 0.0 0.0";
        let stored = self.with_state(|state| {
            let queues = state.store.topics().into_iter().flat_map(Topic::queues);
            queues.map(Queue::max_offset).sum::<i64>().to_string()
        });
        let table = BTreeMap::from([
            ("brokerVersionDesc", "V5_5_0"),
            ("brokerVersion", "513"),
            ("brokerActive", "true"),
            ("putTps", RATES),
            ("getTransferredTps", RATES),
            ("getTransferedTps", RATES),
            ("sendThreadPoolQueueSize", "0"),
            ("pullThreadPoolQueueSize", "0"),
            ("sendThreadPoolQueueHeadWaitTimeMills", "0"),
            ("pullThreadPoolQueueHeadWaitTimeMills", "0"),
            ("pageCacheLockTimeMills", "0"),
            ("earliestMessageTimeStamp", "0"),
            ("commitLogDiskRatio", "0.0"),
            ("timerReadBehind", "0"),
            ("timerOffsetBehind", "0"),
            ("timerCongestNum", "0"),
            ("timerEnqueueTps", "0.0"),
            ("timerDequeueTps", "0.0"),
            ("msgPutTotalYesterdayMorning", "0"),
            ("msgPutTotalTodayMorning", "0"),
            ("msgGetTotalYesterdayMorning", "0"),
            ("msgGetTotalTodayMorning", "0"),
            ("msgPutTotalTodayNow", &stored),
            ("msgGetTotalTodayNow", "0"),
            ("bootTimestamp", "0"),
        ]);
        success().with_body(json::write(&BTreeMap::from([("table", table)])))
    }

    /// A group is made when it is first named; of its settings none is kept.
    fn create_group(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Config {
            group_name: String,
        }

        let Config { group_name } = json::read(&command.body)?;
        self.with_state(|state| state.group(&group_name).map(|_| success()))
    }

    fn of_topic(
        &self,
        command: &RemotingCommand,
        describe: impl FnOnce(&Topic) -> Vec<u8>,
    ) -> Result<RemotingCommand, Refusal> {
        let OfTopic { topic } = OfTopic::read(&command.ext_fields)?;
        let body = self.with_state(|state| state.store.topic(&topic).map(describe));
        let missing = || Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist"));
        Ok(success().with_body(body.ok_or_else(missing)?))
    }

    fn connections(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let group = OfGroup::read(&command.ext_fields)?.consumer_group;
        let connections = self.with_state(|state| state.groups.connections(&group));
        let offline = || {
            let remark = format!("the consumer group[{group}] not online");
            Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark)
        };
        Ok(success().with_body(json::write(&connections.ok_or_else(offline)?)))
    }

    fn consume_stats(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let OfGroup { consumer_group, topic } = OfGroup::read(&command.ext_fields)?;
        let wanted = topic.filter(|topic| !topic.is_empty());
        let table = self.with_state(|state| {
            let topics = state.offsets.topics_of(&consumer_group).into_iter();
            let topics =
                topics.filter(|topic| wanted.as_deref().is_none_or(|wanted| wanted == topic.as_ref()));
            topics.flat_map(|topic| progress(state, &consumer_group, &topic)).collect::<BTreeMap<_, _>>()
        });
        let body = format!(r#"{{"consumeTps":0.0,"offsetTable":{}}}"#, json::write_queue_map(&table));
        Ok(success().with_body(body))
    }

    fn consumed_by(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let OfTopic { topic } = OfTopic::read(&command.ext_fields)?;
        let mut groups = self.with_state(|state| {
            let mut groups = state.groups.subscribers(&topic);
            groups.extend(state.offsets.groups_of(&topic));
            groups
        });
        groups.sort_unstable();
        groups.dedup();
        let groups: Vec<_> = groups.iter().map(AsRef::as_ref).collect();
        Ok(success().with_body(json::write(&BTreeMap::from([("groupList", groups)]))))
    }

    fn topics_of(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Topics {
            broker_addr: String,
            topic_list: Vec<String>,
        }

        let Subscribed { group, .. } = Subscribed::read(&command.ext_fields)?;
        let topics = self.with_state(|state| Topics {
            broker_addr: state.store.host().to_string(),
            topic_list: state.offsets.topics_of(&group).iter().map(ToString::to_string).collect(),
        });
        Ok(success().with_body(json::write(&topics)))
    }

    fn subscription_of(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            group: String,
            topic: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            subscription_data: Option<SubscriptionData>,
        }

        let Subscribed { group, topic } = Subscribed::read(&command.ext_fields)?;
        let topic = topic.unwrap_or_default();
        let connections = self.with_state(|state| state.groups.connections(&group));
        let subscription_data =
            connections.and_then(|mut connections| connections.subscription_table.remove(&topic));
        Ok(success().with_body(json::write(&Answer { group, topic, subscription_data })))
    }
}

fn topic_config(topic: &Topic) -> Vec<u8> {
    let TopicConfig { read_queues, write_queues, perm } = topic.config;
    json::write(&TopicConfigBody {
        topic_name: &topic.name,
        read_queue_nums: read_queues,
        write_queue_nums: write_queues,
        perm,
        topic_filter_type: "SINGLE_TAG",
        topic_sys_flag: 0,
        order: false,
        attributes: BTreeMap::new(),
    })
}

fn topic_stats(topic: &Topic) -> Vec<u8> {
    let offsets = |queue: &Queue| TopicOffset {
        min_offset: queue.min_offset(),
        max_offset: queue.max_offset(),
        last_update_timestamp: stored_at(queue, queue.max_offset() - 1),
    };
    let table: BTreeMap<_, _> =
        queues(topic).map(|(id, queue)| (name(&topic.name, id), offsets(queue))).collect();
    format!(r#"{{"topicPutTps":0.0,"offsetTable":{}}}"#, json::write_queue_map(&table)).into_bytes()
}

/// How far a group is in each queue of a topic.
fn progress(state: &State, group: &str, topic: &Arc<str>) -> Vec<(MessageQueue, Progress)> {
    let Some(topic) = state.store.topic(topic) else { return Vec::new() };
    let of_queue = |(id, queue): (i32, &Queue)| {
        let offset = state.offsets.committed(group, &topic.name, id).unwrap_or_default().max(0);
        let progress = Progress {
            broker_offset: queue.max_offset(),
            consumer_offset: offset,
            pull_offset: offset,
            last_timestamp: stored_at(queue, offset - 1),
        };
        (name(&topic.name, id), progress)
    };
    queues(topic).map(of_queue).collect()
}

/// The queues that may be read.
fn queues(topic: &Topic) -> impl Iterator<Item = (i32, &Queue)> {
    (0..topic.config.read_queues).filter_map(|id| Some((id, topic.queue(id)?)))
}

fn name(topic: &Arc<str>, id: i32) -> MessageQueue {
    MessageQueue::new(Arc::clone(topic), BROKER_NAME, id)
}

/// When the message at `offset` was stored; 0 where there is none.
fn stored_at(queue: &Queue, offset: i64) -> i64 {
    if offset < queue.min_offset() {
        return 0;
    }
    queue.from(offset).next().map_or(0, |record| record.stored_at_ms)
}
