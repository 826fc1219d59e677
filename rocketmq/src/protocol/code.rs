//! Request and response codes: open sets, because a newer broker must not break an older client.
//!
//! Source: `protocol.md` section 2, `RequestCode`, `ResponseCode`, `RemotingSysResponseCode`.

use std::fmt;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestCode(pub i32);

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResponseCode(pub i32);

macro_rules! codes {
    ($type:ident { $($name:ident = $number:literal,)* }) => {
        #[allow(missing_docs, reason = "the names are RocketMQ's own; the numbers are all there is to them")]
        impl $type {
            $(pub const $name: Self = Self($number);)*

            /// RocketMQ's name for the code, where it has one here.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name} ({})", self.0),
                    None => write!(f, "code {}", self.0),
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

codes!(RequestCode {
    SEND_MESSAGE = 10,
    PULL_MESSAGE = 11,
    QUERY_CONSUMER_OFFSET = 14,
    UPDATE_CONSUMER_OFFSET = 15,
    UPDATE_AND_CREATE_TOPIC = 17,
    GET_BROKER_RUNTIME_INFO = 28,
    SEARCH_OFFSET_BY_TIMESTAMP = 29,
    GET_MAX_OFFSET = 30,
    GET_MIN_OFFSET = 31,
    VIEW_MESSAGE_BY_ID = 33,
    HEART_BEAT = 34,
    UNREGISTER_CLIENT = 35,
    CONSUMER_SEND_MSG_BACK = 36,
    END_TRANSACTION = 37,
    GET_CONSUMER_LIST_BY_GROUP = 38,
    CHECK_TRANSACTION_STATE = 39,
    NOTIFY_CONSUMER_IDS_CHANGED = 40,
    LOCK_BATCH_MQ = 41,
    UNLOCK_BATCH_MQ = 42,
    CHECK_CLIENT_CONFIG = 46,
    GET_ROUTEINFO_BY_TOPIC = 105,
    GET_BROKER_CLUSTER_INFO = 106,
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP = 200,
    GET_TOPIC_STATS_INFO = 202,
    GET_CONSUMER_CONNECTION_LIST = 203,
    GET_ALL_TOPIC_LIST_FROM_NAMESERVER = 206,
    GET_CONSUME_STATS = 208,
    RESET_CONSUMER_CLIENT_OFFSET = 220,
    GET_CONSUMER_STATUS_FROM_CLIENT = 221,
    INVOKE_BROKER_TO_RESET_OFFSET = 222,
    INVOKE_BROKER_TO_GET_CONSUMER_STATUS = 223,
    QUERY_TOPIC_CONSUME_BY_WHO = 300,
    GET_CONSUMER_RUNNING_INFO = 307,
    CONSUME_MESSAGE_DIRECTLY = 309,
    SEND_MESSAGE_V2 = 310,
    VIEW_BROKER_STATS_DATA = 315,
    SEND_BATCH_MESSAGE = 320,
    SEND_REPLY_MESSAGE = 324,
    SEND_REPLY_MESSAGE_V2 = 325,
    PUSH_REPLY_MESSAGE_TO_CLIENT = 326,
    QUERY_TOPICS_BY_CONSUMER = 343,
    QUERY_SUBSCRIPTION_BY_CONSUMER = 345,
    GET_TOPIC_CONFIG = 351,
    RECALL_MESSAGE = 370,
});

codes!(ResponseCode {
    SUCCESS = 0,
    SYSTEM_ERROR = 1,
    SYSTEM_BUSY = 2,
    REQUEST_CODE_NOT_SUPPORTED = 3,
    TRANSACTION_FAILED = 4,
    FLUSH_DISK_TIMEOUT = 10,
    SLAVE_NOT_AVAILABLE = 11,
    FLUSH_SLAVE_TIMEOUT = 12,
    MESSAGE_ILLEGAL = 13,
    SERVICE_NOT_AVAILABLE = 14,
    VERSION_NOT_SUPPORTED = 15,
    NO_PERMISSION = 16,
    TOPIC_NOT_EXIST = 17,
    TOPIC_EXIST_ALREADY = 18,
    PULL_NOT_FOUND = 19,
    PULL_RETRY_IMMEDIATELY = 20,
    PULL_OFFSET_MOVED = 21,
    QUERY_NOT_FOUND = 22,
    SUBSCRIPTION_PARSE_FAILED = 23,
    SUBSCRIPTION_NOT_EXIST = 24,
    SUBSCRIPTION_NOT_LATEST = 25,
    SUBSCRIPTION_GROUP_NOT_EXIST = 26,
    FILTER_DATA_NOT_EXIST = 27,
    FILTER_DATA_NOT_LATEST = 28,
    INVALID_PARAMETER = 29,
    NO_BUYER_ID = 204,
    NOT_IN_CURRENT_UNIT = 205,
    CONSUMER_NOT_ONLINE = 206,
    CONSUME_MSG_TIMEOUT = 207,
    NO_MESSAGE = 208,
    POLLING_FULL = 209,
    POLLING_TIMEOUT = 210,
    BROKER_NOT_EXIST = 211,
    FLOW_CONTROL = 215,
    NOT_LEADER_FOR_QUEUE = 501,
    ILLEGAL_OPERATION = 604,
    GO_AWAY = 1500,
});

impl ResponseCode {
    /// Whether the same request may succeed later or at another broker.
    ///
    /// Source: `behaviour.md` section 2.1, `retryResponseCodes`.
    pub fn is_retryable(self) -> bool {
        const RETRYABLE: [ResponseCode; 9] = [
            ResponseCode::TOPIC_NOT_EXIST,
            ResponseCode::SERVICE_NOT_AVAILABLE,
            ResponseCode::SYSTEM_ERROR,
            ResponseCode::SYSTEM_BUSY,
            ResponseCode::NO_PERMISSION,
            ResponseCode::NO_BUYER_ID,
            ResponseCode::NOT_IN_CURRENT_UNIT,
            ResponseCode::FLOW_CONTROL,
            ResponseCode::GO_AWAY,
        ];
        RETRYABLE.contains(&self)
    }
}

#[allow(missing_docs, reason = "the names are RocketMQ's own; the numbers are all there is to them")]
impl RequestCode {
    pub const GET_EARLIEST_MSG_STORETIME: Self = Self(32);
    /// A pull of a lite pull consumer; 5.x only.
    pub const LITE_PULL_MESSAGE: Self = Self(361);
    /// 5.x only, as all that follow.
    pub const QUERY_ASSIGNMENT: Self = Self(400);
    pub const SET_MESSAGE_REQUEST_MODE: Self = Self(401);
    pub const POP_MESSAGE: Self = Self(200_050);
    pub const ACK_MESSAGE: Self = Self(200_051);
    pub const CHANGE_MESSAGE_INVISIBLETIME: Self = Self(200_053);
    pub const BATCH_ACK_MESSAGE: Self = Self(200_151);
}
