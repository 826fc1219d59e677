//! Going on from another offset, be it back or ahead: because the broker says so in the answer to a pull, or because an
//! operator has it pushed to the members of the group.
//!
//! What is held of the queue counts no more from that moment on, nor does what handlers still say of it: the offset is
//! frozen. The queue is taken anew once the broker has the offset. Source: `behaviour.md` sections 3.7 and 3.11.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use tracing::{debug, info, warn};

use super::Shared;
use super::queue::OwnedQueue;
use crate::client::Offsets;
use crate::remoting::RequestError;

/// After an offset that the broker did not store, or stored an older one after it.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// So often it is looked whether the broker has kept the offset.
const LOOKS: u32 = 5;

impl Shared {
    /// Goes on from these offsets in those of the queues that are owned here; the others are other members' business.
    pub(super) fn reset(self: &Arc<Self>, topic: &str, offsets: Offsets) {
        for (queue, offset) in offsets.into_iter().filter(|(queue, _)| *queue.topic == *topic) {
            let found = self.lock_owned().get(&queue).cloned();
            let Some((owned, stopping)) = found.filter(|_| offset >= 0) else {
                debug!(group = %self.group, %queue, offset, "the queue is not owned here, or the offset is none");
                continue;
            };
            info!(group = %self.group, %queue, from = owned.offset(), to = offset, "the offset is reset");
            owned.restart_at(offset);
            // The pull that is on its way brings nothing any more.
            stopping.cancel();
            let shared = Arc::clone(self);
            self.pulling.spawn("reset", async move {
                let stopping = shared.stopping().clone();
                // What is not stored by then is with the other offsets, at the end.
                let _ = stopping.run_until_cancelled(shared.go_on_from(&owned, offset)).await;
            });
        }
    }

    /// Has the broker store the offset from which the group goes on in a queue, until it has, and gives the queue up to
    /// be taken anew.
    pub(super) async fn go_on_from(self: &Arc<Self>, owned: &Arc<OwnedQueue>, offset: i64) {
        owned.restart_at(offset);
        let (group, queue) = (&self.group, &owned.queue);
        let mut looks = 0;
        let mut reported = false;
        // Another reset may have come meanwhile: what counts is what the queue says.
        while let Some(offset) = owned.offset().filter(|_| self.owns(owned)) {
            match self.store_for_sure(owned, offset).await {
                Ok(true) => break,
                // An older pull or offset that was under way may have come after ours.
                Ok(false) if looks < LOOKS => looks += 1,
                Ok(false) => {
                    warn!(%group, %queue, offset, "the broker does not keep the offset, the queue goes on from the one that it has");
                    break;
                }
                Err(error) if !reported => {
                    warn!(%group, %queue, offset, %error, "the offset could not be stored, it is tried until it works");
                    reported = true;
                }
                Err(error) => debug!(%group, %queue, offset, %error, "the offset could not be stored again"),
            }
            time::sleep(RETRY_DELAY).await;
        }
        self.give_up(owned);
    }

    /// Stores an offset, then asks for it; whether the broker has it.
    async fn store_for_sure(&self, owned: &OwnedQueue, offset: i64) -> Result<bool, RequestError> {
        owned.store(&self.offsets, offset).await?;
        Ok(self.offsets.read(&owned.queue).await? == Some(offset))
    }

    fn owns(&self, owned: &Arc<OwnedQueue>) -> bool {
        self.lock_owned().get(owned.queue.as_ref()).is_some_and(|(current, _)| Arc::ptr_eq(current, owned))
    }
}
