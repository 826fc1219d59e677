//! What an application looks at around every call of a listener: traces, measurements.
//!
//! Source: `behaviour.md` section 7.4, `ConsumeMessageHook`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::error;

use super::consume::Ending;
use super::filter_hook::FilterHook;
use crate::listener::{ConsumeResult, Delivery, Outcome};
use crate::message::{MessageExt, MessageQueue};
use crate::tasks::panic_message;

/// Code of an application that runs before and after every call of a listener: of one consumer
/// ([`PushConsumerBuilder::consume_hook`](crate::PushConsumerBuilder::consume_hook)), or of all that an application
/// declares ([`AppBuilder::consume_hook`](crate::AppBuilder::consume_hook)).
///
/// A hook looks on; what shall change a delivery or its result is an [`around`](crate::AppBuilder::around). It must not
/// block. One that panics is reported, and changes nothing for the message. Hooks do not run for a message that an
/// operator sends to this client directly. Both methods do nothing by default.
pub trait ConsumeHook: Send + Sync + 'static {
    /// A listener is about to be called.
    fn before(&self, _consuming: &Consuming<'_>) {}

    /// The call has ended. What becomes of the messages is decided after that, by the group's policy.
    fn after(&self, _consuming: &Consuming<'_>, _consumed: &Consumed) {}
}

/// One call of a listener.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Consuming<'a> {
    /// Numbers the calls of this process, so that an [`after`](ConsumeHook::after) can be told to belong to its
    /// [`before`](ConsumeHook::before).
    pub call: u64,
    /// The consumer group.
    pub group: &'a str,
    /// The queue that the messages were taken from; for those that are delivered again, one of the group's retry topic.
    pub queue: &'a MessageQueue,
    /// The listener, for example `app::on_order`.
    pub listener: &'a str,
    /// The messages: at least one.
    pub messages: &'a [MessageExt],
}

/// How a call of a listener ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consumed {
    /// Whether all messages are done.
    pub success: bool,
    /// In which way it ended.
    pub status: ConsumeStatus,
    /// The error, or what the panic said.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// In which way a call of a listener ended; what Java's hooks know as `ConsumeContextType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumeStatus {
    /// The listener is done with all messages.
    Success,
    /// The listener wants some of them again, or has given them up.
    Failed,
    /// The listener returned an error, panicked, or could not be called because a message does not decode.
    Exception,
    /// The listener took longer than `consume_timeout` and was stopped.
    TimedOut,
}

/// The hooks of a consumer, in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    consume: Vec<Arc<dyn ConsumeHook>>,
    filter: Vec<Arc<dyn FilterHook>>,
}

/// A call that the hooks have been told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call(u64);

impl Hooks {
    pub(crate) fn add(&mut self, hook: impl ConsumeHook) {
        self.consume.push(Arc::new(hook));
    }

    pub(crate) fn add_filter(&mut self, hook: impl FilterHook) {
        self.filter.push(Arc::new(hook));
    }

    pub(super) fn filters(&self) -> &[Arc<dyn FilterHook>] {
        &self.filter
    }

    /// Tells of a call that begins.
    pub(super) fn before(&self, delivery: &Delivery) -> Call {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.consume.is_empty() {
            return Call(0);
        }
        let call = Call(NEXT.fetch_add(1, Ordering::Relaxed));
        self.tell(call, delivery, |hook, consuming| hook.before(consuming));
        call
    }

    /// Tells of its success.
    pub(super) fn succeeded(&self, call: Call, delivery: &Delivery, took: Duration) {
        if !self.consume.is_empty() {
            self.after(call, delivery, &Ending::Outcome(ConsumeResult::Success.into()), took);
        }
    }

    /// Tells of its end.
    pub(super) fn after(&self, call: Call, delivery: &Delivery, ending: &Ending, took: Duration) {
        if self.consume.is_empty() {
            return;
        }
        let (status, error) = judge(ending, delivery.messages().len());
        let consumed = Consumed { success: status == ConsumeStatus::Success, status, error, took };
        self.tell(call, delivery, |hook, consuming| hook.after(consuming, &consumed));
    }

    fn tell(&self, call: Call, delivery: &Delivery, tell: impl Fn(&dyn ConsumeHook, &Consuming<'_>)) {
        let consuming = Consuming {
            call: call.0,
            group: delivery.group(),
            queue: delivery.queue(),
            listener: delivery.listener(),
            messages: delivery.messages(),
        };
        for hook in &self.consume {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(hook.as_ref(), &consuming))) {
                let reason = panic_message(panic.as_ref());
                error!(group = consuming.group, reason, "a consume hook panicked, the message goes its way");
            }
        }
    }
}

fn judge(ending: &Ending, messages: usize) -> (ConsumeStatus, Option<String>) {
    match ending {
        Ending::Outcome(Outcome::Done(ConsumeResult::Success) | Outcome::Reply(_)) => {
            (ConsumeStatus::Success, None)
        }
        Ending::Outcome(Outcome::Done(ConsumeResult::AckFirst(done))) if messages <= *done => {
            (ConsumeStatus::Success, None)
        }
        Ending::Outcome(Outcome::Done(_)) => (ConsumeStatus::Failed, None),
        Ending::Outcome(Outcome::Failed(error)) => (ConsumeStatus::Exception, Some(error.to_string())),
        Ending::Outcome(Outcome::BadPayload(bad)) => (ConsumeStatus::Exception, Some(bad.to_string())),
        Ending::Panicked(reason) => (ConsumeStatus::Exception, Some(format!("a panic: {reason}"))),
        Ending::TimedOut => (ConsumeStatus::TimedOut, None),
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooks").field(&self.consume.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::BadPayload;

    #[test]
    fn each_end_of_a_call_has_its_status() {
        let done = |result| Ending::Outcome(Outcome::Done(result));
        for (ending, status, error) in [
            (done(ConsumeResult::Success), ConsumeStatus::Success, None),
            (done(ConsumeResult::AckFirst(2)), ConsumeStatus::Success, None),
            (done(ConsumeResult::AckFirst(1)), ConsumeStatus::Failed, None),
            (done(ConsumeResult::ReconsumeLater), ConsumeStatus::Failed, None),
            (done(ConsumeResult::DeadLetter), ConsumeStatus::Failed, None),
            (Ending::Outcome(Outcome::Failed("no".into())), ConsumeStatus::Exception, Some("no")),
            (
                Ending::Outcome(Outcome::BadPayload(BadPayload::new("no"))),
                ConsumeStatus::Exception,
                Some("bad payload: no"),
            ),
            (Ending::Panicked("no".into()), ConsumeStatus::Exception, Some("a panic: no")),
            (Ending::TimedOut, ConsumeStatus::TimedOut, None),
        ] {
            assert_eq!(judge(&ending, 2), (status, error.map(str::to_owned)), "{ending:?}");
        }
    }
}
