//! What can be asked of a lite pull consumer in vain.

use crate::message::MessageQueue;

/// Why a lite pull consumer did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LitePullError {
    /// It shares the queues of topics with its group, or has queues of its own choice: one for life.
    #[error(
        "the lite pull consumer of group {group} cannot {action}: it uses `{way}`, and the two exclude each other"
    )]
    OtherWay {
        /// Its group.
        group: String,
        /// What was asked of it.
        action: &'static str,
        /// What it does: `subscribe` or `assign`.
        way: &'static str,
    },
    /// The queue is not, or no longer, one of this consumer's.
    #[error(
        "the lite pull consumer of group {group} cannot {action} {queue}: the queue is not assigned to it, or no longer; see \
         `assignment`"
    )]
    NotAssigned {
        /// Its group.
        group: String,
        /// What was asked of it.
        action: &'static str,
        /// The queue.
        queue: MessageQueue,
    },
    /// There is no such place in the queue.
    #[error("the offset {offset} is not in {queue}, which goes from {min} to {max}")]
    OutOfRange {
        /// The queue.
        queue: MessageQueue,
        /// The offset that was asked for.
        offset: i64,
        /// The first message that is still there.
        min: i64,
        /// Where the next message will be.
        max: i64,
    },
    /// No offset is below 0.
    #[error("{offset} cannot be stored for {queue}: offsets begin at 0")]
    BadOffset {
        /// The queue.
        queue: MessageQueue,
        /// What was to be stored.
        offset: i64,
    },
}
