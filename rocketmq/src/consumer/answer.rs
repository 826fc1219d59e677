//! The replies of listeners: sent before the request is acknowledged.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::warn;

use super::Shared;
use super::consume::Ending;
use crate::listener::{ConsumeResult, Delivery, Outcome};
use crate::producer::Replier;

/// Why a reply to several messages was not sent.
const NOT_ONE: &str = "a listener that replies takes one message at a time: set the group's `batch` to 1";

impl Shared {
    /// Sends the reply where a call ended with one; how the call ended then.
    pub(super) async fn answer(&self, delivery: &Delivery, ending: Ending) -> Ending {
        let Ending::Outcome(Outcome::Reply(reply)) = ending else { return ending };
        let done = Ending::Outcome(ConsumeResult::Success.into());
        let [request] = delivery.messages() else {
            return Ending::Outcome(Outcome::Failed(NOT_ONE.into()));
        };
        let (group, topic, listener) = (&self.group, request.topic(), delivery.listener());
        let message_id = request.message_id();
        if !request.is_request() {
            warn!(%group, topic, %message_id, listener, "a listener replied to a message whose sender does not wait for a reply: it is done, the reply is dropped");
            return done;
        }
        let replier = self.replier.get_or_init(|| Replier::new(Arc::clone(&self.client)));
        match replier.reply(request, *reply).await {
            Ok(()) => done,
            Err(error) if request.is_request_over(SystemTime::now()) => {
                warn!(%group, topic, %message_id, listener, %error, "a reply was not sent, and its requester does not wait any more: the request is done");
                done
            }
            Err(error) => Ending::Outcome(Outcome::Failed(error.into())),
        }
    }
}
