//! Why a request got no usable answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{HeaderError, RequestCode, ResponseCode};

/// Why a request to a name server or a broker got no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No connection could be made.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: Arc<str>,
        /// What the system said; shared by all who waited for the connection.
        source: Arc<io::Error>,
    },
    /// The connection ended before the answer came. The peer may have done the work.
    #[error("the connection to {address} was lost")]
    Disconnected {
        /// Where to.
        address: Arc<str>,
        /// What ended it; shared by all who waited on the connection.
        source: Arc<io::Error>,
    },
    /// No answer came in time. The peer may have done the work.
    #[error("{address} did not answer {code} within {limit:?}")]
    TimedOut {
        /// Who was asked.
        address: Arc<str>,
        /// What was asked.
        code: RequestCode,
        /// How long was waited.
        limit: Duration,
    },
    /// The peer answered no.
    #[error("{address} refused {code} with {response}: {remark}")]
    Refused {
        /// Who was asked.
        address: Arc<str>,
        /// What was asked.
        code: RequestCode,
        /// The code of the answer.
        response: ResponseCode,
        /// The peer's own words.
        remark: String,
    },
    /// The peer answered yes, but not what such an answer holds.
    #[error("{address} answered {code} with something unreadable: {reason}")]
    BadAnswer {
        /// Who was asked.
        address: Arc<str>,
        /// What was asked.
        code: RequestCode,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Nobody is known to whom the request could be sent.
    #[error("there is nobody to send {code} to: {reason}")]
    NoAddress {
        /// What was to be asked.
        code: RequestCode,
        /// Who is missing.
        reason: String,
    },
    /// An [`RpcHook`](crate::RpcHook) of the application did not let the request go.
    #[error("an RPC hook did not let {code} go to {address}: {reason}")]
    Forbidden {
        /// Who was to be asked.
        address: Arc<str>,
        /// What was to be asked.
        code: RequestCode,
        /// The hook's words.
        reason: String,
    },
    /// The client has been shut down.
    #[error("the client is shut down; {address} was not asked")]
    ShutDown {
        /// Who was to be asked.
        address: Arc<str>,
    },
}

impl RequestError {
    pub(crate) fn bad_answer(address: &Arc<str>, code: RequestCode, error: &HeaderError) -> Self {
        Self::BadAnswer { address: Arc::clone(address), code, reason: error.to_string() }
    }

    /// The code with which the peer refused, if it did.
    pub fn response_code(&self) -> Option<ResponseCode> {
        match self {
            Self::Refused { response, .. } => Some(*response),
            _ => None,
        }
    }

    /// Whether the same request may succeed later, or at another broker.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::NoAddress { .. } => true,
            Self::Refused { response, .. } => response.is_retryable(),
            Self::BadAnswer { .. } | Self::Forbidden { .. } | Self::ShutDown { .. } => false,
        }
    }

    /// Whether the peer was never reached or never answered, as against one that answered no.
    #[cfg(test)]
    pub(crate) fn is_transport(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Disconnected { .. } | Self::TimedOut { .. })
    }
}
