//! What brokers ask of clients by themselves, mostly in the name of an operator, and what clients answer.
//!
//! Source: `protocol.md` sections 2.9, 3.5, 3.8 and 3.9.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::SubscriptionData;
use super::header::{Header, header};
use super::{ExtFields, Field, HeaderError, json};
use crate::message::MessageQueue;

header! {
    /// Go on from other offsets (220; the body says which), and, from an operator to a broker, let a group do so (222).
    ResetOffset {
        topic: String = "topic",
        group: String = "group",
        /// Unix milliseconds; −1 for now.
        timestamp: i64 = "timestamp",
        /// Also where that skips messages.
        is_force: Option<bool> = "isForce",
        /// 5.x: only this queue, from `offset` on.
        queue_id: Option<i32> = "queueId",
        offset: Option<i64> = "offset",
    }
}

header! {
    /// How far are you in the queues of this topic? (221)
    GetConsumerStatus {
        topic: String = "topic",
        group: String = "group",
        client_addr: Option<String> = "clientAddr",
    }
}

header! {
    /// What are you doing? (307)
    GetConsumerRunningInfo {
        consumer_group: String = "consumerGroup",
        client_id: String = "clientId",
        /// Also in detail: a Java client sends the stacks of its threads.
        jstack_enable: Option<bool> = "jstackEnable",
    }
}

header! {
    /// Let a listener handle the message in the body, now (309).
    ConsumeMessageDirectly {
        consumer_group: String = "consumerGroup",
        client_id: Option<String> = "clientId",
        msg_id: Option<String> = "msgId",
        broker_name: Option<String> = "brokerName",
        topic: Option<String> = "topic",
    }
}

/// The offsets that a group is to go on from, in any of the three forms in which brokers write them.
pub(crate) fn read_offset_table(body: &[u8]) -> Result<BTreeMap<MessageQueue, i64>, HeaderError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        offset_table: Value,
    }

    /// As brokers write it for clients in C.
    #[derive(Deserialize)]
    struct Entry {
        #[serde(flatten)]
        queue: MessageQueue,
        offset: i64,
    }

    let malformed = |error: serde_json::Error| HeaderError::Body(error.to_string());
    let entry = |value: Value| match value {
        Value::Array(_) => serde_json::from_value(value),
        _ => serde_json::from_value(value).map(|Entry { queue, offset }| (queue, offset)),
    };
    match json::read::<Body>(body)?.offset_table {
        Value::Object(map) => map
            .into_iter()
            .map(|(queue, offset)| Ok((serde_json::from_str(&queue)?, serde_json::from_value(offset)?)))
            .collect::<Result<_, _>>()
            .map_err(malformed),
        Value::Array(list) => list.into_iter().map(entry).collect::<Result<_, _>>().map_err(malformed),
        Value::Null => Ok(BTreeMap::new()),
        other => Err(HeaderError::Body(format!("`offsetTable` is {other}, neither a map nor a list"))),
    }
}

/// The other direction, in the form that all clients read.
pub(crate) fn write_offset_table(offsets: &BTreeMap<MessageQueue, i64>) -> Vec<u8> {
    format!(r#"{{"offsetTable":{}}}"#, json::write_queue_map(offsets)).into_bytes()
}

/// The answer to 221.
pub(crate) fn write_consumer_status(offsets: &BTreeMap<MessageQueue, i64>) -> Vec<u8> {
    format!(r#"{{"messageQueueTable":{}}}"#, json::write_queue_map(offsets)).into_bytes()
}

/// What a member of a group is doing (the answer to 307).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ConsumerRunningInfo {
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) subscription_set: Vec<SubscriptionData>,
    pub(crate) mq_table: BTreeMap<MessageQueue, ProcessQueueInfo>,
    /// What is popped instead of pulled.
    pub(crate) mq_pop_table: BTreeMap<MessageQueue, PopQueueInfo>,
    /// By topic.
    pub(crate) status_table: BTreeMap<String, ConsumeStatus>,
    pub(crate) jstack: Option<String>,
}

/// One queue of a member.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessQueueInfo {
    pub(crate) commit_offset: i64,
    pub(crate) cached_msg_min_offset: i64,
    pub(crate) cached_msg_max_offset: i64,
    pub(crate) cached_msg_count: usize,
    #[serde(rename = "cachedMsgSizeInMiB")]
    pub(crate) cached_msg_mib: usize,
    /// Of what is being handled in order.
    pub(crate) transaction_msg_min_offset: i64,
    pub(crate) transaction_msg_max_offset: i64,
    pub(crate) transaction_msg_count: usize,
    pub(crate) locked: bool,
    pub(crate) try_unlock_times: i64,
    pub(crate) last_lock_timestamp: i64,
    /// With one p, on the wire.
    pub(crate) droped: bool,
    pub(crate) last_pull_timestamp: i64,
    pub(crate) last_consume_timestamp: i64,
}

/// Queues whose messages a member pops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PopQueueInfo {
    pub(crate) wait_ack_count: usize,
    /// With one p, on the wire.
    pub(crate) droped: bool,
    pub(crate) last_pop_timestamp: i64,
}

/// How a group does with one topic. Times are in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct ConsumeStatus {
    #[serde(rename = "pullRT")]
    pub(crate) pull_rt: f64,
    #[serde(rename = "pullTPS")]
    pub(crate) pull_tps: f64,
    #[serde(rename = "consumeRT")]
    pub(crate) consume_rt: f64,
    #[serde(rename = "consumeOKTPS")]
    pub(crate) consume_ok_tps: f64,
    #[serde(rename = "consumeFailedTPS")]
    pub(crate) consume_failed_tps: f64,
    #[serde(rename = "consumeFailedMsgs")]
    pub(crate) consume_failed_msgs: u64,
}

impl ConsumerRunningInfo {
    pub(crate) fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Plain<'a> {
            properties: &'a BTreeMap<String, String>,
            subscription_set: &'a [SubscriptionData],
            status_table: &'a BTreeMap<String, ConsumeStatus>,
            #[serde(skip_serializing_if = "Option::is_none")]
            jstack: Option<&'a str>,
        }

        let Self { properties, subscription_set, mq_table, mq_pop_table, status_table, jstack } = self;
        let plain = Plain { properties, subscription_set, status_table, jstack: jstack.as_deref() };
        let mut body = json::write(&plain);
        // The members that JSON cannot write go before the closing brace.
        body.pop();
        body.extend_from_slice(format!(r#","mqTable":{}"#, json::write_queue_map(mq_table)).as_bytes());
        if !mq_pop_table.is_empty() {
            let table = json::write_queue_map(mq_pop_table);
            body.extend_from_slice(format!(r#","mqPopTable":{table}"#).as_bytes());
        }
        body.push(b'}');
        body
    }
}

/// What came of a message that a listener was to handle at once (the answer to 309).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConsumeDirectlyResult {
    pub(crate) order: bool,
    pub(crate) auto_commit: bool,
    pub(crate) consume_result: DirectResult,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remark: Option<String>,
    pub(crate) spent_time_mills: u64,
}

/// What a listener said to such a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum DirectResult {
    #[serde(rename = "CR_SUCCESS")]
    Success,
    #[serde(rename = "CR_LATER")]
    Later,
    #[serde(rename = "CR_THROW_EXCEPTION")]
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_in_each_form_that_brokers_write() {
        let expected =
            BTreeMap::from([(MessageQueue::new("t", "b", 0), 123), (MessageQueue::new("t", "b", 1), 0)]);
        for body in [
            r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:123,{"brokerName":"b","queueId":1,"topic":"t"}:0}}"#,
            r#"{"offsetTable":[{"brokerName":"b","offset":123,"queueId":0,"topic":"t"},{"brokerName":"b","offset":0,"queueId":1,"topic":"t"}]}"#,
            r#"{"offsetTable":[[{"brokerName":"b","queueId":0,"topic":"t"},123],[{"brokerName":"b","queueId":1,"topic":"t"},0]]}"#,
        ] {
            assert_eq!(read_offset_table(body.as_bytes()).unwrap(), expected, "{body}");
        }
        assert_eq!(read_offset_table(&write_offset_table(&expected)).unwrap(), expected);
        for body in ["", "{}", r#"{"offsetTable":7}"#, r#"{"offsetTable":[7]}"#, r#"{"offsetTable":{"t":7}}"#]
        {
            assert!(read_offset_table(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn running_info_has_the_words_of_java() {
        let info = ConsumerRunningInfo {
            properties: BTreeMap::from([("PROP_CONSUMEORDERLY".to_owned(), "false".to_owned())]),
            mq_table: BTreeMap::from([(
                MessageQueue::new("t", "b", 0),
                ProcessQueueInfo { commit_offset: 5, ..ProcessQueueInfo::default() },
            )]),
            status_table: BTreeMap::from([("t".to_owned(), ConsumeStatus::default())]),
            ..ConsumerRunningInfo::default()
        };
        assert_eq!(
            String::from_utf8(info.encode()).unwrap(),
            r#"{"properties":{"PROP_CONSUMEORDERLY":"false"},"subscriptionSet":[],"statusTable":{"t":{"pullRT":0.0,"pullTPS":0.0,"consumeRT":0.0,"consumeOKTPS":0.0,"consumeFailedTPS":0.0,"consumeFailedMsgs":0}},"mqTable":{{"brokerName":"b","queueId":0,"topic":"t"}:{"commitOffset":5,"cachedMsgMinOffset":0,"cachedMsgMaxOffset":0,"cachedMsgCount":0,"cachedMsgSizeInMiB":0,"transactionMsgMinOffset":0,"transactionMsgMaxOffset":0,"transactionMsgCount":0,"locked":false,"tryUnlockTimes":0,"lastLockTimestamp":0,"droped":false,"lastPullTimestamp":0,"lastConsumeTimestamp":0}}}"#
        );
    }

    #[test]
    fn the_result_of_direct_consumption_has_the_words_of_java() {
        let result = ConsumeDirectlyResult {
            order: false,
            auto_commit: true,
            consume_result: DirectResult::Failed,
            remark: Some("no".to_owned()),
            spent_time_mills: 3,
        };
        assert_eq!(
            String::from_utf8(json::write(&result)).unwrap(),
            r#"{"order":false,"autoCommit":true,"consumeResult":"CR_THROW_EXCEPTION","remark":"no","spentTimeMills":3}"#
        );
    }
}
