//! The error that users of the library see.

use std::error::Error as StdError;
use std::fmt;

use crate::client::{RouteError, StateError};
use crate::config::{ConfigErrors, Problem};
use crate::consumer::{Conflict, LitePullError};
use crate::message::MessageError;
use crate::producer::{RequestReplyError, SendError};
use crate::remoting::RequestError;

/// What the library's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong, in words for people.
///
/// `Debug` prints the same readable text as `Display`, with its causes, because that is what a `main` that returns an
/// error shows.
#[non_exhaustive]
pub enum Error {
    /// The configuration, the listeners or the state do not go together. Nothing was started.
    Config(ConfigErrors),
    /// A manager, consumer or producer is not in the state for the call.
    State(StateError),
    /// Two listeners of a group could get the same message.
    Conflict {
        /// The group.
        group: String,
        /// The two, and what to do about them.
        conflict: Box<Conflict>,
    },
    /// A consumer cannot be made or started.
    Consumer {
        /// Its group.
        group: String,
        /// Why.
        reason: String,
    },
    /// A lite pull consumer did not do what it was asked.
    LitePull(LitePullError),
    /// A producer cannot be made or started.
    Producer {
        /// Its group.
        group: String,
        /// Why.
        reason: String,
    },
    /// Handlers did not finish within `shutdown_timeout`; their messages are delivered again.
    Abandoned {
        /// Their group.
        group: String,
        /// How many.
        handlers: usize,
    },
    /// The queues of a topic are not known.
    Route(RouteError),
    /// A request got no usable answer.
    Request(RequestError),
    /// A message was not sent.
    Send(SendError),
    /// There is no reply to a request.
    RequestReply(RequestReplyError),
    /// Anything else, such as what a handler ran into.
    Other(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// An error of your own.
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    pub(crate) fn consumer(group: &str, reason: impl fmt::Display) -> Self {
        Self::Consumer { group: group.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn producer(group: &str, reason: impl fmt::Display) -> Self {
        Self::Producer { group: group.to_owned(), reason: reason.to_string() }
    }

    /// The causes of `error`, one after the other.
    pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
        let causes: Vec<_> = std::iter::successors(error.source(), |cause| (*cause).source())
            .map(ToString::to_string)
            .collect();
        causes.join(": ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => errors.fmt(f),
            Self::State(error) => error.fmt(f),
            Self::Conflict { group, conflict } => write!(f, "group {group}: {conflict}"),
            Self::Consumer { group, reason } => {
                write!(f, "the consumer of group {group} cannot run: {reason}")
            }
            Self::LitePull(error) => error.fmt(f),
            Self::Producer { group, reason } => {
                write!(f, "the producer of group {group} cannot run: {reason}")
            }
            Self::Abandoned { group, handlers } => write!(
                f,
                "{handlers} handlers of group {group} did not finish within `shutdown_timeout`; their messages will be delivered again"
            ),
            Self::Route(error) => error.fmt(f),
            Self::Request(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
            Self::RequestReply(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Route(error) => error.source(),
            Self::Request(error) => error.source(),
            Self::Send(error) => error.source(),
            Self::RequestReply(error) => error.source(),
            Self::Other(error) => error.source(),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($variant:ident: $type:ty),* $(,)?) => {$(
        impl From<$type> for Error {
            fn from(error: $type) -> Self {
                Self::$variant(error.into())
            }
        }
    )*};
}

from! {
    Config: ConfigErrors,
    Config: Problem,
    State: StateError,
    LitePull: LitePullError,
    Route: RouteError,
    Request: RequestError,
    Send: SendError,
    RequestReply: RequestReplyError,
    Other: std::io::Error,
    Other: std::str::Utf8Error,
    Other: std::string::FromUtf8Error,
    Other: serde_json::Error,
    Other: MessageError,
    Other: String,
    Other: &str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_the_text_and_its_causes() {
        let source = std::io::Error::other("refused").into();
        let error = Error::from(RequestError::Connect { address: "a:1".into(), source });
        assert_eq!(format!("{error:?}"), "cannot connect to a:1\n  caused by: refused");
    }
}
