//! The headers of requests and answers: each declared once, written by one side and read by the other.
//!
//! A field that is not an `Option` has to be there. Source: `protocol.md` sections 2.3 to 2.9.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::{ExtFields, Field, HeaderError, PutField, RemotingCommand, RequestCode, body};

/// Fields that travel as the extension fields of a command.
pub(crate) trait Header: Sized {
    fn write(&self, fields: &mut impl PutField);

    fn read(fields: &ExtFields) -> Result<Self, HeaderError>;

    fn to_fields(&self) -> ExtFields {
        let mut fields = ExtFields::with_room();
        self.write(&mut fields);
        fields
    }
}

/// The header of requests and answers that have no fields.
impl Header for () {
    fn write(&self, _: &mut impl PutField) {}

    fn read(_: &ExtFields) -> Result<Self, HeaderError> {
        Ok(())
    }
}

/// A request that names its own answer.
pub(crate) trait Request: Header {
    const CODE: RequestCode;
    type Response: Response;
}

/// What a successful answer holds.
pub(crate) trait Response: Sized {
    fn from_command(command: RemotingCommand) -> Result<Self, HeaderError>;
}

/// An answer of which only the success matters, or only the header.
impl<H: Header> Response for H {
    fn from_command(command: RemotingCommand) -> Result<Self, HeaderError> {
        H::read(&command.ext_fields)
    }
}

/// An answer of which only the body matters, in JSON.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: serde::de::DeserializeOwned> Response for JsonBody<T> {
    fn from_command(command: RemotingCommand) -> Result<Self, HeaderError> {
        super::json::read(&command.body).map(JsonBody)
    }
}

/// An answer of which both header and body matter.
#[derive(Debug)]
pub(crate) struct WithBody<H> {
    pub(crate) header: H,
    pub(crate) body: Bytes,
}

impl<H: Header> Response for WithBody<H> {
    fn from_command(command: RemotingCommand) -> Result<Self, HeaderError> {
        Ok(Self { header: H::read(&command.ext_fields)?, body: command.body })
    }
}

macro_rules! header {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $wire:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct $name { $($(#[$field_doc])* pub(crate) $field: $type,)* }

        impl Header for $name {
            fn write(&self, fields: &mut impl $crate::protocol::PutField) {
                $(self.$field.put($wire, fields);)*
            }

            fn read(fields: &ExtFields) -> Result<Self, HeaderError> {
                Ok(Self { $($field: Field::read($wire, fields.get($wire))?,)* })
            }
        }
    };
}
pub(crate) use header;

/// A request without fields: all of it is in its body.
macro_rules! bare {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name;

        impl Header for $name {
            fn write(&self, _: &mut impl $crate::protocol::PutField) {}

            fn read(_: &ExtFields) -> Result<Self, HeaderError> {
                Ok(Self)
            }
        }
    };
}

macro_rules! requests {
    ($($request:ident = $code:ident -> $response:ty;)*) => {$(
        impl Request for $request {
            const CODE: RequestCode = RequestCode::$code;
            type Response = $response;
        }
    )*};
}

requests! {
    GetRouteInfo = GET_ROUTEINFO_BY_TOPIC -> JsonBody<body::TopicRouteData>;
    PullMessage = PULL_MESSAGE -> WithBody<PullMessageResponse>;
    QueryConsumerOffset = QUERY_CONSUMER_OFFSET -> OffsetResponse;
    UpdateConsumerOffset = UPDATE_CONSUMER_OFFSET -> ();
    GetMaxOffset = GET_MAX_OFFSET -> OffsetResponse;
    GetMinOffset = GET_MIN_OFFSET -> OffsetResponse;
    SearchOffset = SEARCH_OFFSET_BY_TIMESTAMP -> OffsetResponse;
    SendMessageV2 = SEND_MESSAGE_V2 -> SendMessageResponse;
    Heartbeat = HEART_BEAT -> ();
    UnregisterClient = UNREGISTER_CLIENT -> ();
    SendMessageBack = CONSUMER_SEND_MSG_BACK -> ();
    GetConsumerList = GET_CONSUMER_LIST_BY_GROUP -> JsonBody<body::ConsumerList>;
    NotifyConsumerIdsChanged = NOTIFY_CONSUMER_IDS_CHANGED -> ();
    CreateTopic = UPDATE_AND_CREATE_TOPIC -> ();
    CheckClient = CHECK_CLIENT_CONFIG -> ();
    LockBatchMq = LOCK_BATCH_MQ -> JsonBody<body::LockedQueues>;
    UnlockBatchMq = UNLOCK_BATCH_MQ -> ();
    RecallMessage = RECALL_MESSAGE -> RecallMessageResponse;
    PushReply = PUSH_REPLY_MESSAGE_TO_CLIENT -> ();
}

header! {
    /// Where is this topic? (105)
    GetRouteInfo {
        topic: String = "topic",
        /// Asks for JSON that is JSON; servers from 4.9.4 on heed it.
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }
}

header! {
    /// Are there messages from this offset on? (11) Source: `protocol.md` section 2.5.
    PullMessage {
        consumer_group: Arc<str> = "consumerGroup",
        topic: Arc<str> = "topic",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        max_msg_nums: i32 = "maxMsgNums",
        /// See [`pull_flag`].
        sys_flag: i32 = "sysFlag",
        commit_offset: i64 = "commitOffset",
        suspend_timeout_millis: i64 = "suspendTimeoutMillis",
        subscription: Option<Arc<str>> = "subscription",
        sub_version: i64 = "subVersion",
        expression_type: Option<String> = "expressionType",
        max_msg_bytes: Option<i32> = "maxMsgBytes",
        broker_name: Option<Arc<str>> = "bname",
    }
}

/// The bits of a pull's `sysFlag`.
pub(crate) mod pull_flag {
    /// `commitOffset` holds the group's progress.
    pub(crate) const COMMIT_OFFSET: i32 = 1;
    /// The broker may hold the answer back until there is something.
    pub(crate) const SUSPEND: i32 = 2;
    /// The subscription stands in this request, not in the heartbeat.
    pub(crate) const SUBSCRIPTION: i32 = 4;
    /// A lite pull consumer asks.
    pub(crate) const LITE_PULL: i32 = 16;
}

header! {
    /// The answer to a pull; its body holds the messages.
    PullMessageResponse {
        suggest_which_broker_id: i64 = "suggestWhichBrokerId",
        next_begin_offset: i64 = "nextBeginOffset",
        min_offset: i64 = "minOffset",
        max_offset: i64 = "maxOffset",
    }
}

header! {
    /// How far is the group in this queue? (14)
    QueryConsumerOffset {
        consumer_group: Arc<str> = "consumerGroup",
        topic: Arc<str> = "topic",
        queue_id: i32 = "queueId",
        /// 5.x: `false` asks for "not found" where nothing is stored, also for a young queue.
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }
}

header! {
    /// An answer that is one offset.
    OffsetResponse { offset: i64 = "offset", }
}

header! {
    /// The group is this far in this queue. (15)
    UpdateConsumerOffset {
        consumer_group: Arc<str> = "consumerGroup",
        topic: Arc<str> = "topic",
        queue_id: i32 = "queueId",
        commit_offset: i64 = "commitOffset",
    }
}

header! {
    /// What is the next offset to be written? (30)
    GetMaxOffset { topic: Arc<str> = "topic", queue_id: i32 = "queueId", }
}

header! {
    /// What is the first offset that is still there? (31)
    GetMinOffset { topic: Arc<str> = "topic", queue_id: i32 = "queueId", }
}

header! {
    /// What is the first offset stored at or after this time? (29)
    SearchOffset {
        topic: Arc<str> = "topic",
        queue_id: i32 = "queueId",
        timestamp: i64 = "timestamp",
    }
}

header! {
    /// Store this message (310), or this batch (320); the short names are the wire's. Source: `protocol.md` section 2.4.
    SendMessageV2 {
        producer_group: Arc<str> = "a",
        topic: Arc<str> = "b",
        default_topic: Cow<'static, str> = "c",
        default_topic_queue_nums: i32 = "d",
        /// −1 leaves the choice to the broker.
        queue_id: i32 = "e",
        sys_flag: i32 = "f",
        born_timestamp: i64 = "g",
        flag: i32 = "h",
        properties: Option<String> = "i",
        reconsume_times: Option<i32> = "j",
        unit_mode: Option<bool> = "k",
        max_reconsume_times: Option<i32> = "l",
        batch: Option<bool> = "m",
        broker_name: Option<Arc<str>> = "n",
    }
}

header! {
    /// The same content in long names (10), which older clients and Go's send.
    SendMessageV1 {
        producer_group: Arc<str> = "producerGroup",
        topic: Arc<str> = "topic",
        default_topic: Cow<'static, str> = "defaultTopic",
        default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: i32 = "sysFlag",
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<String> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: Option<bool> = "unitMode",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        batch: Option<bool> = "batch",
    }
}

impl From<SendMessageV1> for SendMessageV2 {
    fn from(header: SendMessageV1) -> Self {
        Self {
            producer_group: header.producer_group,
            topic: header.topic,
            default_topic: header.default_topic,
            default_topic_queue_nums: header.default_topic_queue_nums,
            queue_id: header.queue_id,
            sys_flag: header.sys_flag,
            born_timestamp: header.born_timestamp,
            flag: header.flag,
            properties: header.properties,
            reconsume_times: header.reconsume_times,
            unit_mode: header.unit_mode,
            max_reconsume_times: header.max_reconsume_times,
            batch: header.batch,
            broker_name: None,
        }
    }
}

header! {
    /// The answer to a send.
    SendMessageResponse {
        /// The offset id, of a batch the ids joined by commas.
        msg_id: String = "msgId",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        transaction_id: Option<String> = "transactionId",
        batch_uniq_id: Option<String> = "batchUniqId",
        recall_handle: Option<String> = "recallHandle",
        region_id: Option<String> = "MSG_REGION",
        trace_on: Option<bool> = "TRACE_ON",
    }
}

header! {
    /// Do not deliver this timer message. (370) Source: `protocol.md` section 2.11.
    RecallMessage {
        producer_group: Option<Arc<str>> = "producerGroup",
        topic: Arc<str> = "topic",
        recall_handle: String = "recallHandle",
        broker_name: Option<Arc<str>> = "bname",
    }
}

header! {
    /// The answer to a recall: the id of the message.
    RecallMessageResponse { msg_id: String = "msgId", }
}

bare! {
    /// This client and its groups live (34); the body says which.
    Heartbeat
}

bare! {
    /// Can you filter by this subscription (46)? The body is a [`CheckClientConfig`](body::CheckClientConfig).
    CheckClient
}

bare! {
    /// Keep these queues for this member (41); the body, a [`LockBatch`](body::LockBatch), says which.
    LockBatchMq
}

bare! {
    /// Give these queues free (42); the body, a [`LockBatch`](body::LockBatch), says which.
    UnlockBatchMq
}

header! {
    /// This client leaves these groups. (35)
    UnregisterClient {
        client_id: String = "clientID",
        producer_group: Option<Arc<str>> = "producerGroup",
        consumer_group: Option<Arc<str>> = "consumerGroup",
    }
}

header! {
    /// Deliver this message to the group again, later. (36) Source: `protocol.md` section 2.8.
    SendMessageBack {
        /// The message's place in the commit log.
        offset: i64 = "offset",
        group: Arc<str> = "group",
        /// 0: the broker decides; below: dead letter at once; above: that level.
        delay_level: i32 = "delayLevel",
        origin_msg_id: Option<String> = "originMsgId",
        origin_topic: Option<String> = "originTopic",
        unit_mode: Option<bool> = "unitMode",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        broker_name: Option<Arc<str>> = "bname",
    }
}

header! {
    /// Who is in this group? (38)
    GetConsumerList { consumer_group: Arc<str> = "consumerGroup", }
}

header! {
    /// The members of this group have changed (40); from a broker to a client, without an answer.
    NotifyConsumerIdsChanged { consumer_group: String = "consumerGroup", }
}

header! {
    /// Somebody has answered a request of this client's (326); from a broker to a client, with the reply's body.
    /// Source: `protocol.md` section 2.9.
    PushReply {
        producer_group: String = "producerGroup",
        topic: String = "topic",
        default_topic: String = "defaultTopic",
        default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: i32 = "sysFlag",
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<String> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: Option<bool> = "unitMode",
        /// `ip:port`, which Java brokers write with a `/` before it.
        born_host: String = "bornHost",
        store_host: String = "storeHost",
        store_timestamp: i64 = "storeTimestamp",
    }
}

header! {
    /// Create this topic, or change it. (17)
    CreateTopic {
        topic: String = "topic",
        default_topic: String = "defaultTopic",
        read_queue_nums: i32 = "readQueueNums",
        write_queue_nums: i32 = "writeQueueNums",
        perm: i32 = "perm",
        topic_filter_type: String = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: bool = "order",
    }
}

requests! {
    ViewMessage = VIEW_MESSAGE_BY_ID -> WithBody<()>;
    GetEarliestMessageTime = GET_EARLIEST_MSG_STORETIME -> TimestampResponse;
}

header! {
    /// Which message is at this place of the commit log? (33)
    ViewMessage { offset: i64 = "offset", }
}

header! {
    /// When was the first message stored that is still there? (32)
    GetEarliestMessageTime { topic: Arc<str> = "topic", queue_id: i32 = "queueId", }
}

header! {
    /// An answer that is one time, in Unix milliseconds; −1 where there is nothing to have a time.
    TimestampResponse { timestamp: i64 = "timestamp", }
}

pub(super) use {bare, requests};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = QueryConsumerOffset {
            consumer_group: "g".into(),
            topic: "t".into(),
            queue_id: 3,
            set_zero_if_not_found: Some(false),
        };
        assert_eq!(QueryConsumerOffset::read(&header.to_fields()).unwrap(), header);
    }

    #[test]
    fn a_field_that_is_missing_or_wrong_is_named() {
        let mut fields = ExtFields::default();
        fields.put("topic", "t");
        let error = GetMaxOffset::read(&fields).unwrap_err();
        assert_eq!(error.to_string(), "the header field `queueId` is missing");
        fields.put("queueId", "three");
        let error = GetMaxOffset::read(&fields).unwrap_err();
        assert_eq!(error.to_string(), "the header field `queueId` is \"three\", not a number of 32 bits");
    }
}
