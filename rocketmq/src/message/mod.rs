//! What travels: messages as users write them, as brokers store them, and everything inside them.
//!
//! [`Message`] is what a producer sends, [`MessageExt`] what a consumer gets: the broker's own record, of which the
//! body, the topic and the properties are slices. [`stored`] reads and writes those records, [`properties`] their
//! property strings, [`id`] the two kinds of message id. Nothing here knows a socket.

pub(crate) mod batch;
pub(crate) mod compression;
pub(crate) mod id;
mod message_ext;
mod outgoing;
pub mod properties;
mod queue;
mod recall_handle;
mod reply;
pub(crate) mod stored;
pub(crate) mod sys_flag;
pub(crate) mod tag;
pub(crate) mod topic;

pub use compression::CompressionType;
pub use message_ext::MessageExt;
pub use outgoing::{Message, MessageError};
pub use queue::MessageQueue;
pub(crate) use recall_handle::RecallHandle;
pub(crate) use reply::{is_reply, reply_topic};
pub use stored::RecordError;
