//! Why a message was not sent.

use std::time::Duration;

use crate::client::RouteError;
use crate::message::MessageError;
use crate::protocol::ResponseCode;
use crate::remoting::RequestError;

/// Why a message was not sent, or is not known to have been.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message itself cannot be sent; nothing left the process.
    #[error(transparent)]
    Message(MessageError),
    /// No queue is known for the topic; nothing left the process.
    #[error("the message for {topic} was not sent: its queues are not known")]
    Route {
        /// The topic.
        topic: String,
        /// Why not.
        source: RouteError,
    },
    /// Every attempt failed.
    ///
    /// Where the last one timed out or lost its connection, the broker may have stored the message nevertheless.
    #[error("the message for {topic} was not sent in {attempts} attempts")]
    Failed {
        /// The topic.
        topic: String,
        /// How many brokers were tried, or how often.
        attempts: u32,
        /// What came of the last attempt.
        source: RequestError,
    },
    /// The time was over before an attempt succeeded.
    #[error(
        "the message for {topic} was not sent within the `send_timeout` of {limit:?}, in {attempts} attempts"
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
    /// The producer does not run.
    #[error("the message was not sent: the producer of group {group} {state}")]
    NotRunning {
        /// Its group.
        group: String,
        /// What it does in place of running.
        state: &'static str,
    },
}

impl SendError {
    /// The code with which a broker refused, if one did.
    pub fn response_code(&self) -> Option<ResponseCode> {
        match self {
            Self::Failed { source, .. } | Self::TimedOut { source: Some(source), .. } => {
                source.response_code()
            }
            _ => None,
        }
    }

    /// Whether the same message may be sent with success later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Message(_) | Self::NotRunning { .. } => false,
            Self::Failed { source, .. } => source.is_retryable(),
            Self::Route { .. } | Self::TimedOut { .. } => true,
        }
    }
}

impl From<MessageError> for SendError {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}
