//! Handles one message at once that an operator sends to this client: for messages that were dealt with wrongly, and to
//! see what a listener makes of one. Nothing is acknowledged by it, sent back or counted.
//!
//! Source: `behaviour.md` section 3.8 "Consume directly".

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time;

use super::Shared;
use super::consume::Ending;
use crate::client::Directly;
use crate::listener::{ConsumeResult, Delivery, Origin, Outcome};
use crate::message::MessageExt;
use crate::protocol::broker_calls::{ConsumeDirectlyResult, DirectResult};

/// How long the message waits for a free handler.
const PERMIT_WAIT: Duration = Duration::from_secs(5);

impl Shared {
    /// Calls the listener that the message is for, in the same way as with any message: with what it extracts, within the
    /// `around`s, as one of the handlers that may run at the same time, for `consume_timeout` at most.
    pub(super) fn directly(self: Arc<Self>, message: MessageExt) -> Directly {
        Box::pin(async move {
            let permit = time::timeout(PERMIT_WAIT, Arc::clone(&self.permits).acquire_owned()).await;
            let permit = permit
                .map_err(|_| format!("all {} handlers of the group are busy", self.config.concurrency))?
                .map_err(|error| error.to_string())?;
            let (handler, delivery) = self.direct_delivery(message)?;
            let (sender, ended) = oneshot::channel();
            let limit = self.config.consume_timeout;
            // A handler of the group like the others: it may go on when nobody waits for it any more, and a shutdown
            // waits for it.
            let shared = Arc::clone(&self);
            self.handlers.spawn("direct handler", async move {
                let (begun, handed) = (Instant::now(), delivery.clone());
                let ending = shared.watch(async move { handler.call(handed).await }).await;
                let ending = shared.answer(&delivery, ending).await;
                drop(permit);
                // The operator may have given up.
                let _ = sender.send((ending, begun.elapsed()));
            });
            let (ending, took) = ended.await.map_err(|_| "the consumer is being shut down".to_owned())?;
            let (consume_result, remark) = describe(ending, limit);
            let spent_time_mills = took.as_millis() as u64;
            let order = self.order.is_some();
            Ok(ConsumeDirectlyResult { order, auto_commit: true, consume_result, remark, spent_time_mills })
        })
    }

    fn direct_delivery(
        &self,
        mut message: MessageExt,
    ) -> Result<(crate::listener::Handler, Delivery), String> {
        let subscriptions = &self.subscriptions;
        let queue = Arc::new(message.message_queue());
        message.restore_topic(subscriptions.retry_topic());
        let table = subscriptions.table();
        let handler = table.listener(message.topic(), || message.tag()).ok_or_else(|| {
            let (topic, tag) = (message.topic(), message.tag().unwrap_or("none"));
            format!(
                "no listener of the group {} is for messages of the topic {topic} with the tag {tag}",
                self.group
            )
        })?;
        message.strip_namespace(subscriptions.namespace());
        let handler = handler.clone();
        let origin =
            Arc::new(Origin::new(Arc::clone(&self.group), self.shown(&queue), self.shutdown.clone()));
        let delivery = Delivery::new(message, &handler, &origin);
        Ok((handler, delivery))
    }
}

/// What the listener said, in the words of the wire.
fn describe(ending: Ending, limit: Duration) -> (DirectResult, Option<String>) {
    match ending {
        Ending::Outcome(Outcome::Done(result)) => match result {
            ConsumeResult::Success => (DirectResult::Success, None),
            ConsumeResult::AckFirst(done) if done > 0 => (DirectResult::Success, None),
            ConsumeResult::DeadLetter => {
                (DirectResult::Later, Some("the listener gives the message up: DeadLetter".to_owned()))
            }
            ConsumeResult::AckFirst(_) | ConsumeResult::ReconsumeLater | ConsumeResult::ReconsumeAfter(_) => {
                (DirectResult::Later, None)
            }
        },
        // It was answered before.
        Ending::Outcome(Outcome::Reply(_)) => (DirectResult::Success, None),
        Ending::Outcome(Outcome::Failed(error)) => (DirectResult::Failed, Some(error.to_string())),
        Ending::Outcome(Outcome::BadPayload(bad)) => (DirectResult::Failed, Some(bad.to_string())),
        Ending::Panicked(reason) => (DirectResult::Failed, Some(format!("the listener panicked: {reason}"))),
        Ending::TimedOut => {
            (DirectResult::Failed, Some(format!("the listener took longer than {limit:?} and was stopped")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{BadPayload, DelayLevel};

    #[test]
    fn each_end_has_its_word_on_the_wire() {
        let done = |result| Ending::Outcome(Outcome::Done(result));
        for (ending, result, remark) in [
            (done(ConsumeResult::Success), DirectResult::Success, ""),
            (done(ConsumeResult::AckFirst(1)), DirectResult::Success, ""),
            (done(ConsumeResult::AckFirst(0)), DirectResult::Later, ""),
            (done(ConsumeResult::ReconsumeLater), DirectResult::Later, ""),
            (done(ConsumeResult::ReconsumeAfter(DelayLevel::S1)), DirectResult::Later, ""),
            (done(ConsumeResult::DeadLetter), DirectResult::Later, "DeadLetter"),
            (Ending::Outcome(Outcome::Failed("no stock".into())), DirectResult::Failed, "no stock"),
            (
                Ending::Outcome(Outcome::BadPayload(BadPayload::new("eof"))),
                DirectResult::Failed,
                "bad payload: eof",
            ),
            (Ending::Panicked("oh".into()), DirectResult::Failed, "the listener panicked: oh"),
            (Ending::TimedOut, DirectResult::Failed, "longer than 1s"),
        ] {
            let told = format!("{ending:?}");
            let (found, text) = describe(ending, Duration::from_secs(1));
            assert_eq!(found, result, "{told}");
            assert!(text.unwrap_or_default().contains(remark), "{told}");
        }
    }
}
