//! POP: the broker hands out messages one by one and wants each acknowledged. The requests, and what they are made of.
//!
//! 5.x only, and only with headers in JSON: the codes do not fit into the binary form. Source: `protocol.md`
//! section 2.11.

mod batch_ack;
mod handle;
mod offsets;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use batch_ack::{BatchAck, BatchAckBody};
pub(crate) use handle::{PopHandle, RetryFlag, origin_of_retry, retry_topic_v1, retry_topic_v2};
pub(crate) use offsets::{OffsetInfo, QueueKey};

use super::body::MessageModel;
use super::header::{Header, JsonBody, Request, WithBody, bare, header, requests};
use super::{ExtFields, Field, HeaderError, RequestCode};
use crate::message::MessageQueue;

requests! {
    PopMessage = POP_MESSAGE -> WithBody<PopMessageResponse>;
    AckMessage = ACK_MESSAGE -> ();
    BatchAckMessage = BATCH_ACK_MESSAGE -> ();
    ChangeInvisibleTime = CHANGE_MESSAGE_INVISIBLETIME -> ChangeInvisibleTimeResponse;
    QueryAssignment = QUERY_ASSIGNMENT -> JsonBody<AssignmentAnswer>;
    SetMessageRequestMode = SET_MESSAGE_REQUEST_MODE -> ();
}

header! {
    /// Hand out messages, and let nobody else see them for a while. (200050)
    PopMessage {
        consumer_group: Arc<str> = "consumerGroup",
        topic: Arc<str> = "topic",
        /// −1 means any queue of the broker.
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        invisible_time: i64 = "invisibleTime",
        poll_time: i64 = "pollTime",
        born_time: i64 = "bornTime",
        /// See [`init_mode`].
        init_mode: i32 = "initMode",
        exp_type: Option<String> = "expType",
        exp: Option<String> = "exp",
        order: Option<bool> = "order",
        broker_name: Option<Arc<str>> = "bname",
    }
}

/// Where a group begins that has popped nothing yet.
pub(crate) mod init_mode {
    pub(crate) const MIN: i32 = 0;
    pub(crate) const MAX: i32 = 1;
}

header! {
    /// The answer to a pop; its body holds the messages.
    PopMessageResponse {
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_qid: i32 = "reviveQid",
        rest_num: i64 = "restNum",
        start_offset_info: Option<String> = "startOffsetInfo",
        msg_offset_info: Option<String> = "msgOffsetInfo",
    }
}

header! {
    /// This message is done. (200051)
    AckMessage {
        consumer_group: Arc<str> = "consumerGroup",
        /// The one that it stands in: a retry topic for a message that came again.
        topic: Arc<str> = "topic",
        queue_id: i32 = "queueId",
        extra_info: String = "extraInfo",
        offset: i64 = "offset",
        broker_name: Option<Arc<str>> = "bname",
    }
}

bare! {
    /// These messages are done (200151); the body, a [`BatchAckBody`], says which.
    BatchAckMessage
}

header! {
    /// Let others see this message after this time, counted from now. (200053)
    ChangeInvisibleTime {
        consumer_group: Arc<str> = "consumerGroup",
        topic: Arc<str> = "topic",
        queue_id: i32 = "queueId",
        extra_info: String = "extraInfo",
        offset: i64 = "offset",
        invisible_time: i64 = "invisibleTime",
        broker_name: Option<Arc<str>> = "bname",
    }
}

header! {
    /// What the message's handle is made of from now on.
    ChangeInvisibleTimeResponse {
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_qid: i32 = "reviveQid",
    }
}

bare! {
    /// Which queues are this member's, and how does it get their messages? (400) The body is an [`AssignmentQuestion`].
    QueryAssignment
}

bare! {
    /// Members of a group get the messages of a topic in this way (401); the body, a [`RequestMode`], says in which.
    SetMessageRequestMode
}

/// How a member gets the messages of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum MessageRequestMode {
    #[default]
    Pull,
    Pop,
    #[serde(other)]
    Unknown,
}

/// The body of 400.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct AssignmentQuestion {
    pub(crate) topic: String,
    pub(crate) consumer_group: String,
    pub(crate) client_id: String,
    /// `AVG` or `AVG_BY_CIRCLE`: brokers know no other.
    pub(crate) strategy_name: String,
    pub(crate) message_model: MessageModel,
}

/// The body of the answer to 400.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct AssignmentAnswer {
    /// `None` where the broker cannot tell: the share stays as it is.
    pub(crate) message_queue_assignments: Option<Vec<Assignment>>,
}

/// One queue that is a member's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Assignment {
    pub(crate) message_queue: MessageQueue,
    #[serde(default)]
    pub(crate) mode: MessageRequestMode,
}

/// The body of 401.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RequestMode {
    pub(crate) topic: String,
    pub(crate) consumer_group: String,
    pub(crate) mode: MessageRequestMode,
    /// How many other members' queues each member pops as well; 0 and less: all queues are everybody's.
    pub(crate) pop_share_queue_num: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    #[test]
    fn an_assignment_of_a_broker_is_read() {
        let body = br#"{"messageQueueAssignments":[{"attachments":null,"messageQueue":{"brokerName":"broker-a","queueId":-1,"topic":"t"},"mode":"POP"}]}"#;
        let answer: AssignmentAnswer = json::read(body).unwrap();
        let expected = Assignment {
            message_queue: MessageQueue::new("t", "broker-a", -1),
            mode: MessageRequestMode::Pop,
        };
        assert_eq!(answer.message_queue_assignments, Some(vec![expected]));
        for nothing in [&b"{}"[..], br#"{"messageQueueAssignments":null}"#] {
            assert_eq!(json::read::<AssignmentAnswer>(nothing).unwrap().message_queue_assignments, None);
        }
    }

    #[test]
    fn a_mode_has_the_words_of_java() {
        let mode = RequestMode {
            topic: "t".into(),
            consumer_group: "g".into(),
            mode: MessageRequestMode::Pop,
            pop_share_queue_num: 0,
        };
        let text = r#"{"topic":"t","consumerGroup":"g","mode":"POP","popShareQueueNum":0}"#;
        assert_eq!(String::from_utf8(json::write(&mode)).unwrap(), text);
    }
}
