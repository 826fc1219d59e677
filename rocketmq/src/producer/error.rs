//! Why a message was not sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{BrokerVersion, RouteError};
use crate::message::MessageError;
use crate::protocol::ResponseCode;
use crate::remoting::RequestError;

/// Why a message was not sent, or is not known to have been.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message itself, the batch or the handle breaks a rule; nothing left the process.
    #[error(transparent)]
    Message(MessageError),
    /// No queue is known for the topic, and no name server said within `send_timeout` which there are; nothing left the
    /// process.
    #[error("the message for {topic} was not sent: its queues are not known")]
    Route {
        /// The topic.
        topic: String,
        /// Why not.
        source: RouteError,
    },
    /// The selector chose none of the topic's queues; nothing left the process.
    #[error("the message for {topic} was not sent: its selector chose none of the {queues} queues")]
    NoQueueSelected {
        /// The topic.
        topic: String,
        /// How many there were to choose from.
        queues: usize,
    },
    /// A [hook](crate::SendHook::check) does not allow it.
    #[error("the message for {topic} was not sent: {reason}")]
    Forbidden {
        /// The topic.
        topic: String,
        /// The hook's own words.
        reason: String,
    },
    /// As much is on its way already as the producer may have; nothing left the process.
    #[error(
        "the message for {topic} was not sent: for {waited:?}, `max_in_flight` or `max_in_flight_bytes` of others \
         were on their way"
    )]
    FlowControl {
        /// The topic.
        topic: String,
        /// How long there was no room for it: the producer's `send_timeout`.
        waited: Duration,
    },
    /// The broker is too old for what is asked of it.
    #[error("{feature} needs a broker of version 5.0 or newer; {address} is {version}")]
    Unsupported {
        /// What is asked of it.
        feature: BrokerFeature,
        /// Its address.
        address: Arc<str>,
        /// What it is.
        version: String,
    },
    /// A broker said no, the last one after `retries`.
    #[error(
        "the message for {topic} was refused by {address} with {response}: {remark} (attempts: {attempts})"
    )]
    Refused {
        /// The topic.
        topic: String,
        /// How many attempts were made.
        attempts: u32,
        /// The broker that refused.
        address: Arc<str>,
        /// Its code.
        response: ResponseCode,
        /// Its own words.
        remark: String,
    },
    /// No broker was reached, or the connection was lost.
    ///
    /// Where it was lost, the broker may have stored the message nevertheless.
    #[error("the message for {topic} was not sent (attempts: {attempts})")]
    Failed {
        /// The topic.
        topic: String,
        /// How many attempts were made.
        attempts: u32,
        /// What came of the last attempt.
        source: RequestError,
    },
    /// The time was over before a broker had said that it has the message. It may have it nevertheless.
    #[error(
        "the message for {topic} was not confirmed within the `send_timeout` of {limit:?} (attempts: {attempts})"
    )]
    TimedOut {
        /// The topic.
        topic: String,
        /// How many attempts were begun.
        attempts: u32,
        /// The budget for all of them.
        limit: Duration,
        /// What came of the last attempt, where it came to something.
        source: Option<RequestError>,
    },
    /// The producer cannot send in transactions: nothing could tell brokers what has become of them should this process
    /// die. Nothing left the process.
    #[error(
        "the producer of group {group} has no check, so it cannot send in transactions: annotate one, \
         #[rocketmq::transaction(producer = \"…\")], and set `transaction: true`, or give it one by hand, \
         `Producer::builder(…).check(…)`"
    )]
    NoCheck {
        /// Its group.
        group: String,
    },
    /// The producer does not run.
    #[error("the message was not sent: the producer of group {group} {state}")]
    NotRunning {
        /// Its group.
        group: String,
        /// What it does in place of running.
        state: &'static str,
    },
}

/// What brokers older than 5.0 do not know, and would silently do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerFeature {
    /// A message that is delayed by time. An older broker delivers it at once.
    TimerMessage,
    /// Taking a message back.
    Recall,
}

impl fmt::Display for BrokerFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimerMessage => "a message that is delayed by time (delay levels work everywhere)",
            Self::Recall => "taking a message back",
        })
    }
}

impl SendError {
    pub(super) fn unsupported(feature: BrokerFeature, address: &Arc<str>, version: BrokerVersion) -> Self {
        Self::Unsupported { feature, address: Arc::clone(address), version: version.to_string() }
    }

    /// What became of a send whose last attempt, of `attempts`, ended so.
    pub(super) fn of_attempt(topic: String, attempts: u32, limit: Duration, error: RequestError) -> Self {
        match error {
            RequestError::Refused { address, response, remark, .. } => {
                Self::Refused { topic, attempts, address, response, remark }
            }
            source @ RequestError::TimedOut { .. } => {
                Self::TimedOut { topic, attempts, limit, source: Some(source) }
            }
            source => Self::Failed { topic, attempts, source },
        }
    }

    /// The code with which a broker refused, if one did.
    pub fn response_code(&self) -> Option<ResponseCode> {
        match self {
            Self::Refused { response, .. } => Some(*response),
            Self::TimedOut { source: Some(source), .. } => source.response_code(),
            _ => None,
        }
    }

    /// Whether there is too much to do: more than the producer lets go at once, or more than the broker takes. Slow
    /// down.
    pub fn is_flow_control(&self) -> bool {
        matches!(self, Self::FlowControl { .. })
            || matches!(self.response_code(), Some(ResponseCode::FLOW_CONTROL | ResponseCode::SYSTEM_BUSY))
    }

    /// Whether the same message may be sent with success later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { response, .. } => response.is_retryable(),
            Self::Failed { source, .. } => source.is_retryable(),
            Self::Route { .. } | Self::TimedOut { .. } | Self::FlowControl { .. } => true,
            Self::Message(_)
            | Self::NoQueueSelected { .. }
            | Self::Forbidden { .. }
            | Self::Unsupported { .. }
            | Self::NoCheck { .. }
            | Self::NotRunning { .. } => false,
        }
    }
}

impl From<MessageError> for SendError {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}
