//! Where the offsets of a group are kept: at the brokers, or, of a broadcast group, in a file of each member.
//!
//! Source: `behaviour.md` section 3.10.

use std::sync::Arc;

use tracing::{debug, warn};

use super::local_offsets::LocalOffsets;
use super::stored_offset::{Due, Told};
use crate::client::MqClient;
use crate::message::MessageQueue;
use crate::remoting::RequestError;

/// Where the offsets of a group are kept.
#[derive(Debug)]
pub(crate) enum OffsetStore {
    /// At the brokers, for whichever member has the queue.
    Brokers { client: Arc<MqClient>, group: Arc<str> },
    /// On this machine, for this member alone.
    Local(LocalOffsets),
}

impl OffsetStore {
    /// The offset of a queue, where there is one.
    pub(super) async fn read(&self, queue: &MessageQueue) -> Result<Option<i64>, RequestError> {
        match self {
            Self::Brokers { client, group } => client.query_offset(group, queue).await,
            Self::Local(offsets) => Ok(offsets.get(queue)),
        }
    }

    /// Stores what is due of a queue, or finds out that it need not be stored.
    pub(super) async fn tell(&self, queue: &MessageQueue, due: Due) -> Result<Told, RequestError> {
        match due {
            Due::Moved(offset) => self.write(queue, offset).await,
            Due::Doubted { offset, doubts } => {
                let known = self.read(queue).await?;
                // Another member may be further, if this one was gone for long.
                if known.is_some_and(|known| offset <= known) {
                    return Ok(Told { stored: None, settled: Some(doubts) });
                }
                let told = self.write(queue, offset).await?;
                Ok(Told { settled: told.stored.map(|_| doubts), ..told })
            }
        }
    }

    /// Stores an offset; a local one with the next [`flush`](Self::flush).
    pub(super) async fn write(&self, queue: &MessageQueue, offset: i64) -> Result<Told, RequestError> {
        let is_to_stay = match self {
            Self::Brokers { client, group } => client.update_offset(group, queue, offset).await?,
            Self::Local(offsets) => {
                offsets.put(queue, offset);
                true
            }
        };
        debug!(%queue, offset, is_to_stay, "offset stored");
        // A slave has it for as long as its master is gone: that is told again once it comes back, even if nothing has been
        // handled since.
        Ok(Told { stored: is_to_stay.then_some(offset), settled: None })
    }

    /// Brings to the disk what is kept on this machine.
    pub(super) async fn flush(&self) {
        if let Self::Local(offsets) = self
            && let Err(error) = offsets.flush().await
        {
            warn!(%error, "the offsets of a broadcast group could not be written, it is tried again");
        }
    }

    /// Makes room for a successor on this machine.
    pub(super) fn close(&self) {
        if let Self::Local(offsets) = self {
            offsets.close();
        }
    }

    /// Whether this member alone decides: it has all queues, and nobody gets a failed message again.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}
