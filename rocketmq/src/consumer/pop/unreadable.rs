//! Popped records that are no messages: what the group's `on_undecodable` says becomes of them, and their queue goes on.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{error, warn};

use super::held::Patience;
use super::queue::PopQueue;
use crate::config::Undecodable;
use crate::consumer::Shared;
use crate::message::stored::RecordError;
use crate::protocol::ResponseCode;
use crate::protocol::pop::PopHandle;
use crate::remoting::RequestError;

impl Shared {
    /// Does with a popped record that is no message what the group wants done. Without a handle there is nothing to do:
    /// the broker hands it out again.
    pub(super) fn set_aside_popped(
        self: &Arc<Self>,
        queue: &Arc<PopQueue>,
        acks: &mpsc::Sender<PopHandle>,
        reason: &RecordError,
        handle: Option<PopHandle>,
    ) {
        let (group, topic, offset) = (&self.group, &queue.queue.topic, reason.queue_offset);
        let commit_log_offset = reason.commit_log_offset;
        let Some(handle) = handle else {
            warn!(%group, %topic, queue = %queue.queue, offset, error = %reason, "a message cannot be read, nor which of those it is that the broker waits for: it comes again");
            return;
        };
        let is_skipped = self.config.on_undecodable == Undecodable::Skip;
        if is_skipped {
            error!(%group, %topic, queue = %queue.queue, offset, error = %reason, "a message cannot be read: it is skipped, as `on_undecodable` says");
        } else {
            warn!(%group, %topic, queue = %queue.queue, offset, error = %reason, "a message cannot be read: it goes to the dead letter queue");
        }
        queue.add(1);
        let (shared, queue, acks) = (Arc::clone(self), Arc::clone(queue), acks.clone());
        self.handlers.spawn("unreadable", async move {
            if is_skipped || shared.bury_raw_popped(&queue, offset, commit_log_offset).await {
                shared.acknowledge_popped(&queue, &acks, handle).await;
            } else {
                queue.settled(1);
            }
        });
    }

    /// Has the broker make a record a dead letter; whether it is done with, so or as lost.
    async fn bury_raw_popped(&self, queue: &PopQueue, offset: i64, commit_log_offset: i64) -> bool {
        let mut patience = Patience::new();
        let buried = loop {
            let buried = self.send_back_raw(&queue.queue, commit_log_offset).await;
            if !patience.lasts(&buried).await {
                break buried;
            }
        };
        match buried {
            Ok(()) => true,
            Err(error) if is_lost(&error) => {
                error!(group = %self.group, queue = %queue.queue, offset, commit_log_offset, %error, "an unreadable message cannot be made a dead letter, it is passed over");
                true
            }
            Err(error) => {
                warn!(group = %self.group, queue = %queue.queue, offset, commit_log_offset, %error, "an unreadable message could not be made a dead letter, it comes again");
                false
            }
        }
    }
}

/// The broker cannot find it, as against one that is busy, or was not reached.
fn is_lost(error: &RequestError) -> bool {
    error.response_code().is_some_and(|code| code == ResponseCode::SYSTEM_ERROR || !code.is_retryable())
}
