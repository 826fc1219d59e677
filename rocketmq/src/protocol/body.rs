//! JSON bodies. Missing members take their defaults, unknown ones are passed over.
//!
//! Source: `protocol.md` section 3.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::message::MessageQueue;

/// Where the queues of a topic are (the answer to 105). Source: `protocol.md` section 3.1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TopicRouteData {
    /// `brokerA:4;brokerB:4`: exactly these queues, in this order, for ordered sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order_topic_conf: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) queue_datas: Vec<QueueData>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) broker_datas: Vec<BrokerData>,
}

/// How many queues of a topic one broker has, and what may be done with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct QueueData {
    pub(crate) broker_name: String,
    pub(crate) read_queue_nums: i32,
    pub(crate) write_queue_nums: i32,
    /// See [`perm`].
    pub(crate) perm: i32,
    #[serde(alias = "topicSynFlag")]
    pub(crate) topic_sys_flag: i32,
}

/// The bits of a queue's permission.
pub(crate) mod perm {
    pub(crate) const INHERIT: i32 = 1;
    pub(crate) const WRITE: i32 = 2;
    pub(crate) const READ: i32 = 4;
}

/// The addresses of one broker name: the master is id 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BrokerData {
    pub(crate) cluster: String,
    pub(crate) broker_name: String,
    pub(crate) broker_addrs: BTreeMap<i64, String>,
}

/// Who is in a group (the answer to 38).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ConsumerList {
    #[serde(deserialize_with = "nullable")]
    pub(crate) consumer_id_list: Vec<String>,
}

/// What a client tells every broker while it lives (34). Source: `protocol.md` section 3.3.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct HeartbeatData {
    #[serde(rename = "clientID")]
    pub(crate) client_id: String,
    pub(crate) producer_data_set: Vec<ProducerData>,
    pub(crate) consumer_data_set: Vec<ConsumerData>,
    /// 0: this client does not use the second version of heartbeats, which leaves out the subscriptions.
    pub(crate) heartbeat_fingerprint: i32,
    pub(crate) without_sub: bool,
}

/// One producer group of a client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ProducerData {
    pub(crate) group_name: String,
}

/// One consumer group of a client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ConsumerData {
    pub(crate) group_name: String,
    pub(crate) consume_type: ConsumeType,
    pub(crate) message_model: MessageModel,
    pub(crate) consume_from_where: ConsumeFromWhere,
    pub(crate) subscription_data_set: Vec<SubscriptionData>,
    pub(crate) unit_mode: bool,
}

/// Who moves the messages.
#[expect(clippy::enum_variant_names, reason = "the wire's words")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ConsumeType {
    ConsumeActively,
    #[default]
    ConsumePassively,
    ConsumePop,
}

/// Whether the members of a group share the messages or each get all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum MessageModel {
    Broadcasting,
    #[default]
    Clustering,
    #[serde(other)]
    Other,
}

/// Where a group begins in a queue of which it has no offset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ConsumeFromWhere {
    #[default]
    ConsumeFromLastOffset,
    ConsumeFromFirstOffset,
    ConsumeFromTimestamp,
    #[serde(other)]
    Deprecated,
}

/// What a group wants of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SubscriptionData {
    pub(crate) class_filter_mode: bool,
    pub(crate) topic: String,
    /// The expression: `*`, tags between double bars, or SQL.
    pub(crate) sub_string: String,
    pub(crate) tags_set: Vec<String>,
    /// The hashes of the tags; Go clients write them as text.
    #[serde(deserialize_with = "numbers")]
    pub(crate) code_set: Vec<i32>,
    /// Milliseconds; a broker takes a subscription only if this has grown.
    #[serde(deserialize_with = "number")]
    pub(crate) sub_version: i64,
    /// `TAG` or `SQL92`.
    pub(crate) expression_type: String,
}

/// `null` as the default: fastjson writes it for collections that were never made.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Number::deserialize(deserializer).map(|number| number.0)
}

fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    let numbers: Option<Vec<Number>> = Option::deserialize(deserializer)?;
    Ok(numbers.unwrap_or_default().into_iter().map(|number| number.0 as i32).collect())
}

/// A number, or the text of one.
struct Number(i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl serde::de::Visitor<'_> for Either {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or the text of one")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Number, E> {
                i64::try_from(number).map(Number).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Lock (41) or unlock (42) these queues for this member; the answer to a lock is [`LockedQueues`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LockBatch {
    pub(crate) consumer_group: String,
    pub(crate) client_id: String,
    /// Not to be spread to the other members of a broker group.
    pub(crate) only_this_broker: bool,
    #[serde(deserialize_with = "nullable")]
    pub(crate) mq_set: Vec<MessageQueue>,
}

/// The queues that the member holds now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LockedQueues {
    #[serde(rename = "lockOKMQSet", deserialize_with = "nullable")]
    pub(crate) lock_ok_mq_set: Vec<MessageQueue>,
}

/// Can the broker filter by this subscription? (46)
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct CheckClientConfig {
    pub(crate) client_id: String,
    pub(crate) group: String,
    pub(crate) subscription_data: SubscriptionData,
}

/// The topics that a name server knows (the answer to 206).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TopicList {
    #[serde(deserialize_with = "nullable")]
    pub(crate) topic_list: Vec<String>,
}

/// The brokers and clusters that a name server knows (the answer to 106). Source: `protocol.md` section 3.6.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ClusterInfo {
    pub(crate) broker_addr_table: BTreeMap<String, BrokerData>,
    pub(crate) cluster_addr_table: BTreeMap<String, Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    #[test]
    fn a_route_of_an_older_name_server_is_read() {
        let body = br#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster"}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSynFlag":1,"writeQueueNums":4}]}"#;
        let route: TopicRouteData = json::read(body).unwrap();
        assert_eq!(route.broker_datas[0].broker_addrs[&1], "10.0.0.2:10911");
        assert_eq!(route.queue_datas[0].topic_sys_flag, 1);
    }

    #[test]
    fn a_heartbeat_has_the_words_of_java() {
        let heartbeat = HeartbeatData {
            client_id: "192.0.2.2@1#2".into(),
            consumer_data_set: vec![ConsumerData { group_name: "g".into(), ..ConsumerData::default() }],
            ..HeartbeatData::default()
        };
        assert_eq!(
            String::from_utf8(json::write(&heartbeat)).unwrap(),
            r#"{"clientID":"192.0.2.2@1#2","producerDataSet":[],"consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[],"unitMode":false}],"heartbeatFingerprint":0,"withoutSub":false}"#
        );
    }

    #[test]
    fn numbers_may_be_text_as_the_go_client_writes_them() {
        let body = br#"{"topic":"t","codeSet":["97",98],"subVersion":"5"}"#;
        let subscription: SubscriptionData = json::read(body).unwrap();
        assert_eq!((subscription.code_set, subscription.sub_version), (vec![97, 98], 5));
    }
}
